{{/* Alerts on the service's own state: group → alerts, as YAML; written as in _alerts-clients.tpl. `when` false: about what this release does not use. */}}
{{- define "chat-api.alertsOnOperations" -}}
{{- $own := include "chat-api.series" . -}}
{{- $all := printf "{%s}" $own -}}
{{- $rule := .Values.metrics.prometheusRule -}}
{{- $limit := $rule.thresholds -}}
{{- $by := "by (namespace, job)" -}}
{{- $name := include "chat-api.fullname" . -}}
{{- $redis := ne .Values.redis.mode "none" -}}
chat-pods:
  - alert: ChatTargetDown
    expr: |-
      up{{ $all }} == 0 or absent(up{{ $all }})
    for: 5m
    severity: critical
    summary: Prometheus cannot read a pod's metrics, or finds no pod.
    description: "[[ if $labels.instance ]][[ $labels.instance ]] does not answer.[[ else ]]There is no pod to ask.[[ end ]]"
  - alert: ChatTooFewReady
    expr: |-
      sum by (namespace) (chat_ready{{ $all }})
      < (
        {{- if $rule.clusterMetrics }}
        max by (namespace) (kube_deployment_spec_replicas{namespace="{{ .Release.Namespace }}",deployment="{{ $name }}"})
        or
        {{- end }}
        count by (namespace) (chat_draining{{ $all }} == 0)
      )
    for: 10m
    severity: warning
    summary: Fewer pods are ready than there should be.
    description: "Pods that are ready: [[ $value ]]."
  # A rollout does not cause it: the instance is the pod's name, so a new pod is another series.
  - alert: ChatPodRestarted
    expr: |-
      max by (namespace, job, instance) (changes(process_start_time_seconds{{ $all }}[15m])) > 0
    severity: warning
    summary: A pod's process ended and was started again.
    description: "[[ $labels.instance ]] was started again within 15 minutes: [[ $value ]] times."
  - alert: ChatFileDescriptorsNearLimit
    expr: |-
      process_open_fds{{ $all }} / process_max_fds{{ $all }} > {{ $limit.filesRatio }}
    for: 10m
    severity: warning
    summary: A pod is near its limit of open files, and each socket is one.
    description: "[[ $labels.instance ]] has [[ $value | humanizePercentage ]] of the files open that it may."
  - alert: ChatMemoryNearLimit
    when: {{ $rule.clusterMetrics }}
    expr: |-
      max by (namespace, pod) (container_memory_working_set_bytes{namespace="{{ .Release.Namespace }}",container="chat-api",pod=~"{{ $name }}-.+"})
        / max by (namespace, pod) (kube_pod_container_resource_limits{namespace="{{ .Release.Namespace }}",container="chat-api",pod=~"{{ $name }}-.+",resource="memory"})
      > {{ $limit.memoryRatio }}
    for: 5m
    severity: warning
    summary: A pod is about to be killed for its memory.
    description: "[[ $labels.pod ]] uses [[ $value | humanizePercentage ]] of its memory limit."
  - alert: ChatHPAMaxed
    when: {{ and $rule.clusterMetrics .Values.autoscaling.enabled }}
    expr: |-
      max by (namespace, horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_current_replicas{namespace="{{ .Release.Namespace }}",horizontalpodautoscaler="{{ $name }}"})
      >= max by (namespace, horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas{namespace="{{ .Release.Namespace }}",horizontalpodautoscaler="{{ $name }}"})
    for: 15m
    severity: warning
    summary: The autoscaler cannot add pods any more.
    description: "Pods that run: [[ $value ]], as many as `autoscaling.maxReplicas` allows."
  - alert: ChatConfigReloadFailed
    expr: |-
      sum {{ $by }} (increase(chat_config_reloads_total{outcome="refused",{{ $own }}}[30m])) > 0
    severity: warning
    summary: A changed configuration was refused; the old one stays in force.
    description: "Refused within 30 minutes: [[ $value | humanize ]] times. The log says what is wrong with it."
  - alert: ChatAuthFailuresSpike
    expr: |-
      sum {{ $by }} (rate(chat_auth_failures_total{{ $all }}[5m]))
      > {{ $limit.authFailureFactor }} * sum {{ $by }} (rate(chat_auth_failures_total{{ $all }}[1h]))
      and sum {{ $by }} (rate(chat_auth_failures_total{{ $all }}[5m])) > {{ $limit.authFailuresPerSecond }}
    for: 5m
    severity: warning
    summary: Far more tokens are refused than usual.
    description: "[[ $value | humanize ]] tokens a second are refused, more than {{ $limit.authFailureFactor }} times as many as in the last hour."
  - alert: ChatIssuerKeysNotFetched
    when: {{ and .Values.auth.enabled (not (empty .Values.auth.jwksUrl)) }}
    expr: |-
      count {{ $by }} (
        increase(chat_jwks_fetches_total{outcome="failed",{{ $own }}}[15m]) > 0
        unless ignoring (outcome) increase(chat_jwks_fetches_total{outcome="ok",{{ $own }}}[15m]) > 0
      ) > 0
    for: 5m
    severity: warning
    summary: The issuer's keys cannot be fetched; new sockets are refused when the last ones are too old.
    description: "Pods that have not had the issuer's keys for 15 minutes: [[ $value ]]."
