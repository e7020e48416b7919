"""A cluster of one Deployment, as far as the chart's `lookup` asks for it."""

import contextlib
import http.server
import json
import os
import pathlib
import tempfile
import threading

DEPLOYMENTS = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
# What the chart makes by default: Helm 4 asks for the kinds of all that it renders.
KINDS = {
    "v1": ("ConfigMap", "Pod", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("Job",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
}


def plural(kind):
    """Of a kind, as paths have it."""
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")


def answers(deployment):
    """What is at which path."""
    groups = []
    found = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "groups": groups},
    }
    for version, kinds in KINDS.items():
        resources = [{"name": plural(kind), "namespaced": True, "kind": kind, "verbs": ["get"]} for kind in kinds]
        group, _, number = version.rpartition("/")
        if group:
            entry = {"groupVersion": version, "version": number}
            groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
        path = f"/{'apis' if group else 'api'}/{version}"
        found[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    if deployment:
        found[DEPLOYMENTS.format(**deployment["metadata"])] = deployment
    return found


@contextlib.contextmanager
def cluster(deployment):
    """Runs it; gives the environment in which helm finds it."""
    found = answers(deployment)

    class Handler(http.server.BaseHTTPRequestHandler):
        """Reads only."""

        def do_GET(self):
            path = self.path.partition("?")[0]
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found.get(path, missing)).encode()
            self.send_response(200 if path in found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "kubeconfig"
        file.write_text(json.dumps(config))
        try:
            yield {**os.environ, "KUBECONFIG": str(file), "KUBECACHEDIR": folder}
        finally:
            server.shutdown()
            server.server_close()
