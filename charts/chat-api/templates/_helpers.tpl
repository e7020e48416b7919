{{/* Names, labels, and what all pods share. */}}

{{- define "chat-api.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that the longest suffix and what controllers append still fit into 63. */}}
{{- define "chat-api.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "chat-api.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "chat-api.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "chat-api.redisName" -}}{{ include "chat-api.fullname" . }}-redis{{- end -}}
{{- define "chat-api.secretJobName" -}}{{ include "chat-api.fullname" . }}-redis-secret{{- end -}}

{{- define "chat-api.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "chat-api.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: selectors are made of them. Takes (dict "root" $ "component" "server"). */}}
{{- define "chat-api.selectorLabels" -}}
app.kubernetes.io/name: {{ include "chat-api.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of a pod: none with the chart's version, which would restart pods that a new chart changed nothing in.
     Same argument, and "extra" for more; what selectors need always wins. */}}
{{- define "chat-api.podLabels" -}}
{{- $own := include "chat-api.selectorLabels" . | fromYaml -}}
{{- toYaml (merge $own (default dict .extra) .root.Values.commonLabels) -}}
{{- end -}}

{{/* All labels of an object; same argument. */}}
{{- define "chat-api.labels" -}}
{{- $own := include "chat-api.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- $_ = set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ = set $own "app.kubernetes.io/part-of" "chat-api" -}}
{{- if ne .component "redis" -}}
{{- $_ = set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- end -}}
{{- toYaml (merge $own (default dict .extra) .root.Values.commonLabels) -}}
{{- end -}}

{{/* Image reference. Takes (dict "image" … "tag" DEFAULT). */}}
{{- define "chat-api.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Pod fields that all pods of the chart share. */}}
{{- define "chat-api.podBasics" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* On which nodes a pod may be, and how much it matters. Takes (dict "from" VALUES "affinity" …). */}}
{{- define "chat-api.placement" -}}
{{- with .from.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .from.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .from.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The same for the pods that help, which run the same image: where the chat pods may be. What keeps those apart from each other must not keep a helper
     from a node on which one of them is. */}}
{{- define "chat-api.helperPlacement" -}}
{{- include "chat-api.placement" (dict "from" .Values "affinity" (pick .Values.affinity "nodeAffinity")) -}}
{{- end -}}

{{/* "true" when the chart can make itself a token, or needs none. */}}
{{- define "chat-api.testable" -}}
{{- if or (not .Values.auth.enabled) (and .Values.auth.existingSecret (not .Values.auth.keySet)) -}}true{{- end -}}
{{- end -}}

{{/* "true" when there is, or may be, more than one replica. */}}
{{- define "chat-api.manyReplicas" -}}
{{- if or (include "chat-api.scaledByOthers" .) (gt (int .Values.replicaCount) 1) -}}true{{- end -}}
{{- end -}}

{{/* The fewest replicas there will be; empty where somebody else says it. */}}
{{- define "chat-api.fewestReplicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- int .Values.autoscaling.minReplicas -}}
{{- else if not (kindIs "invalid" .Values.replicaCount) -}}
{{- int .Values.replicaCount -}}
{{- end -}}
{{- end -}}

{{/* The most replicas there will be. Who scales it in our stead says nothing of that here: then as many as our own autoscaler may make. */}}
{{- define "chat-api.mostReplicas" -}}
{{- if include "chat-api.scaledByOthers" . -}}{{- int .Values.autoscaling.maxReplicas -}}{{- else -}}{{- int .Values.replicaCount -}}{{- end -}}
{{- end -}}

{{/* "true" when the number of replicas is an autoscaler's, of this chart or of somebody else (`replicaCount: null`). */}}
{{- define "chat-api.scaledByOthers" -}}
{{- if or .Values.autoscaling.enabled (kindIs "invalid" .Values.replicaCount) -}}true{{- end -}}
{{- end -}}

{{/* The number of replicas to render; empty: none. Where an autoscaler has the number, it is the one that the Deployment has: to take the field out of a
     manifest that had it is to ask for one replica. A Deployment that never had it from us keeps that, which leaves the autoscaler alone with it: an
     annotation says so. Without a cluster to ask (helm template) and at an install there is no Deployment, and no number. */}}
{{- define "chat-api.replicas" -}}
{{- if include "chat-api.scaledByOthers" . -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (include "chat-api.fullname" .) -}}
{{- $replicas := dig "spec" "replicas" nil $live -}}
{{- if not (or (kindIs "invalid" $replicas) (dig "metadata" "annotations" "chat-api/replicas" "" $live)) -}}
{{- int $replicas -}}
{{- end -}}
{{- else -}}
{{- int .Values.replicaCount -}}
{{- end -}}
{{- end -}}
