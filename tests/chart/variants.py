"""What single values make of the chart that no example shows. Called by check.py."""

import json
import pathlib
import subprocess

import generated
from cluster import cluster
from schemas import valid

DEPLOYMENT = "chat-chat-api"
MARK = {"chat-api/replicas": "left-out"}
SCALED = {"autoscaling": {"enabled": True}}
HELM_OWNS = {"meta.helm.sh/release-name": "chat", "meta.helm.sh/release-namespace": "default"}


def rendered(values, *arguments, helm=None, env=None):
    """The objects for some values, each one valid."""
    command = [helm or generated.helm(), "template", "chat", str(generated.CHART), "--kube-version", "1.36.0", *arguments, "-f", "-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{json.dumps(values)}: {done.stderr}")
    items = generated.objects(done.stdout)
    for item in items:
        fault = valid(item, "1.36")
        if fault:
            raise SystemExit(f"{json.dumps(values)}: {item['kind']} {item['metadata']['name']}: {fault}")
    return items


def one(items, kind, name=DEPLOYMENT):
    """The one object of a kind and name, or nothing."""
    found = [item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found[0] if found else None


def live(replicas, annotations=None):
    """A Deployment as the cluster has it."""
    metadata = {"name": DEPLOYMENT, "namespace": "default", "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    metadata["annotations"] = HELM_OWNS | (annotations or {})
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}}


def number(values, *arguments, **how):
    """The replicas that are rendered, and whether the Deployment is marked as one that never had any."""
    deployment = one(rendered(values, *arguments, **how), "Deployment")
    return deployment["spec"].get("replicas"), deployment["metadata"].get("annotations") == MARK


def check_replicas(check):
    """An autoscaler's number stays, whichever way it came to have it."""
    in_cluster = ("--dry-run=server", "--disable-openapi-validation")
    keda = {"replicaCount": None}
    for values in (SCALED, keda):
        what = json.dumps(values)
        check(f"{what}: no number without a cluster", number(values) == (None, True), number(values))
        for helm in (generated.helm(), pathlib.Path(generated.helm()).with_name("helm3")):
            for found, expected in (
                (None, (None, True)),
                (live(7), (7, False)),
                (live(0), (0, False)),
                (live(7, MARK), (None, True)),
            ):
                with cluster(found) as env:
                    got = number(values, *in_cluster, helm=helm, env=env)
                check(f"{helm}: {what} over {found and found['spec']}", got == expected, got)
    with cluster(live(7, MARK)) as env:
        got = number({"replicaCount": 2}, *in_cluster, env=env)
    check("a number of our own counts, whatever there is", got == (2, False), got)
    check("none at all can be asked for", number({"replicaCount": 0}) == (0, False))
    items = rendered(keda)
    check("replicas of others: a budget", one(items, "PodDisruptionBudget"))
    deadline = one(items, "Deployment")["spec"]["progressDeadlineSeconds"]
    check("replicas of others: a rollout of ten fits", deadline == 10 * (55 + 15 + 30), deadline)


def check_strategy(check):
    """What the strategy does not have stands beside none."""
    for given, expected in (
        ({"type": "Recreate"}, {"type": "Recreate"}),
        ({"rollingUpdate": {"maxSurge": "100%"}}, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}}),
        ({"rollingUpdate": None}, {"type": "RollingUpdate"}),
    ):
        strategy = one(rendered({"strategy": given}), "Deployment")["spec"]["strategy"]
        check(f"strategy {json.dumps(given)}", strategy == expected, strategy)


def check_placement(check):
    """Each pod is where it may be; the helpers are where the chat pods may be, though not kept apart from them."""
    nodes = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]}
    ]}}
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}]}
    place = {"nodeSelector": {"pool": "chat"}, "tolerations": [{"key": "chat", "operator": "Exists"}], "priorityClassName": "high"}
    affinity = {"nodeAffinity": nodes, "podAntiAffinity": apart}
    redis = {"nodeSelector": {"pool": "data"}, "priorityClassName": "higher", "affinity": {"nodeAffinity": nodes}}
    items = rendered({**place, "affinity": affinity, "redis": {"bundled": redis}})
    pods = {
        "server": (one(items, "Deployment")["spec"]["template"]["spec"], {**place, "affinity": affinity}),
        "Job": (one(items, "Job", f"{DEPLOYMENT}-redis-secret")["spec"]["template"]["spec"], {**place, "affinity": {"nodeAffinity": nodes}}),
        "test": (one(items, "Pod", f"{DEPLOYMENT}-check")["spec"], {**place, "affinity": {"nodeAffinity": nodes}}),
        "Redis": (one(items, "StatefulSet", f"{DEPLOYMENT}-redis")["spec"]["template"]["spec"], redis),
    }
    fields = ("nodeSelector", "tolerations", "priorityClassName", "affinity")
    for name, (pod, expected) in pods.items():
        got = {field: pod[field] for field in fields if field in pod}
        check(f"placement of {name}", got == expected, got)
    for item in rendered({"affinity": {"podAntiAffinity": apart}}):
        if item["kind"] in ("Job", "Pod"):
            check(f"{item['kind']}: no empty affinity", "affinity" not in json.dumps(item))


