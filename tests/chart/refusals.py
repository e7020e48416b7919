"""Values that the chart has to refuse, and a few near them that it has to take."""

NONE = {"mode": "none"}
EXTERNAL = {"mode": "external", "external": {"existingSecret": "s"}}
INGRESS = {"enabled": True, "hosts": [{"host": "a.example.org", "paths": ["/"]}]}

# (Kubernetes, values, words of the message)
MISMATCHES = [
    ("1.36", {"redis": NONE, "replicaCount": 2}, "set replicaCount 1"),
    ("1.36", {"redis": NONE, "replicaCount": 1, "autoscaling": {"enabled": True}}, "autoscaling.enabled false"),
    ("1.36", {"redis": {"external": {"url": "redis://r:6379"}}}, "redis.mode is bundled"),
    ("1.36", {"redis": {"mode": "none", "external": {"existingSecret": "s"}}, "replicaCount": 1}, "redis.mode is none"),
    ("1.36", {"redis": {"mode": "external"}}, "does not say where Redis is"),
    ("1.36", {"redis": {"mode": "external", "external": {"url": "redis://r", "existingSecret": "s"}}}, "keep one"),
    ("1.36", {"redis": {"mode": "external", "external": {"url": "redis://:pw@r:6379"}}}, "holds a password"),
    ("1.36", {"redis": {"mode": "external", "external": {"url": "rediss://u:p:w@r:6379"}}}, "holds a password"),
    ("1.36", {"redis": {"bundled": {"maxmemory": "500mb"}}}, "three quarters"),
    ("1.36", {"redis": NONE, "replicaCount": 1, "config": {"history": {"local_bytes": "400MiB"}}}, "memory limit 512Mi"),
    ("1.36", {"redis": NONE, "replicaCount": 1, "resources": {"limits": {"memory": "300Mi"}}}, "256MiB of history"),
    ("1.36", {"redis": NONE, "replicaCount": 1, "resources": {"limits": {"memory": "lots"}}}, "is not a size"),
    ("1.36", {"ingress": INGRESS}, "ingress.enabled opens the chat"),
    ("1.36", {"service": {"type": "LoadBalancer"}}, "service.type LoadBalancer opens the chat"),
    ("1.36", {"auth": {"enabled": True}}, "needs a key"),
    ("1.36", {"auth": {"enabled": True, "existingSecret": "s", "publicKey": "-----BEGIN PUBLIC KEY-----"}}, "keep one"),
    ("1.36", {"auth": {"existingSecret": "s"}}, "auth.enabled is false"),
    ("1.36", {"auth": {"enabled": True, "existingSecret": "s", "allowAnonymous": True}}, "contradict"),
    ("1.36", {"ingress": {"enabled": True}, "auth": {"allowAnonymous": True}}, "at least one of ingress.hosts"),
    ("1.36", {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "is above"),
    ("1.36", {"autoscaling": {"enabled": True, "connections": {"enabled": False}}}, "nothing to scale on"),
    ("1.36", {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}}, "are both set"),
    ("1.36", {"podDisruptionBudget": {"maxUnavailable": 0}}, "allows no eviction"),
    ("1.36", {"podDisruptionBudget": {"maxUnavailable": "0%"}}, "allows no eviction"),
    ("1.36", {"podDisruptionBudget": {"minAvailable": 3}}, "minAvailable 3 of 3 replicas"),
    ("1.36", {"podDisruptionBudget": {"minAvailable": "90%"}}, "minAvailable 90% of 3 replicas"),
    ("1.36", {"podDisruptionBudget": {"minAvailable": 2}, "autoscaling": {"enabled": True, "minReplicas": 2}}, "of 2 replicas"),
    ("1.36", {"terminationGracePeriodSeconds": 54}, "needs 55 s"),
    ("1.36", {"terminationGracePeriodSeconds": 60, "config": {"drain": {"window": "1m 30s"}}}, "needs 110 s"),
    ("1.36", {"terminationGracePeriodSeconds": 60, "preStopSleepSeconds": 10}, "needs 65 s"),
    ("1.29", {"preStopSleepSeconds": 1}, "needs Kubernetes 1.30"),
    ("1.36", {"extraEnv": [{"name": "REDIS_URL", "value": "redis://other"}]}, "extraEnv sets REDIS_URL"),
    ("1.36", {"extraEnv": [{"name": "CHAT_DRAIN__WINDOW", "value": "9m"}]}, "under config.drain"),
    ("1.36", {"kubernetes": {"enabled": True}, "serviceAccount": {"create": False}}, "default ServiceAccount"),
    ("1.28", {}, "incompatible with Kubernetes v1.28"),
]

# (values, words of the message)
SCHEMA_FAULTS = [
    ({"replicas": 3}, "replicas"),
    ({"redis": {"enabled": True}}, "enabled"),
    ({"redis": {"mode": "cluster"}}, "/redis/mode"),
    ({"redis": {"external": {"url": "http://r"}}}, "/redis/external/url"),
    ({"redis": {"bundled": {"maxmemory": "lots"}}}, "/redis/bundled/maxmemory"),
    ({"config": {"limit": {}}}, "limit"),
    ({"config": {"limits": {"sockets": 5}}}, "sockets"),
    ({"config": {"redis": {"url": "redis://r"}}}, "url"),
    ({"config": {"drain": {"delay": "5 seconds"}}}, "/config/drain/delay"),
    ({"config": {"drain": {"delay": 5}}}, "/config/drain/delay"),
    ({"config": {"telemetry": {"sampler_arg": 2}}}, "/config/telemetry/sampler_arg"),
    ({"replicaCount": "three"}, "/replicaCount"),
    ({"replicaCount": -1}, "/replicaCount"),
    ({"image": {"digest": "sha256:short"}}, "/image/digest"),
    ({"auth": {"publicKey": "MIIB"}}, "/auth/publicKey"),
    ({"otlp": {"endpoint": "collector:4317"}}, "/otlp/endpoint"),
    ({"service": {"type": "ExternalName"}}, "/service/type"),
    ({"ingress": {"hosts": [{"host": "a"}]}}, "paths"),
    ({"podLabels": {"a": 1}}, "/podLabels/a"),
    ({"extraEnv": [{"value": "x"}]}, "name"),
    ({"probes": {"liveness": {"httpGet": {}}}}, "httpGet"),
]

FITTING = [
    {"redis": NONE, "replicaCount": 1},
    {"redis": {"mode": "external", "external": {"url": "redis://redis:6379/0"}}},
    {"redis": {"mode": "external", "external": {"url": "redis://user@redis:6379/0"}}},
    {"service": {"type": "LoadBalancer"}, "auth": {"allowAnonymous": True}},
    {"ingress": INGRESS, "auth": {"enabled": True, "existingSecret": "s"}},
    {"podDisruptionBudget": {"minAvailable": "66%"}},
    {"podDisruptionBudget": {"minAvailable": 1}, "replicaCount": 1},
    {"terminationGracePeriodSeconds": 55},
    {"terminationGracePeriodSeconds": 900},
    {"redis": EXTERNAL, "replicaCount": 100, "config": {"drain": {"delay": "0s", "window": "2h", "flush": "1500ms"}}},
    {"serviceAccount": {"create": False, "name": "mine"}},
    {"fullnameOverride": "a-name-that-is-much-longer-than-anything-should-be-allowed-to-be"},
]
