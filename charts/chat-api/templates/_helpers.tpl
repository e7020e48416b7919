{{/* Names, labels and images. Arithmetic is in _drain.tpl, the configuration file in _config.tpl. */}}

{{- define "chat-api.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 46 | trimSuffix "-" }}
{{- end }}

{{/* 46 characters: a StatefulSet named NAME-redis needs its name and a hash in a label of 63. */}}
{{- define "chat-api.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else if contains (include "chat-api.name" .) .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "chat-api.name" .) | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selectors use: never changes during a release's life. Call with (dict "root" $ "component" "server"). */}}
{{- define "chat-api.selectorLabels" -}}
app.kubernetes.io/name: {{ include "chat-api.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "chat-api.labels" -}}
{{ include "chat-api.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Call with an image's values and the tag to fall back on: (list .Values.image .Chart.AppVersion). */}}
{{- define "chat-api.imageName" -}}
{{- $image := index . 0 -}}
{{- $tag := default (index . 1) $image.tag -}}
{{ $image.repository }}:{{ $tag }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "chat-api.image" -}}
{{- include "chat-api.imageName" (list .Values.image .Chart.AppVersion) }}
{{- end }}

{{- define "chat-api.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "chat-api.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "chat-api.redisName" -}}
{{ include "chat-api.fullname" . }}-redis
{{- end }}

{{/* The Secret with the bundled Redis' password: the user's, or the one the hook makes. */}}
{{- define "chat-api.redisSecretName" -}}
{{- default (include "chat-api.redisName" .) .Values.redis.bundled.existingSecret }}
{{- end }}

{{/* "true" where the hook makes that Secret. */}}
{{- define "chat-api.makesRedisSecret" -}}
{{- if and (eq .Values.redis.mode "bundled") (not .Values.redis.bundled.existingSecret) }}true{{ end }}
{{- end }}

{{- define "chat-api.redisPasswordEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "chat-api.redisSecretName" .root }}
      key: {{ .root.Values.redis.bundled.existingSecretKey }}
{{- end }}

{{/* REDIS_URL by mode; a password reaches it only through a Secret. */}}
{{- define "chat-api.redisEnv" -}}
{{- if eq .Values.redis.mode "bundled" }}
{{ include "chat-api.redisPasswordEnv" (dict "root" . "name" "REDIS_PASSWORD") }}
- name: REDIS_URL # after REDIS_PASSWORD, which it expands
  value: redis://:$(REDIS_PASSWORD)@{{ include "chat-api.redisName" . }}:6379/0
{{- else if .Values.redis.external.existingSecret }}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.external.existingSecret }}
      key: {{ .Values.redis.external.existingSecretKey }}
{{- else if eq .Values.redis.mode "external" }}
- name: REDIS_URL
  value: {{ .Values.redis.external.url | quote }}
{{- end }}
{{- end }}

{{/* Where the configuration and the secret of auth are mounted: whole folders, since a subPath is never updated. */}}
{{- define "chat-api.configMounts" -}}
- name: config
  mountPath: /etc/chat-api/config
  readOnly: true
{{- if .Values.auth.existingSecret }}
- name: auth
  mountPath: /etc/chat-api/auth
  readOnly: true
{{- end }}
{{- end }}

{{- define "chat-api.configVolumes" -}}
- name: config
  configMap:
    name: {{ include "chat-api.fullname" . }}
{{- if .Values.auth.existingSecret }}
- name: auth
  secret:
    secretName: {{ .Values.auth.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.auth.secretKey }}
        path: secret
{{- end }}
{{- end }}
