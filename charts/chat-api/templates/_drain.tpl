{{/* Arithmetic: how long a pod needs to end, how many pods there are, what follows from both. */}}

{{/* Milliseconds in a duration as the service writes it: "40s", "1m 30s", "500ms". The schema has checked the form. */}}
{{- define "chat-api.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 }}
{{- $total := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 }}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $total = add $total (mul $number (get $units (regexFind "[a-z]+$" .))) }}
{{- end }}
{{- $total }}
{{- end }}

{{- define "chat-api.preStopSeconds" -}}
{{- dig "preStop" "sleep" "seconds" 0 .Values.lifecycle }}
{{- end }}

{{/* Least grace period: the whole drain and 10 %, rounded up, after the preStop sleep. */}}
{{- define "chat-api.neededGrace" -}}
{{- $drain := 0 }}
{{- range list "delay" "window" "flush" }}
{{- $drain = add $drain (include "chat-api.milliseconds" (get $.Values.config.drain .)) }}
{{- end }}
{{- add (div (add (mul $drain 11) 9999) 10000) (include "chat-api.preStopSeconds" .) }}
{{- end }}

{{- define "chat-api.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- include "chat-api.neededGrace" . }}
{{- else }}
{{- .Values.terminationGracePeriodSeconds | int64 }}
{{- end }}
{{- end }}

{{- define "chat-api.minReplicas" -}}
{{- ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled | int64 }}
{{- end }}

{{- define "chat-api.maxReplicas" -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled | int64 }}
{{- end }}

{{/* A rollout goes pod by pod: each may wait for one drain and one minReadySeconds. */}}
{{- define "chat-api.progressDeadline" -}}
{{- if kindIs "invalid" .Values.progressDeadlineSeconds }}
{{- $pod := add (include "chat-api.grace" .) .Values.minReadySeconds }}
{{- max 600 (mul (include "chat-api.maxReplicas" .) $pod) }}
{{- else }}
{{- .Values.progressDeadlineSeconds | int64 }}
{{- end }}
{{- end }}

{{/* Pods that a PodDisruptionBudget's minAvailable keeps, of the fewest there are: Kubernetes rounds a percentage up. */}}
{{- define "chat-api.keptPods" -}}
{{- $min := .Values.podDisruptionBudget.minAvailable | toString }}
{{- if hasSuffix "%" $min }}
{{- div (add (mul (trimSuffix "%" $min | int64) (include "chat-api.minReplicas" .)) 99) 100 }}
{{- else }}
{{- $min | int64 }}
{{- end }}
{{- end }}
