"""Checks the alerts and the dashboard of the chart.

    python tests/prometheus/check.py          needs tests/tools.sh and promtool; HELM names another helm

Renders the alerts, has promtool judge them, and runs alerts/*.yaml: each alert fires there and stays quiet.
Prints `N passed, N failed`, and each failure before that.
"""

import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "chart"))
import generated  # noqa: E402

RUNBOOKS = generated.ROOT / "docs/operations.md"

passed, failures = 0, []


def check(what, ok, detail=""):
    """Counts one check."""
    global passed
    if ok:
        passed += 1
    else:
        failures.append(f"{what}: {detail}" if detail else what)


def rendered(*arguments):
    """The groups of rules that the chart makes with these arguments for helm."""
    command = [generated.helm(), "template", "chat", str(generated.CHART), "-s", "templates/prometheusrule.yaml"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return yaml.safe_load(done.stdout)["spec"]["groups"]


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
    groups = rendered("-f", str(HERE / "values.yaml"))
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    done = promtool("check", "rules", "--lint-fatal", "rules.yaml", folder=folder)
    check("promtool check rules", done.returncode == 0, done.stdout + done.stderr)
    files, fires, quiet = [], set(), set()
    for path in sorted(HERE.glob("alerts/*.yaml")):
        file = yaml.safe_load(path.read_text()) | {"rule_files": ["rules.yaml"]}
        for case in (case for test in file["tests"] for case in test["alert_rule_test"]):
            check(f"{path.name}: {case['alertname']} is an alert", case["alertname"] in rules)
            complete(case, rules)
            (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
        (folder / path.name).write_text(yaml.safe_dump(file))
        files.append(path.name)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for file, done in zip(files, pool.map(lambda file: promtool("test", "rules", file, folder=folder), files), strict=True):
            check(f"promtool test rules {file}", done.returncode == 0, done.stdout + done.stderr)
    check("each alert has a test in which it fires", fires == set(rules), set(rules) ^ fires)
    check("each alert has a test in which it does not", quiet == set(rules), set(rules) ^ quiet)
    sections = set(re.findall(r"^### (Chat\w+)$", RUNBOOKS.read_text(), re.MULTILINE))
    check("each alert has its runbook, and each runbook its alert", sections == set(rules), set(rules) ^ sections)
    for name, rule in rules.items():
        check(f"{name}: severity", rule["labels"]["severity"] in ("critical", "warning"))
        texts = rule["annotations"]
        check(f"{name}: texts", set(texts) == {"summary", "description", "runbook_url"})
        check(f"{name}: says how much, or where", "{{ $" in texts["description"] and "{{" not in texts["summary"])
        check(f"{name}: runbook", texts["runbook_url"] == f"docs/operations.md#{name.lower()}")


def main():
    """Runs all checks."""
    with tempfile.TemporaryDirectory() as folder:
        check_alerts(pathlib.Path(folder))
    for failure in failures:
        print("FAILED", failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
