"""How a Grafana dashboard is written: panels, variables, layers, and where each panel stands.

Knows nothing of what is shown.
"""

import dataclasses
import json

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


@dataclasses.dataclass
class Panel:
    """One panel: `queries` are (expression, legend)."""

    title: str
    unit: str
    description: str
    queries: list
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    # (colour, from which value on); the first from the lowest.
    steps: tuple = ()
    # value → text
    words: tuple = ()


def options(panel):
    """What a kind of panel needs to be told."""
    if panel.kind == "stat":
        return {
            "colorMode": "value" if panel.steps else "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "name" if panel.queries[0][1] else "auto",
            "wideLayout": True,
        }
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Turbo",
                "steps": 64,
                "exponent": 0.5,
                "fill": "dark-orange",
                "reverse": False,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": False},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": panel.unit},
        }
    return {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def defaults(panel):
    """How a panel's values are shown."""
    fields = {"unit": panel.unit, "color": {"mode": "palette-classic"}}
    if panel.kind == "timeseries":
        stacking = {"group": "A", "mode": "normal" if panel.stacked else "none"}
        fields["min"] = 0
        fields["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": stacking,
        }
    if panel.kind == "heatmap":
        fields["custom"] = {
            "hideFrom": {"legend": False, "tooltip": False, "viz": False},
            "scaleDistribution": {"type": "linear"},
        }
    if panel.kind == "stat":
        steps = panel.steps or (("text", None),)
        fields["color"] = {"mode": "thresholds"}
        fields["thresholds"] = {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for color, value in steps],
        }
    if panel.unit == "percentunit":
        fields["max"] = 1
        fields["decimals"] = 2
    if panel.words:
        shown = {value: {"index": n, "text": text} for n, (value, text) in enumerate(panel.words)}
        fields["mappings"] = [{"type": "value", "options": shown}]
    return fields


def target(panel, n, expression, legend):
    """One query of a panel."""
    once = panel.kind == "stat"
    return {
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": expression,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "instant": once,
        "legendFormat": legend or "__auto",
        "range": not once,
        "refId": chr(ord("A") + n),
    }


def drawn(panel, identity, x, y):
    """A panel as Grafana wants it."""
    return {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "options": options(panel),
        "targets": [target(panel, n, *query) for n, query in enumerate(panel.queries)],
    }


def laid_out(rows):
    """All panels: rows (title, open, panels) below each other, in each from left to right."""
    made, identity, y = [], 0, 0
    for title, is_open, panels in rows:
        identity += 1
        row = {"id": identity, "type": "row", "title": title, "collapsed": not is_open, "panels": []}
        row["gridPos"] = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        made.append(row)
        inside, x, top, height = [], 0, y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, top, height = 0, top + height, 0
            identity += 1
            inside.append(drawn(panel, identity, x, top))
            x, height = x + panel.width, max(height, panel.height)
        if is_open:
            made += inside
            y = top + height
        else:
            row["panels"] = inside
            y += 1
    return made


def from_labels(name, label, where, hide=0, regex=""):
    """A variable with the values of a label."""
    query = f"label_values(chat_build_info{{{where}}}, {label})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "regex": regex,
        "refresh": 2,
        "sort": 1,
        "hide": hide,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def to_choose(name, label, values, chosen):
    """A variable with these values."""
    choices = [{"selected": value == chosen, "text": value, "value": value} for value in values]
    return {
        "name": name,
        "label": label,
        "type": "custom",
        "query": ",".join(values),
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {"selected": True, "text": chosen, "value": chosen},
        "options": choices,
    }


def layer(name, color, expression, title):
    """Marks over all panels while a query has series."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expression,
        "step": "",
        "titleFormat": title,
        "textFormat": "",
        "useValueForTime": False,
    }


def source():
    """The variable that everything asks: which Prometheus."""
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
    }


def document(name, description, variables, layers, rows):
    """The file."""
    own = {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "type": "dashboard",
    }
    whole = {
        "uid": name,
        "title": name,
        "description": description,
        "tags": [name],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "fiscalYearStartMonth": 0,
        "links": [],
        "annotations": {"list": [own, *layers]},
        "templating": {"list": [source(), *variables]},
        "panels": laid_out(rows),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
