"""Draws some panels of the dashboard from a running Prometheus, for the documents: what Grafana would show, in one SVG.

python tests/prometheus/picture.py ADDRESS SECONDS FILE      the last so many seconds; called by tests/it/prometheus.rs
"""

import html
import itertools
import json
import math
import pathlib
import re
import sys
import time
import urllib.parse
import urllib.request

import chart

TITLES = [
    "Connections by pod",
    "Messages in and out",
    "Fan-out",
    "How late messages are",
    "How long senders wait",
    "Why connections end",
    "Calls to Redis, 99 %",
    "Pods",
    "Connections on pods that drain",
]
COLORS = ["#3b6fb6", "#c8553d", "#4c956c", "#8e5ea2", "#b58b00", "#2a9d9d", "#d36ba6", "#6b6b6b"]
LAYERS = {"blue": "#3b6fb6", "red": "#c8553d"}
COLUMNS, WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 3, 400, 220, 52, 34, 40
INK, PALE = "#333333", "#dddddd"


def ask(address, expression, begin, end):
    """[(labels, {second: value})] of a query."""
    parameters = urllib.parse.urlencode({"query": expression, "start": begin, "end": end, "step": 1})
    with urllib.request.urlopen(f"http://{address}/api/v1/query_range?{parameters}", timeout=10) as answer:
        series = json.load(answer)["data"]["result"]
    values = [
        {float(at) - begin: float(value) for at, value in one["values"] if math.isfinite(float(value))}
        for one in series
    ]
    return [(one["metric"], value) for one, value in zip(series, values, strict=True)]


def written(value, unit):
    """A number on an axis."""
    if unit == "s" and value < 1:
        return f"{value * 1000:g} ms"
    return f"{value:,.4g}" + {"s": " s", "cps": "/s"}.get(unit, "")


def ceiling(value):
    """The next round number."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


def legend(text, labels):
    """Grafana's way of naming a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), text)


def stretches(points):
    """Seconds that follow each other, as lines to be drawn."""
    for _, group in itertools.groupby(enumerate(sorted(points)), lambda pair: pair[1] - pair[0]):
        yield [second for _, second in group]


def text(x, y, content, size=10, anchor="start", weight="normal", fill=INK):
    """A line of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{fill}">{html.escape(content)}</text>'


def draw(panel, series, marks, seconds):
    """One panel, with its upper left corner at 0, 0."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    right, low = WIDTH - 12, HEIGHT - BOTTOM
    most = ceiling(max((value for _, points in series for value in points.values()), default=0))
    x = lambda second: LEFT + (right - LEFT) * second / seconds
    y = lambda value: low - (low - TOP) * value / most
    out = [text(LEFT, 18, panel["title"], size=12, weight="bold")]
    for color, points in marks:
        for line in stretches(points):
            place = (
                f'x="{x(line[0]):.1f}" y="{TOP}" width="{max(2, x(line[-1]) - x(line[0])):.1f}" height="{low - TOP}"'
            )
            out.append(f'<rect {place} fill="{color}" fill-opacity="0.12"/>')
    for part in (0, 0.5, 1):
        out.append(f'<path d="M{LEFT} {y(most * part):.1f}H{right}" stroke="{PALE}"/>')
        out.append(text(LEFT - 6, y(most * part) + 3, written(most * part, unit), anchor="end"))
    for second in range(0, seconds + 1, 10):
        out.append(text(x(second), low + 14, f"{second} s", anchor="middle", fill="#777777"))
    at = LEFT
    for color, (name, points) in zip(itertools.cycle(COLORS), series):
        for line in stretches(points):
            path = "L".join(f"{x(second):.1f} {y(points[second]):.1f}" for second in line)
            out.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        out.append(f'<rect x="{at}" y="{low + 21}" width="8" height="8" fill="{color}"/>')
        out.append(text(at + 11, low + 29, name))
        at += 20 + 5.6 * len(name)
    return "".join(out)


def picture(address, seconds):
    """All of them, side by side."""
    end = time.time()
    begin = end - seconds
    shown = chart.dashboard()
    panels = {panel["title"]: panel for panel in chart.panels(shown)}
    layers = [layer for layer in shown["annotations"]["list"] if "expr" in layer]
    marks = [
        (LAYERS[layer["iconColor"]], points)
        for layer in layers
        for _, points in ask(address, chart.substituted(layer["expr"]), begin, end)
    ]
    rows = math.ceil(len(TITLES) / COLUMNS)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT + 24}" font-family="sans-serif">'
    ]
    out.append(f'<rect width="{COLUMNS * WIDTH}" height="{rows * HEIGHT + 24}" fill="#ffffff"/>')
    for n, title in enumerate(TITLES):
        panel, series = panels[title], []
        for target in panel["targets"]:
            for labels, points in ask(address, chart.substituted(target["expr"]), begin, end):
                if any(points.values()):
                    series.append((legend(target["legendFormat"], labels), points))
        x, y = n % COLUMNS * WIDTH, n // COLUMNS * HEIGHT
        out.append(f'<g transform="translate({x} {y})">{draw(panel, series, marks, seconds)}</g>')
    note = "Blue: a pod drains. Red: an alert fires."
    out.append(text(LEFT, rows * HEIGHT + 14, note, fill="#777777"))
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    pathlib.Path(sys.argv[3]).write_text(picture(sys.argv[1], int(sys.argv[2])))
