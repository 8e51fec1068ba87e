{{/* Names, labels and images. */}}

{{- define "streamfleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: what is added to it stays within the 63 of a label. */}}
{{- define "streamfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects a component's pods: (list $ "router"). Never changes, or no upgrade is possible. */}}
{{- define "streamfleet.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "streamfleet.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object: (list $ "router"), and more of its own where there is a third. */}}
{{- define "streamfleet.labels" -}}
{{- $root := index . 0 -}}
{{ include "streamfleet.selector" . }}
app.kubernetes.io/part-of: streamfleet
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $own := dict }}
{{- if gt (len .) 2 }}
{{- $own = index . 2 }}
{{- end }}
{{- with merge (dict) $own $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a component's pods: (list $ "router" $extra). Without the version: an upgrade that changes nothing else restarts nothing. */}}
{{- define "streamfleet.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "streamfleet.selector" (list $root (index . 1)) }}
app.kubernetes.io/part-of: streamfleet
{{- with merge (dict) (index . 2) $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image by its component: (list $ "router"). */}}
{{- define "streamfleet.image" -}}
{{- $root := index . 0 -}}
{{- $what := index . 1 -}}
{{- $images := $root.Values.images -}}
{{- $repository := ternary "streamfleet" (printf "streamfleet-%s" $what) (eq $what "streamfleet") -}}
{{- default (printf "%s/%s:%s" $images.registry $repository (default $root.Chart.AppVersion $images.tag)) (index $images $what) -}}
{{- end -}}

{{/* Namespaces whose StreamServices are run, as a JSON list; empty when it is all of them. */}}
{{- define "streamfleet.namespaces" -}}
{{- if .Values.scope.clusterWide -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.scope.namespaces | uniq | sortAlpha | toJson -}}
{{- end -}}
{{- end -}}

{{/* Where the fleet's secrets are. */}}
{{- define "streamfleet.fleetSecret" -}}
{{- default (printf "%s-fleet" (include "streamfleet.fullname" .)) .Values.fleet.existingSecret -}}
{{- end -}}

{{/* Where the routers' certificate is; empty for plain HTTP. */}}
{{- define "streamfleet.tlsSecret" -}}
{{- if .Values.router.tls.secretName -}}
{{- .Values.router.tls.secretName -}}
{{- else if .Values.router.tls.certManager.enabled -}}
{{- printf "%s-tls" (include "streamfleet.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "streamfleet.httpPort" -}}
{{- if .Values.router.service.http.port -}}
{{- .Values.router.service.http.port -}}
{{- else -}}
{{- ternary 443 80 (not (empty (include "streamfleet.tlsSecret" .))) -}}
{{- end -}}
{{- end -}}

{{/* The Service whose load balancer clients send their media to. */}}
{{- define "streamfleet.mediaService" -}}
{{- printf "%s-%s" (include "streamfleet.fullname" .) (ternary "router" "media" (eq .Values.router.service.layout "Shared")) -}}
{{- end -}}

{{/* The address that stands for all of this machine's, of the first family or, in dual stack, of both. */}}
{{- define "streamfleet.any" -}}
{{- ternary "[::]" "0.0.0.0" (has "IPv6" .Values.ipFamilies) -}}
{{- end -}}
