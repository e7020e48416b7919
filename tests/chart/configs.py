"""Prints, as a JSON list, the TOML configuration that the chart renders for each ci/*-values.yaml.

The server itself is the judge of them: tests/it/chart.rs.
"""

import json
import subprocess
import sys

from generated import CHART, helm, objects

texts = []
for values in sorted((CHART / "ci").glob("*-values.yaml")):
    command = [helm(), "template", "chat", str(CHART), "-f", str(values)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for item in objects(rendered):
        if item["kind"] == "ConfigMap" and "config.toml" in item.get("data", {}):
            texts.append(item["data"]["config.toml"])
json.dump(texts, sys.stdout)
