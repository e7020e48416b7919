"""Prints, as a JSON list, the objects that the chart renders: `objects.py HELM-ARGUMENT…`, such as `-f values.yaml --set key=value`."""

import json
import subprocess
import sys

from generated import CHART, helm, objects

command = [helm(), "template", "chat", str(CHART), *sys.argv[1:]]
rendered = subprocess.run(command, capture_output=True, text=True, check=False)
if rendered.returncode:
    sys.exit(rendered.stderr)
json.dump(objects(rendered.stdout), sys.stdout)
