{{/* The service's TOML file and its environment. */}}

{{/* A TOML value. Numbers of values files may be floats inside Helm: whole ones are written as integers.
     JSON strings and arrays of strings are valid TOML. */}}
{{- define "chat-api.tomlValue" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* What goes into the file: the user's sections and what the chart decides. As YAML. */}}
{{- define "chat-api.settings" -}}
{{- /* Of both families: the service falls back to IPv4 where the kernel has no IPv6. */ -}}
{{- $server := dict "address" "[::]:8080" "management_address" "[::]:9090" -}}
{{- $auth := dict "enabled" .Values.auth.enabled -}}
{{- $telemetry := dict -}}
{{- if .Values.auth.enabled -}}
{{- if .Values.auth.existingSecret -}}
{{- $_ := set $auth (ternary "jwks_file" "secret_file" .Values.auth.keySet) (printf "/etc/chat-api/auth/%s" .Values.auth.secretKey) -}}
{{- else if .Values.auth.jwksUrl -}}
{{- $_ := set $auth "jwks_url" .Values.auth.jwksUrl -}}
{{- else -}}
{{- $_ := set $auth "public_key" .Values.auth.publicKey -}}
{{- end -}}
{{- with .Values.auth.issuer -}}{{- $_ := set $auth "issuer" . -}}{{- end -}}
{{- with .Values.auth.audience -}}{{- $_ := set $auth "audience" . -}}{{- end -}}
{{- with .Values.auth.claim -}}{{- $_ := set $auth "claim" . -}}{{- end -}}
{{- with .Values.auth.maxTokenAge -}}{{- $_ := set $auth "max_token_age" . -}}{{- end -}}
{{- if .Values.auth.queryToken -}}{{- $_ := set $auth "query_token" true -}}{{- end -}}
{{- end -}}
{{- $rooms := list -}}
{{- range $room, $letters := .Values.auth.defaultRooms -}}{{- $rooms = append $rooms (printf "%s=%s" $room $letters) -}}{{- end -}}
{{- if $rooms -}}{{- $_ := set $auth "default_rooms" (join ", " $rooms) -}}{{- end -}}
{{- if .Values.otlp.endpoint -}}
{{- $telemetry = dict "endpoint" .Values.otlp.endpoint "protocol" .Values.otlp.protocol -}}
{{- end -}}
{{- $kubernetes := dict "enabled" .Values.kubernetes.enabled "grace_period" (printf "%ss" (include "chat-api.grace" .)) -}}
{{- if .Values.kubernetes.deletionCost -}}{{- $_ := set $kubernetes "deletion_cost" true -}}{{- end -}}
{{- /* The URL comes from the environment: an empty one, of a Secret say, would make each replica a chat of its own. */ -}}
{{- $redis := dict -}}
{{- if ne .Values.redis.mode "none" -}}{{- $redis = dict "required" true -}}{{- end -}}
{{- $own := dict "server" $server "auth" $auth "redis" $redis "telemetry" $telemetry "kubernetes" $kubernetes -}}
{{- toYaml (mustMerge $own (deepCopy .Values.config)) -}}
{{- end -}}

{{/* What of it takes effect only in a new process, as YAML: the service takes the rest over while it runs. */}}
{{- define "chat-api.coldSettings" -}}
{{- $settings := include "chat-api.settings" . | fromYaml -}}
{{- range $path := list "server.origins" "auth.public_key" "log.filter" -}}
{{- $parts := splitList "." $path -}}
{{- $_ := set $settings (first $parts) (omit (get $settings (first $parts) | default dict) (last $parts)) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "chat-api.toml" -}}
# Made by the chart from its values; docs/configuration.md has the keys.
{{- range $section, $keys := include "chat-api.settings" . | fromYaml }}
{{- if $keys }}

[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "chat-api.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{ end -}}

{{/* The password comes before the URL that is made from it: Kubernetes expands in that order. */}}
{{- define "chat-api.redisEnv" -}}
{{- if eq .Values.redis.mode "bundled" -}}
- name: REDIS_PASSWORD
  {{- include "chat-api.redisPasswordSource" . | nindent 2 }}
- name: REDIS_URL
  value: redis://chat:$(REDIS_PASSWORD)@{{ include "chat-api.redisName" . }}:6379/0
{{- else if eq .Values.redis.mode "none" -}}
- name: REDIS_URL
  value: ""
{{- else if .Values.redis.external.existingSecret -}}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.external.existingSecret }}
      key: {{ .Values.redis.external.key }}
{{- else -}}
- name: REDIS_URL
  value: {{ .Values.redis.external.url | quote }}
{{- end -}}
{{- if eq .Values.redis.mode "external" -}}
{{- $external := .Values.redis.external }}
{{- with $external.sentinels }}
- name: CHAT_REDIS__SENTINELS
  value: {{ join "," . | quote }}
{{- end }}
{{- with $external.sentinelAuth.user }}
- name: CHAT_REDIS__SENTINEL_USER
  value: {{ . | quote }}
{{- end }}
{{- with $external.sentinelAuth.existingSecret }}
- name: CHAT_REDIS__SENTINEL_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $external.sentinelAuth.key }}
{{- end }}
{{- if $external.tls.existingSecret }}
{{- range $variable, $key := dict "CA" $external.tls.ca "CERT" $external.tls.certificate "KEY" $external.tls.privateKey }}
{{- if $key }}
- name: CHAT_REDIS__TLS_{{ $variable }}_FILE
  value: /etc/chat-api/redis/{{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* What the service does in Redis: see docs/operations.md. */}}
{{- define "chat-api.redisRights" -}}
-@all +fcall +function|load +subscribe +unsubscribe +ping +unwatch +role +info +time +get +set +del +exists +pexpire +pexpireat +hget +hset +hdel +hmget +hkeys +hlen +hgetall +xadd +xrange +xrevrange +publish
{{- end -}}

