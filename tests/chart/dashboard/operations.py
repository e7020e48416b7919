"""Rows on the service's own state: Redis, drains and configuration, the process, and what the cluster knows of it. (title, open, panels)"""

from .grafana import Panel
from .queries import YES, growth, increase, metric, quantile, rate, stat

CLUSTER = "Cluster metrics: "
# The service's container, in the cluster's metrics; what the chart calls the objects of a release, there.
CONTAINER = 'namespace=~"$namespace",container="chat-api",pod=~"($release)-.+"'
NONE_IS_GOOD = (("green", None), ("red", 1))

ROWS = [
    (
        "Redis",
        True,
        [
            stat(
                "Redis is up",
                "none",
                "Whether every pod reaches it.",
                f"min({metric('chat_redis_up')})",
                steps=YES,
                words=(("0", "away"), ("1", "up")),
            ),
            stat(
                "Oldest canary",
                "s",
                "What a pod publishes to itself every 2 s; over 6 s it subscribes anew.",
                f"max({metric('chat_redis_canary_age_seconds')})",
                steps=(("green", None), ("red", 5)),
            ),
            stat(
                "Loss would be noticed",
                "none",
                "Whether Redis shows its replication id.",
                f"min({metric('chat_redis_fenced')})",
                steps=YES,
                words=(("0", "no"), ("1", "yes")),
            ),
            stat(
                "Durability",
                "none",
                "What is declared, and what can be seen of it.",
                f"max by (declared, found) ({metric('chat_redis_durability')} == 1)",
                "{{declared}}, found {{found}}",
            ),
            stat(
                "Rooms that lost messages",
                "short",
                "Rooms, counted on each pod, whose log had lost what was already delivered, in the time shown.",
                f"{increase('chat_rollbacks_total')} + {increase('chat_resets_total')}",
                steps=NONE_IS_GOOD,
            ),
            stat(
                "Foreign entries",
                "short",
                "Entries that could not be decoded, in the time shown.",
                increase("chat_invalid_entries_total"),
                steps=NONE_IS_GOOD,
            ),
            Panel(
                "Calls to Redis, 99 %",
                "s",
                "By function; `publish` are whole pipelines.",
                [(quantile(0.99, "chat_redis_command_duration_seconds", "le, command"), "{{command}}")],
            ),
            Panel(
                "Calls to Redis",
                "cps",
                "By function.",
                [(rate("chat_redis_command_duration_seconds_count", by="command"), "{{command}}")],
                stacked=True,
            ),
            Panel(
                "Calls that failed",
                "cps",
                "By function: no answer, or a refusal.",
                [(rate("chat_redis_command_failures_total", by="command"), "{{command}}")],
                stacked=True,
            ),
            Panel(
                "Canary",
                "s",
                "Since what a pod published last came back to it.",
                [(metric("chat_redis_canary_age_seconds"), "{{instance}}")],
            ),
            Panel(
                "Retries and reconnects",
                "cps",
                "Messages sent again as there was no answer, and subscriptions made anew.",
                [
                    (rate("chat_publish_retries_total"), "messages sent again"),
                    (rate("chat_redis_reconnects_total"), "subscriptions made anew"),
                ],
            ),
            Panel(
                "Rooms read again",
                "cps",
                "By what said that something may have been missed. `overflow`: a pod does not keep up.",
                [(rate("chat_repairs_total", by="cause"), "{{cause}}")],
                stacked=True,
            ),
        ],
    ),
    (
        "Drain, rollout and configuration",
        True,
        [
            Panel(
                "Pods",
                "short",
                "Ready, and on their way out.",
                [(f"sum({metric('chat_ready')})", "ready"), (f"sum({metric('chat_draining')})", "draining")],
            ),
            Panel(
                "Connections on pods that drain",
                "short",
                "They should fall evenly over `drain.window`.",
                [(f"{metric('chat_connections')} and {metric('chat_draining')} == 1", "{{instance}}")],
            ),
            Panel(
                "Releases",
                "short",
                "Pods of each version.",
                [(f"count by (version) ({metric('chat_build_info')})", "{{version}}")],
                stacked=True,
            ),
            Panel(
                "Connections cut at the end of a drain",
                "short",
                "Known in a pod's last second: the Event `DrainCompleted` and the log line `drained` say it for sure.",
                [(f"sum({metric('chat_drain_forced_total')})", "cut")],
                width=6,
            ),
            Panel(
                "Changed configurations",
                "short",
                "Taken over, or refused.",
                [(growth("chat_config_reloads_total", "outcome"), "{{outcome}}")],
                width=6,
                stacked=True,
            ),
            Panel(
                "The issuer's keys",
                "short",
                "Fetches, by how they ended.",
                [(growth("chat_jwks_fetches_total", "outcome"), "{{outcome}}")],
                width=6,
                stacked=True,
            ),
            Panel(
                "Calls to the Kubernetes API",
                "short",
                "For Events and the deletion cost, by how they ended. `forbidden`: a right is missing.",
                [(growth("chat_kubernetes_requests_total", "call, outcome"), "{{call}}: {{outcome}}")],
                width=6,
                stacked=True,
            ),
        ],
    ),
    (
        "Process",
        False,
        [
            Panel("CPU", "none", "Cores in use.", [(rate("process_cpu_seconds_total", by="instance"), "{{instance}}")]),
            Panel(
                "Workers",
                "percentunit",
                "How busy tokio's threads are.",
                [
                    (
                        f"rate({metric('chat_tokio_busy_seconds_total')}[$__rate_interval]) / {metric('chat_tokio_workers')}",
                        "{{instance}}",
                    )
                ],
            ),
            Panel(
                "Tasks that wait for any worker",
                "short",
                "0 almost always.",
                [(metric("chat_tokio_global_queue_depth"), "{{instance}}")],
            ),
            Panel(
                "Tasks", "short", "About one for each connection.", [(metric("chat_tokio_alive_tasks"), "{{instance}}")]
            ),
            Panel(
                "Memory",
                "bytes",
                "Resident. What the kernel holds for sockets comes on top, and counts for the pod's limit.",
                [(metric("process_resident_memory_bytes"), "{{instance}}")],
            ),
            Panel(
                "Memory for each connection",
                "bytes",
                "All resident memory, divided: tells something only of a full pod.",
                [(f"{metric('process_resident_memory_bytes')} / ({metric('chat_connections')} > 0)", "{{instance}}")],
            ),
            Panel(
                "Open files",
                "percentunit",
                "Of those that it may have. Each socket is one.",
                [(f"{metric('process_open_fds')} / {metric('process_max_fds')}", "{{instance}}")],
            ),
            Panel(
                "Spans dropped",
                "cps",
                "Finished spans that never reached the collector.",
                [(rate("chat_spans_dropped_total"), "spans")],
            ),
            Panel(
                "Uptime",
                "s",
                "Since the process started.",
                [(f"time() - {metric('process_start_time_seconds')}", "{{instance}}")],
            ),
        ],
    ),
    (
        "Kubernetes (cluster metrics)",
        False,
        [
            Panel(
                "Replicas",
                "short",
                CLUSTER + "wanted and available, by kube-state-metrics.",
                [
                    (
                        'kube_deployment_spec_replicas{namespace=~"$namespace",deployment=~"$release"}',
                        "{{deployment}}: wanted",
                    ),
                    (
                        'kube_deployment_status_replicas_available{namespace=~"$namespace",deployment=~"$release"}',
                        "{{deployment}}: available",
                    ),
                ],
            ),
            Panel(
                "Autoscaler",
                "short",
                CLUSTER + "current, wanted and most replicas, by kube-state-metrics.",
                [
                    (
                        'kube_horizontalpodautoscaler_status_current_replicas{namespace=~"$namespace",horizontalpodautoscaler=~"$release"}',
                        "current",
                    ),
                    (
                        'kube_horizontalpodautoscaler_status_desired_replicas{namespace=~"$namespace",horizontalpodautoscaler=~"$release"}',
                        "wanted",
                    ),
                    (
                        'kube_horizontalpodautoscaler_spec_max_replicas{namespace=~"$namespace",horizontalpodautoscaler=~"$release"}',
                        "most",
                    ),
                ],
            ),
            Panel(
                "Restarts",
                "short",
                CLUSTER + "of the container in the time shown, by kube-state-metrics.",
                [
                    (
                        f"sum by (pod) (increase(kube_pod_container_status_restarts_total{{{CONTAINER}}}[$__range]))",
                        "{{pod}}",
                    )
                ],
            ),
            Panel(
                "Memory, of the limit",
                "percentunit",
                CLUSTER
                + "what the kubelet counts, sockets' buffers too, by cAdvisor and kube-state-metrics. At 100 % the pod is killed.",
                [
                    (
                        f"max by (namespace, pod) (container_memory_working_set_bytes{{{CONTAINER}}})"
                        f' / max by (namespace, pod) (kube_pod_container_resource_limits{{{CONTAINER},resource="memory"}})',
                        "{{pod}}",
                    )
                ],
            ),
            Panel(
                "CPU, throttled",
                "percentunit",
                CLUSTER + "periods in which the container had to wait, by cAdvisor. The chart sets no CPU limit.",
                [
                    (
                        f"sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{{{CONTAINER}}}[$__rate_interval]))"
                        f" / sum by (pod) (rate(container_cpu_cfs_periods_total{{{CONTAINER}}}[$__rate_interval]))",
                        "{{pod}}",
                    )
                ],
            ),
            Panel(
                "Network",
                "Bps",
                CLUSTER + "of the pods, by cAdvisor.",
                [
                    (
                        'sum by (pod) (rate(container_network_receive_bytes_total{namespace=~"$namespace",pod=~"($release)-.+"}[$__rate_interval]))',
                        "{{pod}}: in",
                    ),
                    (
                        'sum by (pod) (rate(container_network_transmit_bytes_total{namespace=~"$namespace",pod=~"($release)-.+"}[$__rate_interval]))',
                        "{{pod}}: out",
                    ),
                ],
            ),
        ],
    ),
]
