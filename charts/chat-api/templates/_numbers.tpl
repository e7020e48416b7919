{{/* Durations, sizes and the arithmetic of a drain. */}}

{{/* Milliseconds of a duration such as "40s", "1m 30s" or "500ms". Takes (dict "value" … "key" NAME). */}}
{{- define "chat-api.milliseconds" -}}
{{- $text := .value | toString | nospace -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h|d))+$" $text) -}}
{{- fail (printf "chat-api: %s: %q is not a duration: write it as 500ms, 40s, 1m 30s or 2h" .key $text) -}}
{{- end -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" $text -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $sum = add $sum (mul (trimSuffix $unit . | int64) (get $units $unit | int64)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Bytes of a size ("256MiB") or a Kubernetes quantity ("512Mi"). Takes (dict "value" … "key" NAME). */}}
{{- define "chat-api.bytes" -}}
{{- $text := .value | toString | nospace -}}
{{- if kindIs "float64" .value -}}{{- $text = .value | int64 | toString -}}{{- end -}}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?([kKMGT]i?)?B?$" $text) -}}
{{- fail (printf "chat-api: %s: %q is not a size: write a number with a unit, as 256MiB, 512Mi or 1.5Gi" .key $text) -}}
{{- end -}}
{{- $units := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[kKMGT]i?" $text -}}
{{- mulf (regexFind "[0-9.]+" $text | float64) (get $units $unit | float64) | int64 -}}
{{- end -}}

{{/* Seconds a pod needs from the start of its end: preStop, then drain delay + window + flush, and 10 % on top. */}}
{{- define "chat-api.neededGrace" -}}
{{- $sum := 0 -}}
{{- $drain := .Values.config.drain -}}
{{- range $key := list "delay" "window" "flush" -}}
{{- $sum = add $sum (include "chat-api.milliseconds" (dict "value" (get $drain $key) "key" (printf "config.drain.%s" $key)) | int64) -}}
{{- end -}}
{{- $withMargin := div (add (mul $sum 11) 9999) 10000 -}}
{{- add $withMargin (int .Values.preStopSleepSeconds) -}}
{{- end -}}

{{- define "chat-api.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- include "chat-api.neededGrace" . -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* A rollout goes pod by pod; each waits for the drain of one and the readiness of the next. */}}
{{- define "chat-api.progressDeadline" -}}
{{- if kindIs "invalid" .Values.progressDeadlineSeconds -}}
{{- $most := include "chat-api.mostReplicas" . | int -}}
{{- $each := add (include "chat-api.grace" . | int) (int .Values.minReadySeconds) 30 -}}
{{- max 600 (mul $most $each) -}}
{{- else -}}
{{- int .Values.progressDeadlineSeconds -}}
{{- end -}}
{{- end -}}
