{{/* The service's configuration file. */}}

{{/* `config` as TOML, with what other values decide added to it. A JSON scalar or list of strings is TOML as well;
     toToml would write every whole number as a float. Empty strings and nulls are left to the service's defaults. */}}
{{- define "chat-api.toml" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config.server "address" (printf "%s:%v" .Values.listen.host (int64 .Values.listen.port)) }}
{{- $_ := set $config.server "management_address" (printf "%s:%v" .Values.listen.host (int64 .Values.listen.managementPort)) }}
{{- $auth := dict "enabled" .Values.auth.enabled "issuer" .Values.auth.issuer "audience" .Values.auth.audience "public_key" .Values.auth.publicKey }}
{{- if .Values.auth.existingSecret }}
{{- $_ := set $auth "secret_file" "/etc/chat-api/auth/secret" }}
{{- end }}
{{- $_ := set $config "auth" $auth }}
{{- $_ := set $config "kubernetes" (dict "enabled" .Values.kubernetes.enabled) }}
{{- range $section, $keys := $config }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (or (kindIs "invalid" $value) (and (kindIs "string" $value) (empty $value))) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
