{{/* What all pods of the chart have in common. */}}

{{/* Pod Security "restricted". The user is that of the images. */}}
{{- define "streamfleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "streamfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Further tolerations, and those that let a pod leave a dead node sooner than after Kubernetes' five minutes. */}}
{{- define "streamfleet.tolerations" -}}
- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
{{- with . }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where a component's pods go: (list $ "router"). Apart from each other where there is room, but rather together than not at all. Nodes
that have no zone count for nothing in a constraint over zones, so nodes are not a second constraint beside it. */}}
{{- define "streamfleet.overZones" -}}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "streamfleet.selector" . | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end -}}

{{- define "streamfleet.overNodes" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "streamfleet.selector" . | nindent 12 }}
        matchLabelKeys: [pod-template-hash]
{{- end -}}

{{/* Scheduling of a component: (list $ "router"). */}}
{{- define "streamfleet.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
topologySpreadConstraints:
  {{- include "streamfleet.overZones" . | nindent 2 }}
tolerations:
  {{- include "streamfleet.tolerations" $values.tolerations | nindent 2 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- $own := include "streamfleet.overNodes" . | fromYaml }}
  {{- mustMergeOverwrite $own (deepCopy $values.affinity) | toYaml | nindent 2 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Variables that operator and routers read their secrets from. */}}
{{- define "streamfleet.secretEnv" -}}
- name: STREAMFLEET_SECRET
  valueFrom: {secretKeyRef: {name: {{ include "streamfleet.fleetSecret" . }}, key: secret}}
{{- with include "streamfleet.redisPasswordSecret" . | fromJson }}
{{- if .name }}
- name: STREAMFLEET_STORE_REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- end -}}

{{/* What makes pods start anew: what they read at their start alone, and secrets that the chart makes. */}}
{{- define "streamfleet.checksums" -}}
{{- $root := index . 0 -}}
checksum/config: {{ include (print $root.Template.BasePath "/" (index . 1) "/config.yaml") $root | sha256sum }}
checksum/redis: {{ include "streamfleet.redisPassword" $root | sha256sum }}
{{- end -}}

{{- define "streamfleet.logging" -}}
log: {filter: {{ .Values.log.filter | quote }}, format: {{ .Values.log.format }}}
{{- with .Values.otlp }}
{{- if .endpoint }}
otlp: {endpoint: {{ .endpoint | quote }}, sample: {{ .sample }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The rule that lets Prometheus read metrics; kubelets ask their probes past any. */}}
{{- define "streamfleet.metricsRule" -}}
{{- with .Values.monitoring.namespace -}}
- ports: [{port: admin, protocol: TCP}]
  from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ . }}}
{{- end -}}
{{- end -}}