def check_preflight(check):
    """It comes last, with all that the service has."""
    own = {"name": "first", "image": "a:1", "resources": {"requests": {"cpu": "1m"}}}
    more = {
        "initContainers": [own],
        "extraEnv": [{"name": "A", "value": "1"}],
        "envFrom": [{"secretRef": {"name": "s"}}],
        "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    pod = one(rendered(more), "Deployment")["spec"]["template"]["spec"]
    check("preflight: off unless it is asked for", pod["initContainers"] == [own], pod["initContainers"])
    pod = one(rendered({**more, "preflight": {"enabled": True}}), "Deployment")["spec"]["template"]["spec"]
    first, preflight = pod["initContainers"]
    server = pod["containers"][0]
    check("preflight: after the others", (first, preflight["name"]) == (own, "preflight"))
    for field in ("env", "envFrom", "volumeMounts"):
        check(f"preflight: the service's {field}", preflight[field] == server[field], preflight[field])


def check_slow_drains(check):
    """The alert on a drain that does not end is there where there is time for it: 55 s, and 60 more."""
    for grace, times, there in ((None, {}, False), (114, {}, False), (115, {}, True), (None, {"ChatDrainTooSlow": "50s"}, True)):
        rule = {"enabled": True, "for": times}
        items = rendered({"metrics": {"prometheusRule": rule}, "terminationGracePeriodSeconds": grace})
        alerts = {alert["alert"]: alert for group in one(items, "PrometheusRule")["spec"]["groups"] for alert in group["rules"]}
        found = alerts.get("ChatDrainTooSlow")
        check(f"ChatDrainTooSlow with {grace} s and {times}", bool(found) == there, found)
        check("… after its time", not found or found["for"] == times.get("ChatDrainTooSlow", "55s"), found)


def check_service(check):
    """A load balancer is asked for as it is meant; by default nothing is said of it."""
    fields = {"loadBalancerClass": "example.org/nlb", "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"], "externalTrafficPolicy": "Local"}
    anyone = {"auth": {"allowAnonymous": True}}
    spec = one(rendered({"service": {"type": "LoadBalancer", **fields}, **anyone}), "Service")["spec"]
    check("a load balancer's fields", {key: spec.get(key) for key in fields} == fields, spec)
    spec = one(rendered({"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}, **anyone}), "Service")["spec"]
    check("a node port's policy", spec["externalTrafficPolicy"] == "Local", spec)
    check("… and nothing else", not set(fields) & set(one(rendered({}), "Service")["spec"]))


def check_metrics(check):
    """Metrics of one's own come after the chart's, or alone."""
    own = {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "5"}}}
    for scaling, types in (
        ({"cpu": {"utilization": 70}}, ["Pods", "Resource", "External"]),
        ({"connections": {"enabled": False}}, ["External"]),
    ):
        scaler = one(rendered({"autoscaling": {"enabled": True, "metrics": [own], **scaling}}), "HorizontalPodAutoscaler")
        metrics = scaler["spec"]["metrics"]
        check(f"metrics of one's own, {scaling}", [each["type"] for each in metrics] == types and metrics[-1] == own, metrics)


def check_rights(check):
    """Without the right to give rights nothing of the kind is rendered, and the rest is as before."""
    values = {"kubernetes": {"enabled": True}, "redis": {"bundled": {"existingSecret": "s"}}}
    account = {"serviceAccount": {"create": False, "name": "bound"}}
    before, after = rendered({**values, **account}), rendered({**values, **account, "rbac": {"create": False}})
    rights = [item for item in before if item["kind"] in ("Role", "RoleBinding")]
    check("rbac.create false: no rights", len(rights) == 2 and [item for item in before if item not in rights] == after)
    check("rbac.create false: the account that was bound", one(after, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "bound")


def run(check):
    """Runs all of them."""
    check_replicas(check)
    check_strategy(check)
    check_placement(check)
    check_preflight(check)
    check_slow_drains(check)
    check_service(check)
    check_metrics(check)
    check_rights(check)
