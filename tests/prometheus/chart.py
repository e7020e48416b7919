"""What the chart ships for Prometheus: its alerts as helm renders them, and the queries of its dashboard.

python tests/prometheus/chart.py [HELM ARGUMENT…]      prints {"alerts": {"groups": …}, "queries": […]} for tests/it/prometheus.rs
"""

import json
import pathlib
import subprocess
import sys

import yaml

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "chart"))
import generated  # noqa: E402
from dashboard import CLUSTER  # noqa: E402

# What Grafana fills in for a scrape every second and a minute on the screen.
VARIABLES = {
    "$__rate_interval": "5s",
    "$__range": "60s",
    "$namespace": ".*",
    "$job": ".*",
    "$instance": ".*",
    "$release": ".*",
    "$objective": "0.999",
    "$late": "0.25",
}


def alerts(*arguments):
    """The groups of rules that the chart makes with these arguments for helm."""
    command = [generated.helm(), "template", "chat", str(generated.CHART), "--namespace", "chat"]
    command += ["-s", "templates/prometheusrule.yaml", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return {"groups": yaml.safe_load(done.stdout)["spec"]["groups"]}


def dashboard():
    """The dashboard as it is shipped."""
    return json.loads(generated.DASHBOARD.read_text())


def panels(shown):
    """All panels, those of collapsed rows too, without the rows."""
    for panel in shown["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def substituted(expression):
    """A query with its variables filled in."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def queries():
    """Every query of the dashboard, and whether it is about the cluster's metrics."""
    shown = dashboard()
    for panel in panels(shown):
        for target in panel["targets"]:
            cluster = panel["description"].startswith(CLUSTER)
            yield {"title": panel["title"], "expression": substituted(target["expr"]), "cluster": cluster}
    for layer in shown["annotations"]["list"]:
        if "expr" in layer:
            yield {"title": layer["name"], "expression": substituted(layer["expr"]), "cluster": False}


if __name__ == "__main__":
    json.dump({"alerts": alerts(*sys.argv[1:]), "queries": list(queries())}, sys.stdout)
