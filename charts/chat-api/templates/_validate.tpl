{{/* Values that each are well-formed and together make no sense. All of them are listed at once. */}}

{{- define "chat-api.validate" -}}
{{- $faults := list }}
{{- range list "Redis" "Replicas" "Budget" "Grace" "Auth" "Names" }}
{{- $faults = concat $faults (include (printf "chat-api.validate%s" .) $ | trim | splitList "\n" | compact) }}
{{- end }}
{{- if $faults }}
{{- printf "\n\nThese values do not fit together:\n  - %s\n" (join "\n  - " $faults) | fail }}
{{- end }}
{{- end }}

{{- define "chat-api.validateRedis" }}
{{- $mode := .Values.redis.mode }}
{{- $external := .Values.redis.external }}
{{- if and (ne $mode "external") (or $external.url $external.existingSecret) }}
redis.external is set but redis.mode is {{ $mode }}: set redis.mode=external, or remove redis.external
{{- end }}
{{- if and (ne $mode "bundled") .Values.redis.bundled.existingSecret }}
redis.bundled.existingSecret is set but redis.mode is {{ $mode }}: for your own Redis put its whole URL into redis.external.existingSecret
{{- end }}
{{- if eq $mode "external" }}
{{- if not (or $external.url $external.existingSecret) }}
redis.mode is external but no Redis is named: set redis.external.existingSecret (a Secret with the URL) or redis.external.url
{{- else if and $external.url $external.existingSecret }}
redis.external.url and redis.external.existingSecret are both set: keep one
{{- end }}
{{- if regexMatch "^[a-z+]+://[^/@]*:[^/@]+@" $external.url }}
redis.external.url has a password in it: put the whole URL into a Secret and name that in redis.external.existingSecret
{{- end }}
{{- end }}
{{- end }}

{{- define "chat-api.validateReplicas" }}
{{- $auto := .Values.autoscaling }}
{{- if eq .Values.redis.mode "none" }}
{{- if $auto.enabled }}
autoscaling.enabled needs Redis: pods without it are separate chats; set redis.mode to external or bundled, or autoscaling.enabled=false
{{- else if gt (int64 .Values.replicaCount) 1 }}
replicaCount is {{ .Values.replicaCount }} but redis.mode is none: pods without Redis are separate chats; set replicaCount=1, or redis.mode to external or bundled
{{- end }}
{{- end }}
{{- if $auto.enabled }}
{{- if gt (int64 $auto.minReplicas) (int64 $auto.maxReplicas) }}
autoscaling.minReplicas ({{ $auto.minReplicas }}) is above autoscaling.maxReplicas ({{ $auto.maxReplicas }}): swap or change them
{{- end }}
{{- if not (or $auto.targetConnections $auto.targetCPUUtilizationPercentage) }}
autoscaling has nothing to scale by: set autoscaling.targetConnections or autoscaling.targetCPUUtilizationPercentage
{{- end }}
{{- end }}
{{- $none := list "0" "0%" }}
{{- if and (has (toString .Values.strategy.maxSurge) $none) (has (toString .Values.strategy.maxUnavailable) $none) }}
strategy.maxSurge and strategy.maxUnavailable are both 0: a rollout could not begin; set strategy.maxSurge=1
{{- end }}
{{- $deadline := .Values.progressDeadlineSeconds }}
{{- if and (not (kindIs "invalid" $deadline)) (le (int64 $deadline) (int64 .Values.minReadySeconds)) }}
progressDeadlineSeconds ({{ $deadline }}) must be above minReadySeconds ({{ .Values.minReadySeconds }}): remove it to have it computed
{{- end }}
{{- end }}

{{- define "chat-api.validateBudget" }}
{{- $budget := .Values.podDisruptionBudget }}
{{- $hasMin := not (kindIs "invalid" $budget.minAvailable) }}
{{- $hasMax := not (kindIs "invalid" $budget.maxUnavailable) }}
{{- if and $budget.enabled $hasMin $hasMax }}
podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable are both set: Kubernetes takes one; keep maxUnavailable
{{- else if eq (include "chat-api.hasBudget" .) "true" }}
{{- if and $hasMax (has (toString $budget.maxUnavailable) (list "0" "0%")) }}
podDisruptionBudget.maxUnavailable={{ $budget.maxUnavailable }} allows no eviction: no node could be drained; set it to 1 or more
{{- end }}
{{- if and $hasMin (ge (include "chat-api.keptPods" . | int64) (include "chat-api.minReplicas" . | int64)) }}
podDisruptionBudget.minAvailable={{ $budget.minAvailable }} keeps all of {{ include "chat-api.minReplicas" . }} pods: no node could be drained; lower it, or use maxUnavailable=1
{{- end }}
{{- end }}
{{- end }}

