"""What the Grafana dashboard shows.

    python tests/chart/generated.py      writes charts/chat-api/dashboards/chat-api.json from it

For Grafana 11 and later. All rows but the last show metrics of this service itself; that one shows what the cluster knows of it, and
the descriptions of its panels begin with CLUSTER. How that is written and laid out: grafana.py.
"""

from grafana import Panel, document, from_labels, layer, to_choose

CLUSTER = "Cluster metrics: "
OWN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
# The reasons with a 5xx status, as in the chart's alerts.
OURS = 'reason=~"draining|full|busy|unavailable"'
LATE, UNAVAILABLE, RECOVERED = 'le="$late"', 'code="unavailable"', 'outcome="recovered"'
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


CONNECT_ERRORS = (
    f"{increase('chat_upgrade_failures_total', OURS)}"
    f" / ({increase('chat_connections_opened_total')} + {increase('chat_upgrade_failures_total', OURS)})"
)
ON_TIME = (
    f"{increase('chat_delivery_latency_seconds_bucket', LATE)} / {increase('chat_delivery_latency_seconds_count')}"
)
GOOD_SHARE = (("red", None), ("yellow", 0.99), ("green", 0.999))
BUDGET = (("red", None), ("yellow", 0.0), ("green", 0.25))
YES = (("red", None), ("green", 1))
NONE_IS_GOOD = (("green", None), ("red", 1))

