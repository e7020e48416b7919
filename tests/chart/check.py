"""Checks the chart: what it renders, what it refuses, and what is generated from it.

    python tests/chart/check.py          needs tests/tools.sh; HELM names another helm

Renders every ci/*-values.yaml for the oldest and the newest Kubernetes, twice, validates each object strictly
and looks at what schemas cannot say. Prints `N passed, N failed`, and each failure before that.
"""

import concurrent.futures
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

import dashboard
import generated
import variants
import yaml
from generated import CHART, objects
from refusals import FITTING, MISMATCHES, SCHEMA_FAULTS
from schemas import valid

KUBERNETES = ("1.30", "1.36")
# About the cluster's metrics alone.
CLUSTER_ALERTS = ("ChatMemoryNearLimit", "ChatHPAMaxed")
RELEASE = "chat"

passed, failures = 0, []


def check(what, ok, detail=""):
    """Counts one check."""
    global passed
    if ok:
        passed += 1
    else:
        failures.append(f"{what}: {detail}" if detail else what)


def run(*command, values=None):
    """Runs helm; values are given to it on its standard input."""
    given = ["-f", "-"] if values is not None else []
    text = json.dumps(values) if values is not None else None
    return subprocess.run(
        [generated.helm(), *command, *given], input=text, capture_output=True, text=True, check=False
    )


def template(version, *arguments, values=None):
    """helm template for a version of Kubernetes."""
    return run("template", RELEASE, str(CHART), "--kube-version", f"{version}.0", *arguments, values=values)


# --- what holds for every render -------------------------------------------------------------------------------


def pod_of(item):
    """The pod spec and pod metadata of an object that makes pods."""
    if item["kind"] == "Pod":
        return item["spec"], item["metadata"]
    if item["kind"] in ("Deployment", "StatefulSet", "Job"):
        template_ = item["spec"]["template"]
        return template_["spec"], template_["metadata"]
    return None, None


