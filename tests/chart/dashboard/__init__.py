"""The Grafana dashboard, for Grafana 11 and later.

    python tests/chart/generated.py      writes charts/chat-api/dashboards/chat-api.json from it

All rows but the last show metrics of this service itself; that one shows what the cluster knows of it, and the descriptions of its panels
begin with CLUSTER.
"""

from . import clients, operations
from .grafana import document, from_labels, layer, to_choose
from .operations import CLUSTER
from .queries import metric

__all__ = ["CLUSTER", "text"]

VARIABLES = [
    from_labels("namespace", "namespace", ""),
    from_labels("job", "job", 'namespace=~"$namespace"'),
    from_labels("instance", "instance", 'namespace=~"$namespace",job=~"$job"'),
    to_choose("objective", "Objective", ["0.99", "0.995", "0.999", "0.9995", "0.9999"], "0.999"),
    to_choose("late", "Late after (s)", ["0.05", "0.1", "0.25", "0.5", "1", "2.5"], "0.25"),
    # What the chart calls its objects: the management Service, which is the job, has that name in front.
    from_labels("release", "job", 'namespace=~"$namespace",job=~"$job"', hide=2, regex="/(.+)-management/"),
]

LAYERS = [
    layer("Drains", "blue", f"max by (instance) ({metric('chat_draining')}) == 1", "{{instance}} drains"),
    layer(
        "Alerts",
        "red",
        'ALERTS{alertname=~"Chat.+",alertstate="firing",namespace=~"$namespace",job=~"$job"}',
        "{{alertname}}",
    ),
]


def text():
    """The file."""
    about = "Real-time chat: service level, connections, messages, Redis, rollouts. What to do about it: docs/operations.md."
    return document("chat-api", about, VARIABLES, LAYERS, clients.ROWS + operations.ROWS)
