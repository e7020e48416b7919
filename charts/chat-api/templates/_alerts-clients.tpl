{{/* Alerts on what clients meet: group → alerts, as YAML. `[[ … ]]` in a text becomes Prometheus' own braces. A series with no other matcher is
     written name{{ $all }}, one with others name{other="…",{{ $own }}}. */}}
{{- define "chat-api.alertsOnClients" -}}
{{- $own := include "chat-api.series" . -}}
{{- $all := printf "{%s}" $own -}}
{{- $limit := .Values.metrics.prometheusRule.thresholds -}}
{{- $by := "by (namespace, job)" -}}
{{- $failed := include "chat-api.failedUpgrades" . -}}
chat-slo:
  {{- range $burn := list (dict "name" "Fast" "factor" 14.4 "long" "1h" "short" "5m" "for" "2m" "severity" "critical" "left" "2 days")
                          (dict "name" "Slow" "factor" 6 "long" "6h" "short" "30m" "for" "15m" "severity" "warning" "left" "5 days") }}
  - alert: ChatConnectErrorBudgetBurn{{ .name }}
    expr: |-
      (
        {{- include "chat-api.connectErrors" (dict "root" $ "window" .long) | nindent 8 }}
        > {{ .factor }} * (1 - {{ $limit.connectObjective }})
      )
      and (
        {{- include "chat-api.connectErrors" (dict "root" $ "window" .short) | nindent 8 }}
        > {{ .factor }} * (1 - {{ $limit.connectObjective }})
      )
      and sum {{ $by }} (increase({{ $failed }}[{{ .long }}])) >= {{ $limit.connectFailures }}
    for: {{ .for }}
    severity: {{ .severity }}
    summary: Clients cannot connect, and it is our fault.
    description: >-
      [[ $value | humanizePercentage ]] of the attempts to connect failed over {{ .long }}, at least {{ .factor }} times what the objective leaves: at this pace
      the budget of 28 days is gone in {{ .left }}.
  - alert: ChatDeliveryErrorBudgetBurn{{ .name }}
    expr: |-
      (
        {{- include "chat-api.deliveryErrors" (dict "root" $ "window" .long) | nindent 8 }}
        > {{ .factor }} * (1 - {{ $limit.deliveryObjective }})
      )
      and (
        {{- include "chat-api.deliveryErrors" (dict "root" $ "window" .short) | nindent 8 }}
        > {{ .factor }} * (1 - {{ $limit.deliveryObjective }})
      )
      and sum {{ $by }} (increase(chat_delivery_latency_seconds_count{{ $all }}[{{ .long }}]))
        - sum {{ $by }} (increase(chat_delivery_latency_seconds_bucket{ {{- include "chat-api.inTime" $ }},{{ $own }}}[{{ .long }}]))
        >= {{ $limit.deliveriesLate }}
    for: {{ .for }}
    severity: {{ .severity }}
    summary: Messages arrive late.
    description: >-
      [[ $value | humanizePercentage ]] of the deliveries took longer than {{ $limit.deliverySeconds }} s over {{ .long }}, at least {{ .factor }} times what the
      objective leaves: at this pace the budget of 28 days is gone in {{ .left }}.
  {{- end }}
  - alert: ChatPublishLatencyHigh
    expr: |-
      histogram_quantile(0.99, sum by (namespace, job, le) (rate(chat_publish_duration_seconds_bucket{{ $all }}[5m])))
      > {{ $limit.publishSeconds }}
    for: 10m
    severity: warning
    summary: Senders wait long for their acknowledgement.
    description: 1 % of the publishes take longer than [[ $value | humanizeDuration ]] until the log has them.
  # No metric tells refused publishes from refused subscriptions: of the latter alone, without a publish, it is not. At most all are refused.
  - alert: ChatPublishesRefused
    expr: |-
      clamp_max(
        sum {{ $by }} (rate(chat_refusals_total{code="unavailable",{{ $own }}}[5m]))
          / (sum {{ $by }} (rate(chat_publish_duration_seconds_count{{ $all }}[5m])) > 0),
        1
      ) > {{ $limit.publishRefusedRatio }}
    for: 2m
    severity: critical
    summary: Messages are refused, as the log does not take them.
    description: "Up to [[ $value | humanizePercentage ]] of the publishes are answered `unavailable`."