{{- define "chat-api.validateGrace" }}
{{- $needed := include "chat-api.neededGrace" . | int64 }}
{{- if lt (include "chat-api.grace" . | int64) $needed }}
{{- with .Values.config.drain }}
terminationGracePeriodSeconds={{ $.Values.terminationGracePeriodSeconds }} is too small: config.drain takes {{ .delay }} + {{ .window }} + {{ .flush }}, and 10 % to spare{{ if ne (include "chat-api.preStopSeconds" $) "0" }}, after lifecycle.preStop.sleep{{ end }}: at least {{ $needed }}; remove it to have it computed, or shorten config.drain.window
{{- end }}
{{- end }}
{{- end }}

{{- define "chat-api.validateAuth" }}
{{- $auth := .Values.auth }}
{{- if and $auth.enabled (not (or $auth.existingSecret $auth.publicKey)) }}
auth.enabled needs a key to verify tokens with: set auth.existingSecret (shared secret) or auth.publicKey (PEM)
{{- end }}
{{- if and $auth.existingSecret $auth.publicKey }}
auth.existingSecret and auth.publicKey are both set: keep the one your tokens are signed for
{{- end }}
{{- if and (not $auth.enabled) (or $auth.existingSecret $auth.publicKey) }}
a key is set in auth but auth.enabled is false, so that everyone could connect: set auth.enabled=true, or remove the key
{{- end }}
{{- if not (or $auth.enabled $auth.allowAnonymous) }}
{{- if .Values.ingress.enabled }}
ingress.enabled exposes the chat to everyone who reaches it: set auth.enabled=true with a key, or auth.allowAnonymous=true if that is meant
{{- end }}
{{- if ne .Values.service.type "ClusterIP" }}
service.type={{ .Values.service.type }} exposes the chat to everyone who reaches it: set auth.enabled=true with a key, or auth.allowAnonymous=true if that is meant
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.enabled without ingress.hosts would take every host: name at least one, as ingress.hosts[0].host
{{- end }}
{{- end }}

{{- define "chat-api.validateNames" }}
{{- $ours := dict "CHAT_CONFIG" "config" "REDIS_URL" "redis" "REDIS_PASSWORD" "redis.bundled.existingSecret" "AUTH_ENABLED" "auth.enabled" "PORT" "listen.port" "MANAGEMENT_PORT" "listen.managementPort" "OTEL_RESOURCE_ATTRIBUTES" "config.telemetry" }}
{{- range .Values.extraEnv }}
{{- $prefix := regexFind "^CHAT_(SERVER|AUTH|LIMITS|HISTORY|REDIS|READINESS|DRAIN|LOG|TELEMETRY|KUBERNETES)__" .name }}
{{- if $prefix }}
extraEnv sets {{ .name }}, which would go past this chart's checks: set it in config, auth, redis, listen or kubernetes instead
{{- else if hasKey $ours .name }}
extraEnv sets {{ .name }}, which the chart sets itself: use the value {{ get $ours .name }} instead
{{- end }}
{{- end }}
{{- range $from := list "commonLabels" "podLabels" }}
{{- range $label, $_ := get $.Values $from }}
{{- if regexMatch "^(app\\.kubernetes\\.io/(name|instance|component|version|managed-by)|helm\\.sh/chart)$" $label }}
{{ $from }} sets {{ $label }}, which the chart sets itself: remove it, or use nameOverride
{{- end }}
{{- end }}
{{- end }}
{{- if eq (int64 .Values.listen.port) (int64 .Values.listen.managementPort) }}
listen.port and listen.managementPort are the same: probes and metrics need a port of their own
{{- end }}
{{- if and .Values.kubernetes.enabled (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
kubernetes.enabled would give the namespace's default ServiceAccount a Role: set serviceAccount.create=true, or serviceAccount.name
{{- end }}
{{- end }}