def check_pod(where, item, kubernetes_on):
    """Restricted Pod Security, and what else every pod of the chart promises."""
    spec, _ = pod_of(item)
    name = f"{where} {item['kind']} {item['metadata']['name']}"
    security = spec["securityContext"]
    check(f"{name}: runs as non-root", security["runAsNonRoot"] and security["runAsUser"] >= 10000)
    check(f"{name}: seccomp", security["seccompProfile"] == {"type": "RuntimeDefault"})
    check(f"{name}: no service links", spec["enableServiceLinks"] is False)
    token = item["kind"] == "Job" or (item["kind"] == "Deployment" and kubernetes_on)
    check(f"{name}: token only where one is used", spec["automountServiceAccountToken"] is token)
    kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
    check(f"{name}: restricted volumes", kinds <= {"configMap", "secret", "emptyDir"}, kinds)
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        check(f"{name}: no {field}", not spec.get(field))
    for container in spec["containers"] + spec.get("initContainers", []):
        own = container["securityContext"]
        check(f"{name}: no privilege escalation", own["allowPrivilegeEscalation"] is False)
        check(f"{name}: read-only root", own["readOnlyRootFilesystem"] is True)
        check(f"{name}: no capabilities", own["capabilities"] == {"drop": ["ALL"]})
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        check(f"{name}: requests cpu and memory", {"cpu", "memory"} <= set(requests))
        check(f"{name}: limits memory and not cpu", set(limits) == {"memory"}, limits)
        check(f"{name}: image has a tag", re.search(r"(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"]))
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        claims = {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
        check(f"{name}: mounts exist", mounted <= {volume["name"] for volume in spec.get("volumes", [])} | claims)
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            check(f"{name}: {probe} on the management port", port is None or (port == "management" and port in ports))


def check_secrets(where, items):
    """Secrets by reference only, and a variable stands before the one that it is expanded in."""
    check(f"{where}: renders no Secret", not [item for item in items if item["kind"] == "Secret"])
    for item in items:
        spec, _ = pod_of(item)
        for container in [*(spec or {}).get("containers", []), *(spec or {}).get("initContainers", [])]:
            seen = set()
            for variable in container.get("env", []):
                value = variable.get("value", "")
                check(f"{where} {variable['name']}: no literal password", not re.search(r":[^/$@]+@", value), value)
                used = set(re.findall(r"\$\((\w+)\)", value))
                check(f"{where} {variable['name']}: defined before", used <= seen, used - seen)
                check(f"{where} {variable['name']}: once", variable["name"] not in seen)
                seen.add(variable["name"])


def selects(selector, metadata):
    """Whether a label selector matches."""
    return selector.items() <= metadata["labels"].items()


def check_selectors(where, items):
    """Services, budgets, policies and monitors reach the pods they mean, and no others."""
    pods = [(item["metadata"]["name"], pod_of(item)[1]) for item in items if pod_of(item)[0]]
    for item in items:
        spec, name = item.get("spec", {}), item["metadata"]["name"]
        selector = {
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "Deployment": lambda: spec["selector"]["matchLabels"],
            "StatefulSet": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
        }.get(item["kind"])
        if selector:
            hit = [pod for pod, metadata in pods if selects(selector(), metadata)]
            expected = [name.removesuffix("-management")]
            check(f"{where} {item['kind']} {name}: selects its pods only", hit == expected, hit)
        if item["kind"] == "NetworkPolicy" and name.endswith("-redis"):
            allowed = [peer["podSelector"]["matchLabels"] for peer in spec["ingress"][0]["from"]]
            hit = {pod for pod, metadata in pods if any(selects(peer, metadata) for peer in allowed)}
            own = {f"{RELEASE}-chat-api", f"{RELEASE}-chat-api-check"}
            check(f"{where} NetworkPolicy {name}: lets only the service and its test in", hit <= own and len(hit) > 0, hit)
        if item["kind"] in ("PodMonitor", "ServiceMonitor"):
            end = (spec.get("podMetricsEndpoints") or spec.get("endpoints"))[0]
            by_pod = {"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}
            check(f"{where} {item['kind']}: the instance is the pod, so that a new one is no restart", by_pod in end["relabelings"])
        if item["kind"] == "PodMonitor":
            hit = [pod for pod, metadata in pods if selects(spec["selector"]["matchLabels"], metadata)]
            check(f"{where}: the PodMonitor finds the service's pods", hit == [f"{RELEASE}-chat-api"], hit)
        if item["kind"] == "ServiceMonitor":
            services = [other for other in items if other["kind"] == "Service"]
            hit = [other for other in services if selects(spec["selector"]["matchLabels"], other["metadata"])]
            check(f"{where}: the ServiceMonitor finds one Service", len(hit) == 1)
            ports = {port["name"] for other in hit for port in other["spec"]["ports"]}
            check(f"{where}: … and its port", {end["port"] for end in spec["endpoints"]} <= ports)


def milliseconds(text):
    """A duration, read independently of the chart."""
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", text))


def one(items, kind, name=None):
    """The one object of a kind, or nothing."""
    found = [item for item in items if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    return found[0] if len(found) == 1 else None


def toml_of(items):
    """The service's configuration in a render."""
    return tomllib.loads(one(items, "ConfigMap", f"{RELEASE}-chat-api")["data"]["config.toml"])


def check_deployment(where, items):
    """Drain arithmetic, autoscaling and the disruption budget."""
    deployment, scaler = one(items, "Deployment"), one(items, "HorizontalPodAutoscaler")
    budget, toml = one(items, "PodDisruptionBudget"), toml_of(items)
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    sleep = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = sum(milliseconds(toml["drain"][key]) for key in ("delay", "window", "flush"))
    needed = sleep + math.ceil(drain * 11 / 10_000)
    grace = pod["terminationGracePeriodSeconds"]
    check(f"{where}: grace is the drain and 10 %", grace == needed, f"{grace}, not {needed}")
    check(f"{where}: replicas only without autoscaling", ("replicas" in spec) == (scaler is None))
    most = scaler["spec"]["maxReplicas"] if scaler else spec["replicas"]
    each = grace + spec["minReadySeconds"]
    check(f"{where}: a whole rollout fits", spec["progressDeadlineSeconds"] >= max(600, most * each))
    check(f"{where}: a budget for many only", (budget is not None) == (scaler is not None or spec["replicas"] > 1))
    if budget:
        both = {"minAvailable", "maxUnavailable"} & set(budget["spec"])
        check(f"{where}: the budget says one thing", len(both) == 1, both)
        policy = budget["spec"]["unhealthyPodEvictionPolicy"]
        check(f"{where}: pods that crash block no drain", policy == "AlwaysAllow")
    if scaler:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
        check(f"{where}: the scaler's target", scaler["spec"]["scaleTargetRef"] == target)
        down = scaler["spec"]["behavior"]["scaleDown"]
        policies = [(rule["type"], rule["value"]) for rule in down["policies"]]
        check(f"{where}: one pod at a time down", policies == [("Pods", 1)], policies)
        check(f"{where}: … after its drain", grace <= down["policies"][0]["periodSeconds"] <= 1800)
    strategy = spec["strategy"]
    alone = any(entry == {"name": "REDIS_URL", "value": ""} for entry in pod["containers"][0]["env"])
    wanted = {"type": "Recreate"} if alone else {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    check(f"{where}: strategy", strategy == wanted, strategy)


def check_references(where, items):
    """What an object of the chart calls by name is there."""
    names = {(item["kind"], item["metadata"]["name"]) for item in items}
    for item in items:
        check(f"{where} {item['kind']}: leaves the namespace to helm", "namespace" not in item["metadata"])
        spec, _ = pod_of(item)
        for volume in (spec or {}).get("volumes", []):
            if "configMap" in volume:
                check(f"{where}: ConfigMap of a volume", ("ConfigMap", volume["configMap"]["name"]) in names)
        account = (spec or {}).get("serviceAccountName")
        check(f"{where}: ServiceAccount {account}", account is None or ("ServiceAccount", account) in names)
        if item["kind"] == "RoleBinding":
            check(f"{where}: role of a binding", ("Role", item["roleRef"]["name"]) in names)
            check(f"{where}: subject of a binding", ("ServiceAccount", item["subjects"][0]["name"]) in names)
        if item["kind"] == "HTTPRoute":
            for backend in (backend for rule in item["spec"]["rules"] for backend in rule["backendRefs"]):
                service = one(items, "Service", backend["name"])
                check(f"{where}: the route's port", backend["port"] in {port["port"] for port in service["spec"]["ports"]})
        if item["kind"] == "Ingress":
            for path in (path for rule in item["spec"]["rules"] for path in rule["http"]["paths"]):
                service = one(items, "Service", path["backend"]["service"]["name"])
                ports = {port["name"] for port in service["spec"]["ports"]}
                check(f"{where}: the Ingress' port", path["backend"]["service"]["port"]["name"] in ports)


def check_render(where, text, values):
    """Everything that holds for every render."""
    items = objects(text)
    keys = [(item["kind"], item["metadata"]["name"]) for item in items]
    check(f"{where}: no object twice", len(keys) == len(set(keys)))
    kubernetes_on = values.get("kubernetes", {}).get("enabled", False)
    for item in items:
        if pod_of(item)[0]:
            check_pod(where, item, kubernetes_on)
    check_secrets(where, items)
    check_selectors(where, items)
    check_references(where, items)
    check_deployment(where, items)


# --- what holds for one values file ------------------------------------------------------------------------------


def check_examples(renders):
    """What each ci file is about."""
    env = lambda items: {entry["name"]: entry for entry in one(items, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]}
    default = renders["quickstart"]
    check("default: bundled Redis", env(default)["REDIS_URL"]["value"] == "redis://chat:$(REDIS_PASSWORD)@chat-chat-api-redis:6379/0")
    job, role = one(default, "Job"), one(default, "Role", "chat-chat-api-redis-secret")
    check("default: the Job's hook", job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade")
    verbs = sorted(verb for rule in role["rules"] for verb in rule["verbs"])
    check("default: the Job may get and create, nothing else", verbs == ["create", "get"], verbs)
    weights = {item["kind"]: int(item["metadata"]["annotations"]["helm.sh/hook-weight"]) for item in default
               if "helm.sh/hook-weight" in item["metadata"].get("annotations", {})}
    check("default: rights come before the Job", all(weights["Job"] > weights[kind] for kind in weights if kind != "Job"))
    redis = one(default, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    check("default: Redis keeps what it acknowledged", {"noeviction", "everysec"} <= set(redis["args"]))
    rights = re.search(r"ACL SETUSER chat .*(-@all [^\n]*)", (generated.ROOT / "docs/operations.md").read_text())[1].split()
    given = [argument for argument in redis["args"][6:] if argument[:1] in ("+", "-") and not argument.startswith("--")]
    check("default: Redis' user has the documented rights, and that to load", sorted(given) == sorted([*rights, "+function|load"]), given)
    check("default: no other user gets in", redis["args"][:6] == ["--user", "default", "off", "~*", "&*", "+@all"])
    check("default: Redis without a shell", redis["command"] == ["redis-server"])
    check("default: helm test", one(default, "Pod")["metadata"]["annotations"]["helm.sh/hook"] == "test")

    external = renders["external-redis"]
    check("external: URL from the Secret", env(external)["REDIS_URL"]["valueFrom"]["secretKeyRef"] == {"name": "chat-redis", "key": "redis-url"})
    check("external: nothing else of where Redis is", [name for name in env(external) if name.startswith("CHAT_REDIS__")] == [])
    check("external: no Redis of ours", not [item for item in external if "redis" in item["metadata"]["name"]])
    check("external: labels everywhere", all(item["metadata"]["labels"].get("team") == "a" for item in external))
    check("external: traces", toml_of(external)["telemetry"] == {"endpoint": "http://otel-collector:4317", "protocol": "grpc"})

    sentinel = renders["sentinel"]
    found = {name: entry.get("value") for name, entry in env(sentinel).items() if name.startswith("CHAT_REDIS__")}
    folder = "/etc/chat-api/redis"
    check("sentinel: where Redis is", found == {
        "CHAT_REDIS__SENTINELS": "sentinel-0.redis:26379,sentinel-1.redis:26379,[fd00::2]:26379",
        "CHAT_REDIS__SENTINEL_USER": "chat",
        "CHAT_REDIS__SENTINEL_PASSWORD": None,
        "CHAT_REDIS__TLS_CA_FILE": f"{folder}/ca.crt",
        "CHAT_REDIS__TLS_CERT_FILE": f"{folder}/tls.crt",
        "CHAT_REDIS__TLS_KEY_FILE": f"{folder}/tls.key",
    }, found)
    password = env(sentinel)["CHAT_REDIS__SENTINEL_PASSWORD"]["valueFrom"]["secretKeyRef"]
    check("sentinel: the password from its Secret", password == {"name": "chat-sentinels", "key": "sentinel-password"}, password)
    pod = one(sentinel, "Deployment")["spec"]["template"]["spec"]
    mount = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "redis"]
    files = [item["path"] for volume in pod["volumes"] if volume["name"] == "redis" for item in volume["secret"]["items"]]
    check("sentinel: the files are mounted", (mount, files) == ([folder], ["ca.crt", "tls.crt", "tls.key"]), (mount, files))
    check("external: image by digest", one(external, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"].endswith("@sha256:" + "0" * 64))

    production = renders["production"]
    toml = toml_of(production)
    check("production: the key is a file", toml["auth"]["secret_file"] == "/etc/chat-api/auth/hs256")
    check("production: issuer and audience", (toml["auth"]["issuer"], toml["auth"]["audience"]) == ("https://login.example.org", "chat"))
    check("production: whole numbers stay whole", toml["limits"]["connections"] == 10000 and isinstance(toml["limits"]["connections"], int))
    check("production: fractions stay", toml["telemetry"]["sampler_arg"] == 0.05)
    metrics = one(production, "HorizontalPodAutoscaler")["spec"]["metrics"]
    check("production: scales on connections and CPU", [metric["type"] for metric in metrics] == ["Pods", "Resource"])
    check("production: … by the right metric", metrics[0]["pods"]["metric"]["name"] == "chat_connections")
    check("production: templates in extra objects", one(production, "ConfigMap", "extra")["data"]["release"] == RELEASE)
    rule = one(production, "PrometheusRule")
    check("production: Prometheus finds the alerts", rule["metadata"]["labels"]["release"] == "prometheus")
    alerts = {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}
    check("production: an alert is left out", "ChatConnectionsImbalanced" not in alerts and len(alerts) > 20)
    lost = alerts["ChatMessagesLost"]
    check("production: a severity, a time and labels of its own", (lost["labels"], lost["for"]) == ({"severity": "critical", "team": "chat"}, "1m"), lost)
    url = lost["annotations"]["runbook_url"]
    check("production: where the runbooks are", url == "https://runbooks.example.org/chat-api/operations.md#chatmessageslost", url)
    check("production: a threshold", "> 0.3 * sum" in alerts["ChatMassDisconnect"]["expr"])
    check("production: the alerts are of this release", all(f'job="{RELEASE}-chat-api-management"' in alert["expr"] for name, alert in alerts.items() if name not in CLUSTER_ALERTS))
    check("production: has a dashboard", one(production, "ConfigMap", f"{RELEASE}-chat-api-dashboard"))
    check("production: has Ingress and ServiceMonitor", one(production, "Ingress") and one(production, "ServiceMonitor"))

    single = renders["single"]
    check("single: REDIS_URL is empty", env(single)["REDIS_URL"] == {"name": "REDIS_URL", "value": ""})
    check("single: one replica", one(single, "Deployment")["spec"]["replicas"] == 1)

    auth = toml_of(renders["issuer"])["auth"]
    check("issuer: keys are fetched", auth["jwks_url"] == "https://login.example.org/.well-known/jwks.json")
    check("issuer: permissions", (auth["claim"], auth["default_rooms"]) == ("https://example.org/chat", "*=s, u.{sub}.*=spw"))
    check("issuer: ages and places of tokens", (auth["max_token_age"], auth["query_token"]) == ("12h", True))
    check("issuer: no test that could not sign a token", not one(renders["issuer"], "Pod"))

    events = renders["kubernetes-events"]
    check("events: TOML says so", toml_of(events)["kubernetes"]["enabled"] is True)
    check("events: public key", toml_of(events)["auth"]["public_key"].startswith("-----BEGIN PUBLIC KEY-----\n"))
    rules = one(events, "Role")["rules"]
    check("events: may write Events, nothing else", rules == [{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}])
    check("events: no Job for a Secret that is there", not one(events, "Job"))
    check("events: no test that could not sign a token", not one(events, "Pod"))
    gateway = renders["gateway"]
    check("gateway: the deletion cost is kept", toml_of(gateway)["kubernetes"]["deletion_cost"] is True)
    rights = [(rule["resources"], rule["verbs"]) for rule in one(gateway, "Role", "chat-chat-api")["rules"]]
    check("gateway: … and its right", rights == [(["events"], ["create"]), (["pods"], ["patch"])], rights)
    policy, binding = one(gateway, "ValidatingAdmissionPolicy"), one(gateway, "ValidatingAdmissionPolicyBinding")
    check("gateway: … confined", binding["spec"]["policyName"] == policy["metadata"]["name"] and binding["spec"]["validationActions"] == ["Deny"])
    account = "system:serviceaccount:default:" + one(gateway, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    check("gateway: … for the service's account", account in policy["spec"]["matchConditions"][0]["expression"])
    rules = one(gateway, "NetworkPolicy", "chat-chat-api")["spec"]
    check("gateway: who may come in", [list(rule["from"][0]) for rule in rules["ingress"]] == [["namespaceSelector"]] * 2)
    ports = [[port["port"] for port in rule["ports"]] for rule in rules["egress"]]
    check("gateway: and where the pods may go", ports == [[53, 53], ["redis"], [6443]], ports)
    keys = [argument for argument in one(gateway, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["args"][6:] if "*" in argument]
    check("gateway: Redis' user has the keys of the prefix", keys == ["~{talk:*", "&{talk:*"], keys)
    pod = one(gateway, "Deployment")["spec"]["template"]["spec"]
    preflight, server = pod["initContainers"][0], pod["containers"][0]
    same = ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
    check("gateway: preflight sees what the server sees", [preflight[key] for key in same] == [server[key] for key in same], preflight)
    check("gateway: … and is one", (preflight["args"], len(pod["initContainers"])) == (["preflight"], 1), preflight)
    check("gateway: no Ingress", not one(gateway, "Ingress") and one(gateway, "HTTPRoute"))
    for name, items in renders.items():
        toml = toml_of(items)
        addresses = (toml["server"]["address"], toml["server"]["management_address"])
        check(f"{name}: listens on both families", addresses == ("[::]:8080", "[::]:9090"), addresses)
        test, server = one(items, "Pod"), one(items, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        for container in test["spec"]["initContainers"] + test["spec"]["containers"] if test else []:
            for field in ("env", "volumeMounts"):
                check(f"{name}: helm test's {container['name']} has the service's {field}", container[field] == server[field])
        required = toml.get("redis", {}).get("required", False)
        check(f"{name}: needs the Redis that it is to have", required is (name != "single"), required)
        if name not in ("kubernetes-events", "gateway"):
            roles = [item for item in items if item["kind"] == "Role" and item["metadata"]["name"] == "chat-chat-api"]
            check(f"{name}: no rights for the service", not roles)


def check_change_restarts():
    """A changed configuration is a changed pod; a changed label of the chart is not."""
    sum_of = lambda values: one(objects(template("1.36", values=values).stdout), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    before, after = sum_of({}), sum_of({"config": {"limits": {"rooms": 7}}})
    check("a changed configuration restarts pods", before != after)
    hot = {"log": {"filter": "debug"}, "server": {"origins": ["https://a.example"]}}
    check("what the service takes over while it runs does not", before == sum_of({"config": hot}))
    key = lambda text: {"auth": {"enabled": True, "publicKey": f"-----BEGIN PUBLIC KEY-----{text}"}}
    check("nor does a changed key", sum_of(key("a")) == sum_of(key("b")))
    check("a changed replica count does not", before == sum_of({"replicaCount": 5}))


def check_upgrade():
    """A release of another version changes nothing that Kubernetes does not let be changed, nor restarts what it did not change."""
    with tempfile.TemporaryDirectory() as folder:
        newer = pathlib.Path(folder) / "chat-api"
        shutil.copytree(CHART, newer)
        text = (newer / "Chart.yaml").read_text()
        (newer / "Chart.yaml").write_text(re.sub(r'(?m)^(version: |appVersion: ")[\d.]+', r"\g<1>9.9.9", text))
        for path in sorted(CHART.glob("ci/*-values.yaml")):
            pin = ["-f", str(path), "--set-string", "image.tag=1", "--kube-version", "1.36.0"]
            old, new = (objects(run("template", RELEASE, str(chart), *pin).stdout) for chart in (CHART, newer))
            check(f"upgrade of {path.name}: renders", old and new)
            for before in old:
                after = one(new, before["kind"], before["metadata"]["name"])
                where = f"upgrade of {path.name} {before['kind']} {before['metadata']['name']}"
                check(f"{where}: is there", after is not None)
                fixed = {"Deployment": ["selector"], "StatefulSet": ["selector", "serviceName", "volumeClaimTemplates"], "Service": ["clusterIP", "selector"]}
                for field in fixed.get(before["kind"], []):
                    check(f"{where}: {field}", after["spec"].get(field) == before["spec"].get(field))
                if before["kind"] in ("Deployment", "StatefulSet"):
                    check(f"{where}: restarts no pod", after["spec"]["template"] == before["spec"]["template"])
                if before["kind"] == "RoleBinding":
                    check(f"{where}: its role", after["roleRef"] == before["roleRef"])


def check_helm3(files):
    """Helm 3 renders the same objects."""
    helm3 = pathlib.Path(generated.helm()).with_name("helm3")
    for path in files:
        arguments = ["template", RELEASE, str(CHART), "--kube-version", "1.36.0", "-f", str(path)]
        three = subprocess.run([helm3, *arguments], capture_output=True, text=True, check=False)
        check(f"helm 3 renders {path.name}", three.returncode == 0, three.stderr)
        check(f"helm 3 renders the same of {path.name}", objects(three.stdout) == objects(run(*arguments).stdout))
        lint = subprocess.run([helm3, "lint", "--strict", str(CHART), "-f", str(path)], capture_output=True, text=True, check=False)
        check(f"helm 3 lint --strict {path.name}", lint.returncode == 0, lint.stdout + lint.stderr)


# --- what is refused ---------------------------------------------------------------------------------------------


def check_mismatches(pool):
    """Each refusal of validate.yaml is tried, and says what it is about."""
    answers = list(pool.map(lambda case: template(case[0], values=case[1]), MISMATCHES))
    said = ""
    for (_, values, words), answer in zip(MISMATCHES, answers, strict=True):
        check(f"refused: {json.dumps(values)}", answer.returncode != 0, "was accepted")
        check(f"refusal of {json.dumps(values)} says {words!r}", words in answer.stderr, answer.stderr.strip()[-300:])
        said += answer.stderr
    source = (CHART / "templates/validate.yaml").read_text()
    for text in re.findall(r'append \$faults \(?(?:printf )?"([^"]+)"', source):
        pattern = ".*?".join(re.escape(part) for part in re.split(r"%[svd]|%%", text))
        check(f"a test for the refusal {text[:60]!r}", re.search(pattern, said))
    both = template("1.36", values={"ingress": {"enabled": True}, "redis": {"mode": "none"}}).stderr
    check("all faults are listed at once", both.count("\n  - ") == 3, both)


def check_schema(pool):
    """Unknown keys and wrong types are refused before rendering."""
    answers = pool.map(lambda case: template("1.36", values=case[0]), SCHEMA_FAULTS)
    for (values, words), answer in zip(SCHEMA_FAULTS, answers, strict=True):
        refused = answer.returncode != 0 and "values don't meet the specifications" in answer.stderr
        check(f"the schema refuses {json.dumps(values)}", refused, answer.stderr[-300:] or "was accepted")
        check(f"… and names {words!r}", words in answer.stderr, answer.stderr[-300:])
    for values in FITTING:
        answer = template("1.36", values=values)
        check(f"accepted: {json.dumps(values)}", answer.returncode == 0, answer.stderr[-300:])


def check_generated():
    """Generated files are what they would be now."""
    text = (CHART / "values.yaml").read_text()
    check("every value is documented", not generated.undocumented(text), generated.undocumented(text))
    check("the dashboard is fresh", dashboard.text() == generated.DASHBOARD.read_text(), "run make generated")
    check("the README's table is fresh", generated.readme() == generated.README.read_text(), "run make generated")
    check("deploy's alerts are fresh", generated.rules() == generated.RULES.read_text(), "run make generated")
    fresh = generated.MANIFESTS.read_text() == generated.manifests()
    check("deploy/kubernetes.yaml is fresh", fresh, "run make generated")
    for item in objects(generated.MANIFESTS.read_text()):
        check(f"deploy/kubernetes.yaml {item['kind']}", valid(item, "1.36") is None, valid(item, "1.36"))
        check("deploy/kubernetes.yaml holds no hooks", "helm.sh/hook" not in json.dumps(item))


def check_consistency():
    """What the chart, the image and the compose file say of the same things."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    cargo = tomllib.loads((generated.ROOT / "Cargo.toml").read_text())["package"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    check("the chart is of this version", chart["appVersion"] == cargo["version"], chart["appVersion"])
    dockerfile = (generated.ROOT / "Dockerfile").read_text()
    user = values["podSecurityContext"]["runAsUser"]
    check("image and chart run as the same user", f"\nUSER {user}:{user}\n" in dockerfile)
    check("the image is of this version", f"ARG VERSION={cargo['version']}\n" in dockerfile)
    compose = yaml.safe_load((generated.ROOT / "deploy/compose.yaml").read_text())["services"]
    image = values["redis"]["bundled"]["image"]
    check("one Redis image", compose["redis"]["image"] == f"{image['repository']}:{image['tag']}")
    listed = [entry["image"] for entry in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])]
    pulled = [f"{values['image']['repository']}:{chart['appVersion']}", f"{image['repository']}:{image['tag']}"]
    check("Artifact Hub is told of the images that are pulled", listed == pulled, listed)
    drain = sum(milliseconds(value) for value in values["config"]["drain"].values())
    replicas = [name for name in compose if re.fullmatch(r"chat-\d", name)]
    check("compose: three replicas", replicas == ["chat-1", "chat-2", "chat-3"], replicas)
    proxy = (generated.ROOT / "deploy/haproxy.cfg").read_text()
    check("compose: all behind the proxy", re.findall(r"server (chat-\d) \1:8080", proxy) == replicas)
    scraped = yaml.safe_load((generated.ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    check("compose: all are scraped", scraped["static_configs"][0]["targets"] == [f"{name}:9090" for name in replicas])
    for name in replicas:
        grace = milliseconds(compose[name]["stop_grace_period"])
        check(f"compose {name}: waits for a drain", grace >= drain * 11 / 10, grace)
    promtool = ["promtool", "check", "config", generated.ROOT / "deploy/prometheus/prometheus.yml"]
    done = subprocess.run(promtool, capture_output=True, text=True, check=False)
    check("compose: Prometheus takes its configuration and the alerts", done.returncode == 0, done.stdout + done.stderr)
    hadolint = pathlib.Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, generated.ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    check("hadolint", done.returncode == 0, done.stdout)


def main():
    """Runs all checks."""
    files = sorted(CHART.glob("ci/*-values.yaml"))
    cells = [(path, version) for path in files for version in KUBERNETES]
    renders = {}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        linted = list(pool.map(lambda path: run("lint", "--strict", str(CHART), "-f", str(path)), files))
        texts = list(pool.map(lambda cell: [template(cell[1], "-f", str(cell[0])) for _ in range(2)], cells))
        for path, answer in zip(files, linted, strict=True):
            check(f"helm lint --strict {path.name}", answer.returncode == 0, answer.stdout + answer.stderr)
        for (path, version), (first, again) in zip(cells, texts, strict=True):
            name = path.name.removesuffix("-values.yaml")
            where = f"{name} on {version}"
            check(f"{where}: renders", first.returncode == 0, first.stderr)
            if first.returncode:
                continue
            check(f"{where}: renders the same again", first.stdout == again.stdout)
            for item in objects(first.stdout):
                fault = valid(item, version)
                check(f"{where} {item['kind']} {item['metadata']['name']}: valid", fault is None, fault)
            check_render(where, first.stdout, yaml.safe_load(path.read_text()) or {})
            renders[name] = objects(first.stdout)
        if len(renders) == len(files):
            check_examples(renders)
            check_change_restarts()
            check_upgrade()
            check_helm3(files)
        check_mismatches(pool)
        check_schema(pool)
    variants.run(check)
    check_generated()
    check_consistency()
    for failure in failures:
        print("FAILED", failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