# (title, open, panels)
ROWS = [
    ("Service level", True, [
        stat("Attempts to connect that succeed", "percentunit", "Of all but those that the client got wrong (token, origin, its own limits), in the time shown.",
             f"1 - {CONNECT_ERRORS}", steps=GOOD_SHARE),
        stat("Budget left for connecting", "percentunit", "What is left of the failures that the objective allows, if the time shown were its period.",
             f"1 - ({CONNECT_ERRORS}) / (1 - $objective)", steps=BUDGET),
        stat("Deliveries on time", "percentunit", "Batches handed to the sockets of a pod within `$late` s of the message's receipt, on whichever pod, in the time shown.",
             ON_TIME, steps=GOOD_SHARE),
        stat("Budget left for delivery", "percentunit", "What is left of the late deliveries that the objective allows, if the time shown were its period.",
             f"1 - (1 - {ON_TIME}) / (1 - $objective)", steps=BUDGET),
        stat("Publishes that are taken", "percentunit", "Of those that were not refused for a fault of the client's, in the time shown.",
             f"1 - {increase('chat_refusals_total', UNAVAILABLE)} / {increase('chat_publish_duration_seconds_count')}", steps=GOOD_SHARE),
        stat("Returning clients that continue", "percentunit", "Sockets that came with a position from which the log could continue exactly, in the time shown.",
             f"{increase('chat_resumes_total', RECOVERED)} / {increase('chat_resumes_total')}", steps=GOOD_SHARE),
        Panel("How late messages are", "s", "From a message's receipt to handing it to the sockets, over all pods. Between pods it is as true as their clocks.",
              quantiles("chat_delivery_latency_seconds")),
        Panel("How long senders wait", "s", "From a message's receipt to the log having it, or not.", quantiles("chat_publish_duration_seconds")),
        Panel("Upgrades refused, by our fault", "cps", "draining: the load balancer still sends to a pod that goes; full and busy: too few pods; unavailable: Redis or the issuer.",
              [(rate("chat_upgrade_failures_total", OURS, "reason"), "{{reason}}")], stacked=True),
    ]),
    ("Connections", True, [
        stat("Open connections", "short", "Sockets on all pods.", f"sum({metric('chat_connections')})"),
        stat("Pods that are ready", "short", "The reasons against the others are at their `/readyz`.", f"sum({metric('chat_ready')})", steps=YES),
        stat("Fullest pod", "percentunit", "Connections of the most that a pod takes (`limits.connections`).",
             f"max({metric('chat_connections')} / {metric('chat_connections_limit')})", steps=(("green", None), ("yellow", 0.7), ("red", 0.8))),
        stat("Fullest pod, of the average", "none", "How many times the average the fullest pod holds. After a scale-out old pods stay full.",
             f"max({metric('chat_connections')}) / avg({metric('chat_connections')})"),
        stat("Rooms", "short", "Rooms with members, counted on each pod.", f"sum({metric('chat_rooms')})"),
        stat("Places in rooms", "short", "A plain socket has two with the lobby.", f"sum({metric('chat_subscriptions')})"),
        Panel("Connections by pod", "short", "Open sockets.", [(metric("chat_connections"), "{{instance}}")], width=12, stacked=True),
        Panel("Opened and closed", "cps", "Sockets a second.",
              [(rate("chat_connections_opened_total"), "opened"), (rate("chat_connections_closed_total"), "closed")], width=12),
        Panel("Why connections end", "cps", "By close code. 1000, 1001: the client left; 1006: no close frame; 1012: drain, or the log lost the room; 1013: too slow; 4408: silent.",
              [(rate("chat_connections_closed_total", by="code"), "{{code}}")], stacked=True),
        Panel("Upgrades refused", "cps", "By reason; the codes of docs/protocol.md.", [(rate("chat_upgrade_failures_total", by="reason"), "{{reason}}")], stacked=True),
        Panel("Tokens refused", "cps", "At upgrades, requests and refreshes, by reason.", [(rate("chat_auth_failures_total", by="reason"), "{{reason}}")], stacked=True),
        heat("How long connections lasted", "s", "Those that ended, by age. A line at 60 s is a proxy's timeout.", "chat_connection_duration_seconds", width=12),
        Panel("Returning clients", "cps", "recovered: continues exactly; rollback and reset: the log no longer had the position.",
              [(rate("chat_resumes_total", by="outcome"), "{{outcome}}")], width=12, stacked=True),
    ]),
    ("Latency", True, [
        heat("From receipt to the sockets", "s", "Batches, by age of their oldest message as they were handed to the sockets of one pod.", "chat_delivery_latency_seconds", width=12),
        heat("From receipt to the log", "s", "Publishes, by how long their acknowledgement took.", "chat_publish_duration_seconds", width=12),
    ]),
    ("Messages", True, [
        Panel("Messages in and out", "cps", "In: from clients, by socket or request. Out: to sockets, one for each receiver.",
              [(rate("chat_messages_received_total"), "in"), (rate("chat_messages_delivered_total"), "out")]),
        Panel("Fan-out", "none", "Messages out for each one in.",
              [(f"{rate('chat_messages_delivered_total')} / {rate('chat_messages_received_total')}", "receivers")]),
        Panel("Bytes", "Bps", "Of messages from clients, and of frames to sockets.",
              [(rate("chat_received_bytes_total"), "in"), (rate("chat_delivered_bytes_total"), "out")]),
        Panel("Rooms and places in them", "short", "On all pods.",
              [(f"sum({metric('chat_rooms')})", "rooms"), (f"sum({metric('chat_subscriptions')})", "places")]),
        Panel("One write to a room", "s", "How long writing one batch to all members of a room on a pod takes.", quantiles("chat_deliver_duration_seconds")),
        Panel("Frames refused", "cps", "Answered with an error, by its code.", [(rate("chat_refusals_total", by="code"), "{{code}}")], stacked=True),
    ]),
    ("Slow clients and limits", True, [
        Panel("Closed for reading too slowly", "cps", "By pod. All pods: the network; one: that pod; few clients: theirs.",
              [(rate("chat_slow_close_bytes_count", by="instance"), "{{instance}}")], stacked=True),
        heat("What waited for them", "bytes", "Bytes in the outbox as the socket was closed: near `limits.outbox_bytes`, or less by `limits.outbox_age`.", "chat_slow_close_bytes"),
        Panel("Limits that were met", "cps", "What was refused for a limit, by the limit.", [(rate("chat_limited_total", by="limit"), "{{limit}}")], stacked=True),
    ]),
    ("Redis", True, [
        stat("Redis is up", "none", "Whether every pod reaches it.", f"min({metric('chat_redis_up')})", steps=YES, words=(("0", "away"), ("1", "up"))),
        stat("Oldest canary", "s", "What a pod publishes to itself every 2 s; over 6 s it subscribes anew.", f"max({metric('chat_redis_canary_age_seconds')})",
             steps=(("green", None), ("red", 5))),
        stat("Loss would be noticed", "none", "Whether Redis shows its replication id.", f"min({metric('chat_redis_fenced')})", steps=YES, words=(("0", "no"), ("1", "yes"))),
        stat("Durability", "none", "What is declared, and what can be seen of it.",
             f"max by (declared, found) ({metric('chat_redis_durability')} == 1)", "{{declared}}, found {{found}}"),
        stat("Rooms that lost messages", "short", "Rooms, counted on each pod, whose log had lost what was already delivered, in the time shown.",
             f"{increase('chat_rollbacks_total')} + {increase('chat_resets_total')}", steps=NONE_IS_GOOD),
        stat("Foreign entries", "short", "Entries that could not be decoded, in the time shown.", increase("chat_invalid_entries_total"), steps=NONE_IS_GOOD),
        Panel("Calls to Redis, 99 %", "s", "By function; `publish` are whole pipelines.", [(quantile(0.99, "chat_redis_command_duration_seconds", "le, command"), "{{command}}")]),
        Panel("Calls to Redis", "cps", "By function.", [(rate("chat_redis_command_duration_seconds_count", by="command"), "{{command}}")], stacked=True),
        Panel("Calls that failed", "cps", "By function: no answer, or a refusal.", [(rate("chat_redis_command_failures_total", by="command"), "{{command}}")], stacked=True),
        Panel("Canary", "s", "Since what a pod published last came back to it.", [(metric("chat_redis_canary_age_seconds"), "{{instance}}")]),
        Panel("Retries and reconnects", "cps", "Messages sent again as there was no answer, and subscriptions made anew.",
              [(rate("chat_publish_retries_total"), "messages sent again"), (rate("chat_redis_reconnects_total"), "subscriptions made anew")]),
        Panel("Rooms read again", "cps", "By what said that something may have been missed. `overflow`: a pod does not keep up.",
              [(rate("chat_repairs_total", by="cause"), "{{cause}}")], stacked=True),
    ]),
    ("Drain, rollout and configuration", True, [
        Panel("Pods", "short", "Ready, and on their way out.", [(f"sum({metric('chat_ready')})", "ready"), (f"sum({metric('chat_draining')})", "draining")]),
        Panel("Connections on pods that drain", "short", "They should fall evenly over `drain.window`.",
              [(f"{metric('chat_connections')} and {metric('chat_draining')} == 1", "{{instance}}")]),
        Panel("Releases", "short", "Pods of each version.", [(f"count by (version) ({metric('chat_build_info')})", "{{version}}")], stacked=True),
        Panel("Connections cut at the end of a drain", "short", "Known in a pod's last second: the Event `DrainCompleted` and the log line `drained` say it for sure.",
              [(f"sum({metric('chat_drain_forced_total')})", "cut")], width=6),
        Panel("Changed configurations", "short", "Taken over, or refused.", [(growth("chat_config_reloads_total", "outcome"), "{{outcome}}")], width=6, stacked=True),
        Panel("The issuer's keys", "short", "Fetches, by how they ended.", [(growth("chat_jwks_fetches_total", "outcome"), "{{outcome}}")], width=6, stacked=True),
        Panel("Calls to the Kubernetes API", "short", "For Events and the deletion cost, by how they ended. `forbidden`: a right is missing.",
              [(growth("chat_kubernetes_requests_total", "call, outcome"), "{{call}}: {{outcome}}")], width=6, stacked=True),
    ]),
    ("Process", False, [
        Panel("CPU", "none", "Cores in use.", [(rate("process_cpu_seconds_total", by="instance"), "{{instance}}")]),
        Panel("Workers", "percentunit", "How busy tokio's threads are.",
              [(f"rate({metric('chat_tokio_busy_seconds_total')}[$__rate_interval]) / {metric('chat_tokio_workers')}", "{{instance}}")]),
        Panel("Tasks that wait for any worker", "short", "0 almost always.", [(metric("chat_tokio_global_queue_depth"), "{{instance}}")]),
        Panel("Tasks", "short", "About one for each connection.", [(metric("chat_tokio_alive_tasks"), "{{instance}}")]),
        Panel("Memory", "bytes", "Resident. What the kernel holds for sockets comes on top, and counts for the pod's limit.",
              [(metric("process_resident_memory_bytes"), "{{instance}}")]),
        Panel("Memory for each connection", "bytes", "All resident memory, divided: tells something only of a full pod.",
              [(f"{metric('process_resident_memory_bytes')} / ({metric('chat_connections')} > 0)", "{{instance}}")]),
        Panel("Open files", "percentunit", "Of those that it may have. Each socket is one.",
              [(f"{metric('process_open_fds')} / {metric('process_max_fds')}", "{{instance}}")]),
        Panel("Spans dropped", "cps", "Finished spans that never reached the collector.", [(rate("chat_spans_dropped_total"), "spans")]),
        Panel("Uptime", "s", "Since the process started.", [(f"time() - {metric('process_start_time_seconds')}", "{{instance}}")]),
    ]),
    ("Kubernetes (cluster metrics)", False, [
        Panel("Replicas", "short", CLUSTER + "wanted and available, by kube-state-metrics.", [
            ('kube_deployment_spec_replicas{namespace=~"$namespace",deployment=~"$release"}', "{{deployment}}: wanted"),
            ('kube_deployment_status_replicas_available{namespace=~"$namespace",deployment=~"$release"}', "{{deployment}}: available"),
        ]),
        Panel("Autoscaler", "short", CLUSTER + "current, wanted and most replicas, by kube-state-metrics.", [
            ('kube_horizontalpodautoscaler_status_current_replicas{namespace=~"$namespace",horizontalpodautoscaler=~"$release"}', "current"),
            ('kube_horizontalpodautoscaler_status_desired_replicas{namespace=~"$namespace",horizontalpodautoscaler=~"$release"}', "wanted"),
            ('kube_horizontalpodautoscaler_spec_max_replicas{namespace=~"$namespace",horizontalpodautoscaler=~"$release"}', "most"),
        ]),
        Panel("Restarts", "short", CLUSTER + "of the container in the time shown, by kube-state-metrics.", [
            ('sum by (pod) (increase(kube_pod_container_status_restarts_total{namespace=~"$namespace",container="chat-api",pod=~"($release)-.+"}[$__range]))', "{{pod}}"),
        ]),
        Panel("Memory, of the limit", "percentunit", CLUSTER + "what the kubelet counts, sockets' buffers too, by cAdvisor and kube-state-metrics. At 100 % the pod is killed.", [
            ('max by (namespace, pod) (container_memory_working_set_bytes{namespace=~"$namespace",container="chat-api",pod=~"($release)-.+"})'
             ' / max by (namespace, pod) (kube_pod_container_resource_limits{namespace=~"$namespace",container="chat-api",pod=~"($release)-.+",resource="memory"})', "{{pod}}"),
        ]),
        Panel("CPU, throttled", "percentunit", CLUSTER + "periods in which the container had to wait, by cAdvisor. The chart sets no CPU limit.", [
            ('sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{namespace=~"$namespace",container="chat-api",pod=~"($release)-.+"}[$__rate_interval]))'
             ' / sum by (pod) (rate(container_cpu_cfs_periods_total{namespace=~"$namespace",container="chat-api",pod=~"($release)-.+"}[$__rate_interval]))', "{{pod}}"),
        ]),
        Panel("Network", "Bps", CLUSTER + "of the pods, by cAdvisor.", [
            ('sum by (pod) (rate(container_network_receive_bytes_total{namespace=~"$namespace",pod=~"($release)-.+"}[$__rate_interval]))', "{{pod}}: in"),
            ('sum by (pod) (rate(container_network_transmit_bytes_total{namespace=~"$namespace",pod=~"($release)-.+"}[$__rate_interval]))', "{{pod}}: out"),
        ]),
    ]),
]

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
    layer("Alerts", "red", 'ALERTS{alertname=~"Chat.+",alertstate="firing",namespace=~"$namespace",job=~"$job"}', "{{alertname}}"),
]


def text():
    """The file."""
    about = "Real-time chat: service level, connections, messages, Redis, rollouts. What to do about it: docs/operations.md."
    return document("chat-api", about, VARIABLES, LAYERS, ROWS)
