"""Whether an object is one that Kubernetes, or the Prometheus operator, would take."""

import functools
import json

import jsonschema
import kubernetes_validate

# Kinds of CRDs, whose schemas are not at hand: what the chart writes there, by the place; `[]` is each item of a list.
CUSTOM = {
    "HTTPRoute": {
        "": {"apiVersion", "kind", "metadata", "spec"},
        "spec": {"parentRefs", "hostnames", "rules"},
        "spec.rules[]": {"matches", "timeouts", "backendRefs"},
    },
    "PodMonitor": {
        "": {"apiVersion", "kind", "metadata", "spec"},
        "spec": {"selector", "podMetricsEndpoints"},
        "spec.podMetricsEndpoints[]": {"port", "path", "interval", "relabelings"},
        "spec.podMetricsEndpoints[].relabelings[]": {"sourceLabels", "targetLabel", "replacement"},
    },
    "ServiceMonitor": {
        "": {"apiVersion", "kind", "metadata", "spec"},
        "spec": {"selector", "endpoints"},
        "spec.endpoints[]": {"port", "path", "interval", "relabelings"},
        "spec.endpoints[].relabelings[]": {"sourceLabels", "targetLabel"},
    },
    "PrometheusRule": {
        "": {"apiVersion", "kind", "metadata", "spec"},
        "spec": {"groups"},
        "spec.groups[]": {"name", "rules"},
        "spec.groups[].rules[]": {"alert", "expr", "for", "labels", "annotations"},
    },
}


def places(item, path):
    """The objects at a path of keys."""
    found = [item]
    for key in filter(None, path.split(".")):
        found = [value[key.removesuffix("[]")] for value in found]
        if key.endswith("[]"):
            found = [each for value in found for each in value]
    return found


def valid(item, version):
    """Why an object is not valid, or nothing."""
    fields = CUSTOM.get(item["kind"])
    if fields:
        unknown = {
            field for path, known in fields.items() for place in places(item, path) for field in set(place) - known
        }
        return f"unknown fields: {unknown}" if unknown else None
    return valid_text(json.dumps(item), version)


@functools.cache
def valid_text(text, version):
    """The same for one of Kubernetes' own as JSON: most renders have most objects in common."""
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as fault:
        return str(getattr(fault, "message", fault))[:200]
    except Exception as fault:  # an unknown kind is a failure too
        return f"{type(fault).__name__}: {fault}"[:200]
    return None
