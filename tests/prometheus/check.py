"""Checks the alerts and the dashboard of the chart.

    python tests/prometheus/check.py          needs tests/tools.sh and promtool; HELM names another helm

Renders the alerts, has promtool judge them, and runs alerts/*.yaml: each alert fires there and stays quiet.
Prints `N passed, N failed`, and each failure before that.
"""

import collections
import concurrent.futures
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import chart
import yaml

RUNBOOKS = chart.generated.ROOT / "docs/operations.md"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Of Grafana's units, those that our numbers come in.
UNITS = {"short", "none", "percentunit", "s", "bytes", "Bps", "cps"}

passed, failures = 0, []


def check(what, ok, detail=""):
    """Counts one check."""
    global passed
    if ok:
        passed += 1
    else:
        failures.append(f"{what}: {detail}" if detail else what)


def promtool(*arguments, folder):
    """Runs promtool in a folder."""
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def complete(case, rules):
    """Adds what each alert of one name has in common: its severity, summary and runbook."""
    for wanted in case.get("exp_alerts", []):
        rule = rules[case["alertname"]]
        wanted["exp_labels"] |= rule["labels"]
        wanted["exp_annotations"] = {**rule["annotations"], **wanted["exp_annotations"]}


def check_alerts(folder):
    """The rules are valid, and each alert fires when it should, and only then."""
    alerts = chart.alerts("-f", str(chart.HERE / "values.yaml"))
    rules = {rule["alert"]: rule for group in alerts["groups"] for rule in group["rules"]}
    (folder / "rules.yaml").write_text(yaml.safe_dump(alerts))
    done = promtool("check", "rules", "--lint-fatal", "rules.yaml", folder=folder)
    check("promtool check rules", done.returncode == 0, done.stdout + done.stderr)
    files, fires, quiet = [], set(), set()
    for path in sorted(chart.HERE.glob("alerts/*.yaml")):
        file = yaml.safe_load(path.read_text()) | {"rule_files": ["rules.yaml"]}
        for case in (case for test in file["tests"] for case in test["alert_rule_test"]):
            check(f"{path.name}: {case['alertname']} is an alert", case["alertname"] in rules)
            complete(case, rules)
            (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
        (folder / path.name).write_text(yaml.safe_dump(file))
        files.append(path.name)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for file, done in zip(
            files, pool.map(lambda file: promtool("test", "rules", file, folder=folder), files), strict=True
        ):
            check(f"promtool test rules {file}", done.returncode == 0, done.stdout + done.stderr)
    check("each alert has a test in which it fires", fires == set(rules), set(rules) ^ fires)
    check("each alert has a test in which it does not", quiet == set(rules), set(rules) ^ quiet)
    said = re.search(r"\((\d+) alerts,", (chart.generated.CHART / "README.md").read_text())[1]
    check("the chart's README counts them", int(said) == len(rules), f"{said}, not {len(rules)}")
    sections = set(re.findall(r"^### (Chat\w+)$", RUNBOOKS.read_text(), re.MULTILINE))
    check("each alert has its runbook, and each runbook its alert", sections == set(rules), set(rules) ^ sections)
    for name, rule in rules.items():
        check(f"{name}: severity", rule["labels"]["severity"] in ("critical", "warning"))
        texts = rule["annotations"]
        check(f"{name}: texts", set(texts) == {"summary", "description", "runbook_url"})
        check(f"{name}: says how much, or where", "{{ $" in texts["description"] and "{{" not in texts["summary"])
        check(f"{name}: runbook", texts["runbook_url"] == f"docs/operations.md#{name.lower()}")


def check_whole_bucket():
    """A bucket of a whole number is found as Prometheus 2 and 3 write it."""
    whole = ("--set", "metrics.prometheusRule.thresholds.deliverySeconds=1")
    alerts = json.dumps(chart.alerts("-f", str(chart.HERE / "values.yaml"), *whole))
    matchers = re.findall(r'delivery_latency_seconds_bucket\{le(=~?)\\"([^"]+)\\"', alerts)
    for operator, value in matchers:
        for written in ("1", "1.0"):
            found = re.fullmatch(value, written) if operator == "=~" else value == written
            check(f"the bucket {written} is found", found, f"{operator} {value}")
    check("the alerts ask for a bucket", matchers)


def overlaps(one, other):
    """Whether two panels cover each other."""
    one, other = one["gridPos"], other["gridPos"]
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


def check_layout(panels):
    """Panels stand beside each other, within the width of the page."""
    for panel in panels:
        place = panel["gridPos"]
        check(f"{panel['title']}: on the page", 0 <= place["x"] and place["x"] + place["w"] <= 24 and place["h"] > 0)
    for one, other in itertools.combinations(panels, 2):
        if overlaps(one, other):
            check(f"{one['title']} and {other['title']}", False, "one covers the other")
    check("no panel covers another", True)


def check_panel(panel, known):
    """A panel says what it shows, in which unit, and asks the chosen data source."""
    name = panel["title"]
    check(
        f"{name}: says what it shows",
        len(panel["description"]) > 10 and panel["description"].endswith((".", "`")),
        panel["description"],
    )
    check(f"{name}: unit", panel["fieldConfig"]["defaults"]["unit"] in UNITS)
    check(
        f"{name}: data source",
        [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        == [SOURCE] * (1 + len(panel["targets"])),
    )
    check(
        f"{name}: each query has a name of its own",
        len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0,
    )
    cluster = panel["description"].startswith(chart.CLUSTER)
    for target in panel["targets"]:
        used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
        check(f"{name}: variables", used <= known, used - known)
        metrics = set(re.findall(r"\b([a-z_]+)\{", target["expr"]))
        others = {metric for metric in metrics if metric.startswith(("kube_", "container_"))}
        check(f"{name}: cluster metrics are marked", others == (metrics if cluster else set()) and metrics, metrics)
        check(f"{name}: shows what is there", "vector(" not in target["expr"])


def check_dashboard(folder):
    """The dashboard can be drawn, and its queries are PromQL."""
    shown = chart.dashboard()
    panels = list(chart.panels(shown))
    every = [*shown["panels"], *(panel for row in shown["panels"] for panel in row.get("panels", []))]
    for field in ("id", "title"):
        seen = collections.Counter(panel[field] for panel in every)
        check(f"panels differ by their {field}", max(seen.values()) == 1, seen.most_common(3))
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOKS.read_text().partition("\n## Runbooks\n")[2]))
    named = {" ".join(name.split()) for name in named}
    titles = {panel["title"] for panel in panels}
    check("the panels that runbooks name are there", named and named <= titles, named - titles)
    check_layout(shown["panels"])
    for row in shown["panels"]:
        if row["type"] == "row":
            check(f"{row['title']}: a closed row holds its panels", row["collapsed"] == bool(row["panels"]))
            check_layout(row["panels"])
    variables = shown["templating"]["list"]
    known = {variable["name"] for variable in variables} | {"__rate_interval", "__range"}
    for panel in panels:
        check_panel(panel, known)
    check(
        "all variables are filled in by the tests",
        {name.lstrip("$") for name in chart.VARIABLES} == known - {"datasource"},
    )
    for variable in variables:
        check(f"${variable['name']}: data source", variable["type"] != "query" or variable["datasource"] == SOURCE)
    for layer in shown["annotations"]["list"]:
        check(f"{layer['name']}: data source", layer["datasource"] == SOURCE or layer.get("builtIn") == 1)
    rules = [{"record": f"panel:{n}", "expr": query["expression"]} for n, query in enumerate(chart.queries())]
    (folder / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", "panels.yaml", folder=folder)
    check("every query is PromQL", done.returncode == 0, done.stdout + done.stderr)


def check_config_map():
    """The chart carries the dashboard as it is, where Grafana's sidecar finds it."""
    command = [chart.generated.helm(), "template", "chat", str(chart.generated.CHART), "-s", "templates/dashboard.yaml"]
    command += ["--set", "metrics.dashboard.enabled=true,metrics.dashboard.folder=Chat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check("the dashboard's ConfigMap renders", done.returncode == 0, done.stderr)
    item = yaml.safe_load(done.stdout)
    check("the ConfigMap holds the dashboard", json.loads(item["data"]["chat-api.json"]) == chart.dashboard())
    check("the sidecar finds it", item["metadata"]["labels"]["grafana_dashboard"] == "1")
    check("the folder is named", item["metadata"]["annotations"] == {"grafana_folder": "Chat"})


def main():
    """Runs all checks."""
    with tempfile.TemporaryDirectory() as folder:
        check_alerts(pathlib.Path(folder))
        check_dashboard(pathlib.Path(folder))
    check_config_map()
    check_whole_bucket()
    for failure in failures:
        print("FAILED", failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
