"""Rows on what clients meet: service level, connections, latency, messages, limits. (title, open, panels)"""

from .grafana import Panel
from .queries import LATE, OURS, RECOVERED, UNAVAILABLE, YES, heat, increase, metric, quantiles, rate, stat

CONNECT_ERRORS = (
    f"{increase('chat_upgrade_failures_total', OURS)}"
    f" / ({increase('chat_connections_opened_total')} + {increase('chat_upgrade_failures_total', OURS)})"
)
ON_TIME = (
    f"{increase('chat_delivery_latency_seconds_bucket', LATE)} / {increase('chat_delivery_latency_seconds_count')}"
)
GOOD_SHARE = (("red", None), ("yellow", 0.99), ("green", 0.999))
BUDGET = (("red", None), ("yellow", 0.0), ("green", 0.25))

ROWS = [
    (
        "Service level",
        True,
        [
            stat(
                "Attempts to connect that succeed",
                "percentunit",
                "Of all but those that the client got wrong (token, origin, its own limits), in the time shown.",
                f"1 - {CONNECT_ERRORS}",
                steps=GOOD_SHARE,
            ),
            stat(
                "Budget left for connecting",
                "percentunit",
                "What is left of the failures that the objective allows, if the time shown were its period.",
                f"1 - ({CONNECT_ERRORS}) / (1 - $objective)",
                steps=BUDGET,
            ),
            stat(
                "Deliveries on time",
                "percentunit",
                "Batches handed to the sockets of a pod within `$late` s of the message's receipt, on whichever pod, in the time shown.",
                ON_TIME,
                steps=GOOD_SHARE,
            ),
            stat(
                "Budget left for delivery",
                "percentunit",
                "What is left of the late deliveries that the objective allows, if the time shown were its period.",
                f"1 - (1 - {ON_TIME}) / (1 - $objective)",
                steps=BUDGET,
            ),
            stat(
                "Publishes that are taken",
                "percentunit",
                "Of those that were not refused for a fault of the client's, in the time shown; at least so many, as rooms that cannot be joined count too.",
                f"1 - clamp_max({increase('chat_refusals_total', UNAVAILABLE)} / ({increase('chat_publish_duration_seconds_count')} > 0), 1)",
                steps=GOOD_SHARE,
            ),
            stat(
                "Returning clients that continue",
                "percentunit",
                "Sockets that came with a position from which the log could continue exactly, in the time shown.",
                f"{increase('chat_resumes_total', RECOVERED)} / {increase('chat_resumes_total')}",
                steps=GOOD_SHARE,
            ),
            Panel(
                "How late messages are",
                "s",
                "From a message's receipt to handing it to the sockets, over all pods. Between pods it is as true as their clocks.",
                quantiles("chat_delivery_latency_seconds"),
            ),
            Panel(
                "How long senders wait",
                "s",
                "From a message's receipt to the log having it, or not.",
                quantiles("chat_publish_duration_seconds"),
            ),
            Panel(
                "Upgrades refused, by our fault",
                "cps",
                "draining: the load balancer still sends to a pod that goes; full and busy: too few pods; unavailable: Redis or the issuer.",
                [(rate("chat_upgrade_failures_total", OURS, "reason"), "{{reason}}")],
                stacked=True,
            ),
        ],
    ),
    (
        "Connections",
        True,
        [
            stat("Open connections", "short", "Sockets on all pods.", f"sum({metric('chat_connections')})"),
            stat(
                "Pods that are ready",
                "short",
                "The reasons against the others are at their `/readyz`.",
                f"sum({metric('chat_ready')})",
                steps=YES,
            ),
            stat(
                "Fullest pod",
                "percentunit",
                "Connections of the most that a pod takes (`limits.connections`).",
                f"max({metric('chat_connections')} / {metric('chat_connections_limit')})",
                steps=(("green", None), ("yellow", 0.7), ("red", 0.8)),
            ),
            stat(
                "Fullest pod, of the average",
                "none",
                "How many times the average the fullest pod holds. After a scale-out old pods stay full.",
                f"max({metric('chat_connections')}) / avg({metric('chat_connections')})",
            ),
            stat("Rooms", "short", "Rooms with members, counted on each pod.", f"sum({metric('chat_rooms')})"),
            stat(
                "Places in rooms",
                "short",
                "A plain socket has two with the lobby.",
                f"sum({metric('chat_subscriptions')})",
            ),
            Panel(
                "Connections by pod",
                "short",
                "Open sockets.",
                [(metric("chat_connections"), "{{instance}}")],
                width=12,
                stacked=True,
            ),
            Panel(
                "Opened and closed",
                "cps",
                "Sockets a second.",
                [(rate("chat_connections_opened_total"), "opened"), (rate("chat_connections_closed_total"), "closed")],
                width=12,
            ),
            Panel(
                "Why connections end",
                "cps",
                "By close code. 1000, 1001: the client left; 1006: no close frame; 1012: drain, or the log lost the room; 1013: too slow; 4408: silent.",
                [(rate("chat_connections_closed_total", by="code"), "{{code}}")],
                stacked=True,
            ),
            Panel(
                "Upgrades refused",
                "cps",
                "By reason; the codes of docs/protocol.md.",
                [(rate("chat_upgrade_failures_total", by="reason"), "{{reason}}")],
                stacked=True,
            ),
            Panel(
                "Tokens refused",
                "cps",
                "At upgrades, requests and refreshes, by reason.",
                [(rate("chat_auth_failures_total", by="reason"), "{{reason}}")],
                stacked=True,
            ),
            heat(
                "How long connections lasted",
                "s",
                "Those that ended, by age. A line at 60 s is a proxy's timeout.",
                "chat_connection_duration_seconds",
                width=12,
            ),
            Panel(
                "Returning clients",
                "cps",
                "recovered: continues exactly; rollback and reset: the log no longer had the position.",
                [(rate("chat_resumes_total", by="outcome"), "{{outcome}}")],
                width=12,
                stacked=True,
            ),
        ],
    ),
    (
        "Latency",
        True,
        [
            heat(
                "From receipt to the sockets",
                "s",
                "Batches, by age of their oldest message as they were handed to the sockets of one pod.",
                "chat_delivery_latency_seconds",
                width=12,
            ),
            heat(
                "From receipt to the log",
                "s",
                "Publishes, by how long their acknowledgement took.",
                "chat_publish_duration_seconds",
                width=12,
            ),
        ],
    ),
    (
        "Messages",
        True,
        [
            Panel(
                "Messages in and out",
                "cps",
                "In: from clients, by socket or request. Out: to sockets, one for each receiver.",
                [(rate("chat_messages_received_total"), "in"), (rate("chat_messages_delivered_total"), "out")],
            ),
            Panel(
                "Fan-out",
                "none",
                "Messages out for each one in.",
                [(f"{rate('chat_messages_delivered_total')} / {rate('chat_messages_received_total')}", "receivers")],
            ),
            Panel(
                "Bytes",
                "Bps",
                "Of messages from clients, and of frames to sockets.",
                [(rate("chat_received_bytes_total"), "in"), (rate("chat_delivered_bytes_total"), "out")],
            ),
            Panel(
                "Rooms and places in them",
                "short",
                "On all pods.",
                [(f"sum({metric('chat_rooms')})", "rooms"), (f"sum({metric('chat_subscriptions')})", "places")],
            ),
            Panel(
                "One write to a room",
                "s",
                "How long writing one batch to all members of a room on a pod takes.",
                quantiles("chat_deliver_duration_seconds"),
            ),
            Panel(
                "Frames refused",
                "cps",
                "Answered with an error, by its code.",
                [(rate("chat_refusals_total", by="code"), "{{code}}")],
                stacked=True,
            ),
        ],
    ),
    (
        "Slow clients and limits",
        True,
        [
            Panel(
                "Closed for reading too slowly",
                "cps",
                "By pod. All pods: the network; one: that pod; few clients: theirs.",
                [(rate("chat_slow_close_bytes_count", by="instance"), "{{instance}}")],
                stacked=True,
            ),
            heat(
                "What waited for them",
                "bytes",
                "Bytes in the outbox as the socket was closed: near `limits.outbox_bytes`, or less by `limits.outbox_age`.",
                "chat_slow_close_bytes",
            ),
            Panel(
                "Limits that were met",
                "cps",
                "What was refused for a limit, by the limit.",
                [(rate("chat_limited_total", by="limit"), "{{limit}}")],
                stacked=True,
            ),
        ],
    ),
]
