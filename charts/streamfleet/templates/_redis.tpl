{{/* Where the store is. */}}

{{/* Whether the chart runs a Redis of its own: "yes", or nothing. */}}
{{- define "streamfleet.bundledRedis" -}}
{{- with .Values.redis -}}
{{- if not (or .url .sentinels .nodes) -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{/* The parts of redis.url, as JSON. Cut by hand: `urlParse` encodes the password anew. Checked here and not by the schema, whose message
would show the password. */}}
{{- define "streamfleet.redisUrl" -}}
{{- $url := .Values.redis.url -}}
{{- if $url -}}
{{- if not (regexMatch `^rediss?://([!-$&-.0-9;-?A-~]*(:[!-$&-.0-?A-~]+)?@)?(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$` $url) -}}
{{- fail "redis.url must be redis://[USER:PASSWORD@]HOST[:PORT] or rediss://…, of which user and password are taken as they are written: visible ASCII characters without @, / and %. Put any other password into a Secret: redis.existingSecret" -}}
{{- end -}}
{{- $login := regexFind `^[^@]*@` (regexReplaceAll `^rediss?://` $url "") | trimSuffix "@" -}}
{{- $host := regexFind `[^@/]*$` $url -}}
{{- $address := ternary $host (printf "%s:6379" $host) (regexMatch `:[0-9]{1,5}$` $host) -}}
{{- dict "address" $address "tls" (hasPrefix "rediss://" $url) "user" (regexFind `^[^:]*` $login) "password" (regexReplaceAll `^[^:]*:?` $login "") | toJson -}}
{{- else -}}
{{- dict "address" "" "tls" false "user" "" "password" "" | toJson -}}
{{- end -}}
{{- end -}}

{{/* `store` of a configuration file. The password comes by the environment. */}}
{{- define "streamfleet.store" -}}
{{- $redis := .Values.redis -}}
{{- $url := include "streamfleet.redisUrl" . | fromJson -}}
{{- $store := dict -}}
{{- if include "streamfleet.bundledRedis" . -}}
{{- $_ := set $store "address" (printf "%s-redis.%s.svc:6379" (include "streamfleet.fullname" .) .Release.Namespace) -}}
{{- else if $redis.sentinels -}}
{{- $_ := set $store "sentinels" $redis.sentinels -}}
{{- $_ := set $store "primary" $redis.primary -}}
{{- else if $redis.nodes -}}
{{- $_ := set $store "nodes" $redis.nodes -}}
{{- else -}}
{{- $_ := set $store "address" $url.address -}}
{{- end -}}
{{- with default $url.user $redis.user -}}
{{- $_ := set $store "user" . -}}
{{- end -}}
{{- if or $redis.tls.enabled $url.tls -}}
{{- $tls := dict -}}
{{- if $redis.tls.existingSecret -}}
{{- $_ := set $tls "authorities" "/etc/streamfleet/redis/ca.crt" -}}
{{- if $redis.tls.clientCertificate -}}
{{- $_ := set $tls "certificate" "/etc/streamfleet/redis/tls.crt" -}}
{{- $_ := set $tls "key" "/etc/streamfleet/redis/tls.key" -}}
{{- end -}}
{{- end -}}
{{- $_ := set $store "tls" $tls -}}
{{- end -}}
{{- dict "redis" $store | toYaml -}}
{{- end -}}

{{/* The Secret with the password and its key, as JSON; an empty name where there is none. */}}
{{- define "streamfleet.redisPasswordSecret" -}}
{{- $url := include "streamfleet.redisUrl" . | fromJson -}}
{{- if .Values.redis.existingSecret -}}
{{- dict "name" .Values.redis.existingSecret "key" .Values.redis.passwordKey | toJson -}}
{{- else if or (include "streamfleet.bundledRedis" .) $url.password -}}
{{- dict "name" (printf "%s-redis" (include "streamfleet.fullname" .)) "key" "password" | toJson -}}
{{- else -}}
{{- dict "name" "" "key" "" | toJson -}}
{{- end -}}
{{- end -}}

{{/* The password that the chart knows: of the bundled Redis, kept over upgrades, or of redis.url. Made once for each rendering. */}}
{{- define "streamfleet.redisPassword" -}}
{{- $url := include "streamfleet.redisUrl" . | fromJson -}}
{{- if $url.password -}}
{{- $url.password -}}
{{- else if include "streamfleet.bundledRedis" . -}}
{{- $made := index .Release "streamfleetRedisPassword" -}}
{{- if not $made -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace (printf "%s-redis" (include "streamfleet.fullname" .)) -}}
{{- $made = dig "data" "password" "" (default dict $there) | b64dec | default (randAlphaNum 40) -}}
{{- $_ := set .Release "streamfleetRedisPassword" $made -}}
{{- end -}}
{{- $made -}}
{{- end -}}
{{- end -}}

{{/* Volume and mount of certificates for Redis. */}}
{{- define "streamfleet.redisVolume" -}}
{{- with .Values.redis.tls.existingSecret -}}
- name: redis
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end -}}
{{- end -}}
{{- define "streamfleet.redisMount" -}}
{{- if .Values.redis.tls.existingSecret -}}
- {name: redis, mountPath: /etc/streamfleet/redis, readOnly: true}
{{- end -}}
{{- end -}}

{{/* The bundled Redis' configuration. Nothing on disk: what the fleet knows is written again by those who know it. Nothing is forgotten before
its time either. */}}
{{- define "streamfleet.redisConf" -}}
port 6379
bind * -::*
protected-mode no
requirepass {{ . }}
save ""
appendonly no
maxmemory-policy noeviction
dir /tmp
{{ end -}}
