{{/* What values.schema.json cannot say: comparisons of two values. */}}
{{- define "streamfleet.refuse" -}}
{{- with .Values.redis -}}
{{- if and (include "streamfleet.bundledRedis" $) (or .existingSecret .user .tls.enabled .tls.existingSecret) -}}
{{- fail "redis.existingSecret, redis.user and redis.tls are of a Redis that is there: say where with redis.url, redis.sentinels or redis.nodes" -}}
{{- end -}}
{{- if and .tls.existingSecret (not .tls.enabled) (not (hasPrefix "rediss://" .url)) -}}
{{- fail "redis.tls.existingSecret has certificates, and nothing says TLS: set redis.tls.enabled, or write redis.url with rediss://" -}}
{{- end -}}
{{- if and .serviceUsers (not (include "streamfleet.redisPasswordSecret" $ | fromJson).name) -}}
{{- fail "redis.serviceUsers needs a password, in redis.url or redis.existingSecret: a Redis that asks nobody who he is keeps nobody apart" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitors.enabled .Values.networkPolicy.enabled (not .Values.monitoring.namespace) -}}
{{- fail "monitoring.namespace must say where Prometheus is: NetworkPolicies keep it from reading metrics otherwise" -}}
{{- end -}}
{{- with .Values.router -}}
{{- if gt (int .drain.noticeSeconds) (int .drain.graceSeconds) -}}
{{- fail "router.drain.noticeSeconds must be no more than router.drain.graceSeconds, of which it is a part" -}}
{{- end -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail "router.autoscaling.minReplicas must be no more than router.autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .tls.certManager.enabled .config.tls -}}
{{- fail "router.config.tls and router.tls.certManager both say which certificate the routers have" -}}
{{- end -}}
{{- end -}}
{{- end -}}
