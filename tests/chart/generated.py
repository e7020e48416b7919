"""Generated files: the table of values in the chart's README, deploy/kubernetes.yaml, the dashboard, and deploy's alerts.

    python tests/chart/generated.py      writes them; tests/chart/check.py fails while they differ

HELM names the helm to call (default: target/tools/bin/helm, else the one on PATH).
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import dashboard
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/chat-api"
MANIFESTS = ROOT / "deploy/kubernetes.yaml"
README = CHART / "README.md"
DASHBOARD = CHART / "dashboards/chat-api.json"
RULES = ROOT / "deploy/prometheus/rules.yml"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"

HEADER = """\
# Made by `make generated` from charts/chat-api with deploy/values.yaml: change those, not this.
#
#   kubectl create namespace chat
#   kubectl apply --server-side --namespace chat -f deploy/kubernetes.yaml
#
# The namespace has to be `chat`: role bindings name it. Put your image in first, by image.repository in
# deploy/values.yaml. Pods wait until the Job has made the password of Redis.
"""


def helm():
    """The helm to call."""
    own = ROOT / "target/tools/bin/helm"
    found = os.environ.get("HELM") or (str(own) if own.exists() else shutil.which("helm"))
    return found or sys.exit("no helm: run tests/tools.sh, or name one in HELM")


def objects(text):
    """The objects of a render."""
    return [item for item in yaml.load_all(text, yaml.CSafeLoader) if item]


def manifests():
    """What deploy/kubernetes.yaml has to be. The test Pod is no part of it; the Job for the password is."""
    command = [helm(), "template", "chat", str(CHART), "--namespace", "chat", "--skip-tests"]
    command += ["--kube-version", "1.36.0", "-f", str(ROOT / "deploy/values.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    # helm's own hook annotations mean nothing to kubectl.
    lines = [line for line in done.stdout.splitlines() if not re.match(r"\s+helm\.sh/hook", line)]
    text = re.sub(r"\n  annotations:(?=\n(?! {4}))", "", "\n".join(lines))
    return HEADER + text.rstrip() + "\n"


def rules():
    """What deploy/prometheus/rules.yml has to be: the chart's alerts, for a Prometheus without the operator."""
    command = [helm(), "template", "chat", str(CHART), "--show-only", "templates/prometheusrule.yaml"]
    settings = ["metrics.prometheusRule.enabled=true", 'metrics.selector=job="chat"', "metrics.prometheusRule.clusterMetrics=false"]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    spec = yaml.safe_load(done.stdout)["spec"]
    return "# Made by `make generated` from charts/chat-api: change that, not this.\n" + yaml.safe_dump(spec, sort_keys=False, width=1000)


def documented(text):
    """(path, description, default) of each value whose comment begins with `# --`."""
    path, comment, default = [], None, None
    values = yaml.safe_load(text)
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        line = line.strip()
        key = re.match(r"([A-Za-z][A-Za-z0-9]*):", line)
        if line.startswith("# @default -- "):
            default = line.removeprefix("# @default -- ")
        elif line.startswith("# -- "):
            comment, default = line.removeprefix("# -- "), None
        elif line.startswith("# ") and comment is not None:
            comment += " " + line.removeprefix("# ")
        elif key:
            path = path[: indent // 2] + [key[1]]
            if comment is not None:
                yield ".".join(path), comment, default or f"`{json.dumps(value_at(values, path))}`"
            comment = None
        elif not line:
            comment = None


def value_at(values, path):
    """The value under a path of keys."""
    for key in path:
        values = values[key]
    return values


def undocumented(text):
    """Paths of values that neither have a comment of their own nor stand in a map that has one."""
    known = {path for path, _, _ in documented(text)}

    def walk(value, path):
        if ".".join(path) in known:
            return
        if isinstance(value, dict) and value:
            for key, below in value.items():
                yield from walk(below, [*path, key])
        else:
            yield ".".join(path)

    return list(walk(yaml.safe_load(text), []))


def table():
    """The README's table of values."""
    rows = ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    for path, comment, default in documented((CHART / "values.yaml").read_text()):
        rows.append(f"| `{path}` | {default} | {comment} |")
    return "\n".join(rows)


def readme():
    """What the README has to be: as it is, with a fresh table."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme())
    DASHBOARD.write_text(dashboard.text())
    MANIFESTS.write_text(manifests())
    RULES.write_text(rules())
