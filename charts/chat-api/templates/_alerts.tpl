{{/* What the alerts are made with. The alerts themselves: _alerts-clients.tpl and _alerts-operations.tpl; what becomes of them: prometheusrule.yaml. */}}

{{/* Label matchers of this release's series: what its ServiceMonitor or PodMonitor gives them. */}}
{{- define "chat-api.series" -}}
{{- default (printf `namespace="%s",job="%s-management"` .Release.Namespace (include "chat-api.fullname" .)) .Values.metrics.selector -}}
{{- end -}}

{{/* Refused upgrades that are our fault: the reasons with a 5xx status. Tokens, origins and the limits of one user or address are the client's. */}}
{{- define "chat-api.failedUpgrades" -}}
chat_upgrade_failures_total{reason=~"draining|full|busy|unavailable",{{ include "chat-api.series" . }}}
{{- end -}}

{{/* Share of the attempts to connect that failed by our fault. Takes (dict "root" $ "window" RANGE), as the next one. */}}
{{- define "chat-api.connectErrors" -}}
{{- $failed := printf "sum by (namespace, job) (rate(%s[%s]))" (include "chat-api.failedUpgrades" .root) .window -}}
{{- $opened := printf "sum by (namespace, job) (rate(chat_connections_opened_total{%s}[%s]))" (include "chat-api.series" .root) .window -}}
{{ $failed }} / ({{ $opened }} + {{ $failed }})
{{- end -}}

{{/* Matcher of the bucket of deliveries that are not late. Prometheus 3 writes a whole number as 1.0, earlier ones as the service does, as 1. */}}
{{- define "chat-api.inTime" -}}
{{- $seconds := .Values.metrics.prometheusRule.thresholds.deliverySeconds | toString -}}
{{- if contains "." $seconds -}}
le="{{ $seconds }}"
{{- else -}}
le=~"{{ $seconds }}([.]0)?"
{{- end -}}
{{- end -}}

{{/* Share of the deliveries that were late. */}}
{{- define "chat-api.deliveryErrors" -}}
{{- $series := include "chat-api.series" .root -}}
1 - sum by (namespace, job) (rate(chat_delivery_latency_seconds_bucket{ {{- include "chat-api.inTime" .root }},{{ $series }}}[{{ .window }}]))
  / sum by (namespace, job) (rate(chat_delivery_latency_seconds_count{{ printf "{%s}" $series }}[{{ .window }}]))
{{- end -}}