chat-connections:
  - alert: ChatConnectionChurnHigh
    expr: |-
      (sum {{ $by }} (rate(chat_connections_opened_total{{ $all }}[5m])) + sum {{ $by }} (rate(chat_connections_closed_total{{ $all }}[5m])))
        / sum {{ $by }} (chat_connections{{ $all }})
      > {{ $limit.churnRatio }}
      and sum {{ $by }} (chat_connections{{ $all }}) >= {{ $limit.churnConnections }}
    for: 10m
    severity: warning
    summary: Connections do not last.
    description: Each second [[ $value | humanizePercentage ]] of the connections open or close.
  - alert: ChatReconnectStorm
    expr: |-
      sum {{ $by }} (rate(chat_connections_opened_total{{ $all }}[5m]))
      > {{ $limit.stormFactor }} * sum {{ $by }} (rate(chat_connections_opened_total{{ $all }}[1h]))
      and sum {{ $by }} (rate(chat_connections_opened_total{{ $all }}[5m])) > {{ $limit.stormPerSecond }}
      unless max {{ $by }} (max_over_time(chat_draining{{ $all }}[15m])) == 1
    for: 1m
    severity: warning
    summary: A crowd of clients connects at once, and nothing drains.
    description: "[[ $value | humanize ]] sockets open a second, more than {{ $limit.stormFactor }} times as many as in the last hour."
  - alert: ChatMassDisconnect
    expr: |-
      sum {{ $by }} (increase(chat_connections_closed_total{code=~"1006|1011|4408",{{ $own }}}[2m]))
      > {{ $limit.disconnectRatio }} * sum {{ $by }} (chat_connections{{ $all }} offset 2m)
      and sum {{ $by }} (increase(chat_connections_closed_total{code=~"1006|1011|4408",{{ $own }}}[2m])) >= {{ $limit.disconnects }}
    severity: critical
    summary: Many connections break at once.
    description: "Connections that ended without a goodbye within 2 minutes: [[ $value | humanize ]]."
  - alert: ChatSlowConsumersDisconnected
    expr: |-
      sum {{ $by }} (increase(chat_slow_close_bytes_count{{ $all }}[15m])) > {{ $limit.slowRatio }} * sum {{ $by }} (chat_connections{{ $all }})
      and sum {{ $by }} (increase(chat_slow_close_bytes_count{{ $all }}[15m])) >= {{ $limit.slowCloses }}
    for: 5m
    severity: warning
    summary: Clients are closed as they read too slowly.
    description: "Clients closed within 15 minutes with more waiting for them than `limits.outbox_bytes` or `limits.outbox_age` allow: [[ $value | humanize ]]."
  - alert: ChatNearConnectionLimit
    expr: |-
      chat_connections{{ $all }} / chat_connections_limit{{ $all }} > {{ $limit.connectionsRatio }}
    for: 10m
    severity: warning
    summary: A pod is nearly full.
    description: "[[ $labels.instance ]] holds [[ $value | humanizePercentage ]] of the connections that it may."
  - alert: ChatConnectionsImbalanced
    expr: |-
      max {{ $by }} (chat_connections{{ $all }} unless chat_draining{{ $all }} == 1)
        / avg {{ $by }} (chat_connections{{ $all }} unless chat_draining{{ $all }} == 1)
      > {{ $limit.imbalanceFactor }}
      and avg {{ $by }} (chat_connections{{ $all }} unless chat_draining{{ $all }} == 1) > {{ $limit.imbalanceConnections }}
    for: 30m
    severity: warning
    summary: One pod holds far more connections than the others.
    description: The fullest pod holds [[ $value | humanize ]] times as many connections as the average.
  - alert: ChatResumeFailureRatioHigh
    expr: |-
      sum {{ $by }} (increase(chat_resumes_total{outcome!="recovered",{{ $own }}}[15m]))
        / sum {{ $by }} (increase(chat_resumes_total{{ $all }}[15m]))
      > {{ $limit.resumeFailureRatio }}
      and sum {{ $by }} (increase(chat_resumes_total{{ $all }}[15m])) >= {{ $limit.resumes }}
    for: 10m
    severity: warning
    summary: Clients come back and cannot continue where they were.
    description: "[[ $value | humanizePercentage ]] of the returning clients have to start over or roll back."
{{- end -}}