{{/* The certificates for Redis, as files. */}}
{{- define "chat-api.redisMounts" -}}
{{- if and (eq .Values.redis.mode "external") .Values.redis.external.tls.existingSecret -}}
- name: redis
  mountPath: /etc/chat-api/redis
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "chat-api.redisVolumes" -}}
{{- $tls := .Values.redis.external.tls -}}
{{- if and (eq .Values.redis.mode "external") $tls.existingSecret -}}
- name: redis
  secret:
    secretName: {{ $tls.existingSecret }}
    # Readable by the pod's group (fsGroup), which is how the service gets at it.
    defaultMode: 0440
    items:
      {{- range compact (list $tls.ca $tls.certificate $tls.privateKey) }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end -}}
{{- end -}}

{{- define "chat-api.redisPasswordSource" -}}
valueFrom:
  secretKeyRef:
    name: {{ default (include "chat-api.redisName" .) .Values.redis.bundled.existingSecret }}
    key: {{ .Values.redis.bundled.key }}
{{- end -}}

{{/* Who this pod is: for traces, and for Events. */}}
{{- define "chat-api.podIdentityEnv" -}}
{{- range $name, $path := dict "NAMESPACE" "metadata.namespace" "POD_NAME" "metadata.name" "POD_UID" "metadata.uid" "NODE_NAME" "spec.nodeName" }}
- name: CHAT_KUBERNETES__{{ $name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $path }}
{{- end }}
{{- end -}}

{{/* What the service's container is told, and what `preflight` has to be told to see the same. */}}
{{- define "chat-api.serverEnv" -}}
env:
  - name: CHAT_CONFIG
    value: /etc/chat-api/config/config.toml
  {{- include "chat-api.podIdentityEnv" . | trim | nindent 2 }}
  {{- include "chat-api.redisEnv" . | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "chat-api.serverMounts" -}}
volumeMounts:
  {{- include "chat-api.configMounts" . | nindent 2 }}
  {{- with include "chat-api.redisMounts" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The configuration file and the key: whole directories, so that changes of the ConfigMap and the Secret arrive. */}}
{{- define "chat-api.configMounts" -}}
- name: config
  mountPath: /etc/chat-api/config
  readOnly: true
{{- if .Values.auth.existingSecret }}
- name: auth
  mountPath: /etc/chat-api/auth
  readOnly: true
{{- end }}
{{- end -}}

{{- define "chat-api.configVolumes" -}}
- name: config
  configMap:
    name: {{ include "chat-api.fullname" . }}
{{- if .Values.auth.existingSecret }}
- name: auth
  secret:
    secretName: {{ .Values.auth.existingSecret }}
    # Readable by the pod's group (fsGroup), which is how the service gets at it.
    defaultMode: 0440
    items:
      - key: {{ .Values.auth.secretKey }}
        path: {{ .Values.auth.secretKey }}
{{- end }}
{{- end -}}
