"""Queries over this service's own metrics, for the pods that the dashboard's variables select; and the panels that most of them are shown in."""

from .grafana import Panel

OWN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
# The reasons with a 5xx status, as in the chart's alerts.
OURS = 'reason=~"draining|full|busy|unavailable"'
# Prometheus 3 writes a bucket of a whole number as 1.0, earlier ones as the service does, as 1.
LATE, UNAVAILABLE, RECOVERED = 'le=~"$late([.]0)?"', 'code="unavailable"', 'outcome="recovered"'
# Of something that is 1 when it is well.
YES = (("red", None), ("green", 1))
QUANTILES = (0.5, 0.95, 0.99)


def metric(name, more=""):
    """All series of one of our metrics that the variables select."""
    return f"{name}{{{more + ',' if more else ''}{OWN}}}"


def rate(name, more="", by=""):
    """A counter's rate, over all pods or by a label."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric(name, more)}[$__rate_interval]))"


def increase(name, more=""):
    """By how much a counter has grown in the time that is shown."""
    return f"sum(increase({metric(name, more)}[$__range]))"


def growth(name, by):
    """By how much a counter grows from one point to the next, for events that are rare."""
    return f"sum by ({by}) (increase({metric(name)}[$__rate_interval]))"


def quantile(share, name, by="le"):
    """A histogram's quantile."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric(name + '_bucket')}[$__rate_interval])))"


def quantiles(name):
    """Queries for the usual quantiles."""
    return [(quantile(share, name), f"{share * 100:g} %") for share in QUANTILES]


def stat(title, unit, description, expression, legend="", **more):
    """One number."""
    return Panel(title, unit, description, [(expression, legend)], kind="stat", width=4, height=4, **more)


def heat(title, unit, description, name, **more):
    """A histogram over time."""
    return Panel(title, unit, description, [(growth(f"{name}_bucket", "le"), "{{le}}")], kind="heatmap", **more)
