{{- define "ebseg.name" -}}
{{- if contains "ebseg" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-ebseg" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* The block of the device that counts. */ -}}
{{- define "ebseg.device" -}}
{{- get .Values .Values.device | toJson }}
{{- end }}

{{- define "ebseg.image" -}}
{{- $kind := ternary "cuda" "cpu" (eq .Values.device "gpu") }}
{{- .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion $kind) }}
{{- end }}

{{- define "ebseg.selector" -}}
app.kubernetes.io/name: ebseg
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: service
{{- end }}

{{- define "ebseg.redisSelector" -}}
app.kubernetes.io/name: ebseg
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end }}

{{- /* Of everything that the release makes and that is no part of a selector. */ -}}
{{- define "ebseg.labels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ebseg.account" -}}
{{- .Values.serviceAccount.name | default (include "ebseg.name" .) }}
{{- end }}

{{- /* Settings of the service: the chart's, then the device's, then the user's. */ -}}
{{- define "ebseg.settings" -}}
{{- $own := dict "host" "0.0.0.0" "port" 8000 "drain_timeout_s" 30 "log_format" "json" "log_level" "info" }}
{{- $model := .Values.model }}
{{- if ne $model.source "packaged" }}
{{- $_ := set $own "model" $model.names }}
{{- $_ := set $own "registry_poll_s" $model.pollSeconds }}
{{- end }}
{{- if eq $model.source "volume" }}{{ $_ := set $own "registry" "/registry" }}{{ end }}
{{- if eq $model.source "pull" }}{{ $_ := set $own "registry" "/fetched/registry" }}{{ end }}
{{- if eq $model.source "bucket" }}
{{- $_ := set $own "registry" $model.bucket.url }}
{{- $_ := set $own "cache_dir" "/fetched" }}
{{- end }}
{{- mergeOverwrite $own (deepCopy (get .Values .Values.device).settings) .Values.settings | toJson }}
{{- end }}

{{- /* Bytes of a size as the service takes it: a number, or 20 MiB; of a number from YAML, too, which is a float. */ -}}
{{- define "ebseg.bytes" -}}
{{- if kindIs "string" . }}
{{- $unit := dict "" 1 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mul (regexFind "^[0-9]+" .) (get $unit (regexFind "[A-Za-z]*$" . | trimSuffix "B")) }}
{{- else }}
{{- int64 . }}
{{- end }}
{{- end }}

{{- define "ebseg.redisPassword" -}}
{{- if or (eq .Values.redis.kind "inside") (and (eq .Values.redis.kind "url") .Values.redis.password) }}yes{{ end }}
{{- end }}

{{- define "ebseg.redisUrl" -}}
{{- if eq .Values.redis.kind "inside" }}redis://:$(REDIS_PASSWORD)@{{ include "ebseg.name" . }}-redis:6379/0{{ else }}{{ .Values.redis.url }}{{ end }}
{{- end }}

{{- define "ebseg.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{- /* What values.schema.json cannot say: values that need each other. */ -}}
{{- define "ebseg.check" -}}
{{- $model := .Values.model }}
{{- if and (ne $model.source "packaged") (not $model.names) }}
{{- fail (printf "model.names is empty: model.source %s has to know which models serve, such as ebseg-base" $model.source) }}
{{- end }}
{{- if and (eq $model.source "packaged") $model.names }}
{{- fail (printf "model.names is %q: the packaged model is the only one without a registry; set model.source to pull, bucket or volume" $model.names) }}
{{- end }}
{{- if and (eq $model.source "bucket") (not $model.bucket.url) }}
{{- fail "model.bucket.url is empty: model.source bucket needs s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER" }}
{{- end }}
{{- if and (eq .Values.redis.kind "url") (not .Values.redis.url) }}
{{- fail "redis.url is empty: redis.kind url needs redis://HOST:PORT/DB or rediss://HOST:PORT/DB" }}
{{- end }}
{{- if and (include "ebseg.redisPassword" .) (not .Values.secret) }}
{{- fail "secret is empty: the password of Redis is its key redis-password; docs/operations.md has the command that makes it" }}
{{- end }}
{{- if and .Values.canary.enabled (not .Values.canary.tag) }}
{{- fail "canary.tag is empty: a canary is another image beside the first" }}
{{- end }}
{{- if and (ne .Values.ingress.kind "none") (not .Values.ingress.host) }}
{{- fail (printf "ingress.host is empty: ingress.kind %s needs the name that clients call" .Values.ingress.kind) }}
{{- end }}
{{- if and (eq .Values.ingress.kind "gateway") (not .Values.ingress.gateway.name) }}
{{- fail "ingress.gateway.name is empty: an HTTPRoute needs the Gateway that it belongs to" }}
{{- end }}
{{- if and (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas %d is above autoscaling.maxReplicas %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- end }}
{{- range $name := list "host" "port" "redis_url" "registry" "model" "cache_dir" "api_keys" "admin_keys" }}
{{- if hasKey $.Values.settings $name }}
{{- fail (printf "settings.%s: the chart sets this one itself, from image, model, redis and secret" $name) }}
{{- end }}
{{- end }}
{{- end }}