chat-drain:
  - alert: ChatDrainForced
    expr: |-
      sum {{ $by }} (max_over_time(chat_drain_forced_total{{ $all }}[15m])) > 0
    severity: warning
    summary: A pod that went away had to cut connections.
    description: "Connections cut at the end of a drain: [[ $value ]]."
  # Kubernetes kills the pod at the end of its grace period: without a minute more than the drain needs there would be nobody left to ask.
  - alert: ChatDrainTooSlow
    when: {{ or (hasKey $rule.for "ChatDrainTooSlow") (ge (include "chat-api.grace" . | int) (add 60 (include "chat-api.neededGrace" .) | int)) }}
    expr: |-
      chat_draining{{ $all }} == 1
    for: {{ include "chat-api.neededGrace" . }}s
    severity: warning
    summary: A pod drains for longer than it may.
    description: "[[ $labels.instance ]] has been draining for more than the {{ include "chat-api.neededGrace" . }} s of `config.drain`."
chat-redis:
  - alert: ChatRedisUnavailable
    when: {{ $redis }}
    expr: |-
      count {{ $by }} (chat_redis_up{{ $all }} == 0) > 0
    for: 1m
    severity: critical
    summary: Redis does not answer; nothing can be sent.
    description: "Pods that do not reach Redis: [[ $value ]]."
  - alert: ChatRedisLatencyHigh
    when: {{ $redis }}
    expr: |-
      histogram_quantile(0.99, sum by (namespace, job, command, le) (rate(chat_redis_command_duration_seconds_bucket{{ $all }}[5m])))
      > {{ $limit.redisSeconds }}
    for: 10m
    severity: warning
    summary: Redis answers slowly.
    description: 1 % of the `[[ $labels.command ]]` calls take longer than [[ $value | humanizeDuration ]].
  - alert: ChatRedisReconnects
    when: {{ $redis }}
    expr: |-
      max {{ $by }} (increase(chat_redis_reconnects_total{{ $all }}[15m])) > {{ $limit.redisReconnects }}
    severity: warning
    summary: The subscription at Redis breaks again and again.
    description: "A pod had to make it anew within 15 minutes: [[ $value | humanize ]] times."
  - alert: ChatCanaryOld
    when: {{ $redis }}
    expr: |-
      max {{ $by }} (max_over_time(chat_redis_canary_age_seconds{{ $all }}[1m])) > {{ $limit.canarySeconds }}
    for: 2m
    severity: warning
    summary: What a pod publishes comes back to it late, or not at all.
    description: The canary of a pod was [[ $value | humanizeDuration ]] old; it flies every 2 s.
  - alert: ChatMessagesLost
    when: {{ $redis }}
    expr: |-
      sum {{ $by }} (increase(chat_rollbacks_total{{ $all }}[15m])) + sum {{ $by }} (increase(chat_resets_total{{ $all }}[15m])) > 0
    severity: warning
    summary: Redis has lost messages that it had acknowledged.
    description: "Rooms, counted on each pod, whose log had lost what was already delivered: [[ $value | humanize ]]."
  - alert: ChatDurabilityBelowDeclared
    when: {{ $redis }}
    expr: |-
      count by (namespace, job, declared) (chat_redis_durability{declared!="none",found="none",{{ $own }}} == 1) > 0
    for: 5m
    severity: warning
    summary: Redis keeps less than `redis.durability` declares.
    description: "`[[ $labels.declared ]]` is declared, but a restart of Redis, or a full one, would lose acknowledged messages."
  - alert: ChatForeignEntries
    when: {{ $redis }}
    expr: |-
      sum {{ $by }} (increase(chat_invalid_entries_total{{ $all }}[15m])) > 0
    for: 15m
    severity: warning
    summary: In Redis are entries that this release cannot read.
    description: "Entries that could not be decoded within 15 minutes: [[ $value | humanize ]]."
{{- end -}}
