{{- define "ocelli.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "ocelli" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ocelli" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Prefix of the names of cluster-wide objects: releases with the same name can be in two namespaces. */}}
{{- define "ocelli.clusterName" -}}
{{ .Release.Namespace }}-{{ include "ocelli.fullname" . }}
{{- end -}}

{{/* Labels that select a component's Pods. Arguments: root, component. */}}
{{- define "ocelli.selector" -}}
app.kubernetes.io/name: ocelli-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "ocelli.labels" -}}
{{ include "ocelli.selector" . }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: ocelli
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* An image, pinned if its digest is set. Arguments: root, component, gpu. */}}
{{- define "ocelli.image" -}}
{{- $tag := .root.Values.images.tag | default .root.Chart.AppVersion -}}
{{- $digest := .component -}}
{{- if .gpu -}}
{{- $tag = .root.Values.gpu.imageTag | default (printf "%s-cuda" $tag) -}}
{{- $digest = printf "%sGPU" .component -}}
{{- end -}}
{{ .root.Values.images.prefix }}{{ .component }}:{{ $tag }}
{{- with get .root.Values.images.digests $digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* Whether nodes are watched. This needs a ClusterRole, so it is off by default if `namespaces` is set. */}}
{{- define "ocelli.watchNodes" -}}
{{ kindIs "bool" .Values.gpu.watchNodes | ternary .Values.gpu.watchNodes (not .Values.namespaces) }}
{{- end -}}

{{/* A setting as a quoted string, by way of JSON: otherwise a large integer becomes 1e+06. */}}
{{- define "ocelli.setting" -}}
{{ kindIs "string" . | ternary . (toJson .) | quote }}
{{- end -}}

{{- define "ocelli.storeURL" -}}
{{- if eq .Values.store.mode "embedded" -}}
http://{{ include "ocelli.fullname" . }}-store.{{ .Release.Namespace }}.svc:8082
{{- else -}}
{{ .Values.store.bucket.url | required "store.bucket.url is empty; name the bucket: s3://BUCKET/PREFIX" }}
{{- end -}}
{{- end -}}

{{- define "ocelli.credentialsSecret" -}}
{{ .Values.credentials.existingSecret | default (printf "%s-credentials" (include "ocelli.fullname" .)) }}
{{- end -}}

{{/* The namespaces of the Roles: none if the rights are cluster-wide. */}}
{{- define "ocelli.namespaces" -}}
{{- if .Values.namespaces -}}
{{ append .Values.namespaces .Release.Namespace | uniq | toJson }}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{- define "ocelli.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
{{- end -}}

{{/* Pod fields that are the same for every component. Arguments: root, component, values, podSecurity. */}}
{{- define "ocelli.pod" -}}
serviceAccountName: {{ include "ocelli.fullname" .root }}-{{ .component }}
enableServiceLinks: false
securityContext:
  {{- toYaml (merge (.podSecurity | default dict) .root.Values.podSecurityContext) | nindent 2 }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Replicas on different nodes if possible, so that one failed node does not stop all of them. Arguments: root, component. */}}
{{- define "ocelli.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ocelli.selector" . | nindent 8 }}
{{- end -}}

{{/* Variables, a mount and a volume that operator and gateway need for access to the store. */}}
{{- define "ocelli.storeEnvironment" -}}
- { name: OCELLI_STORE_URL, value: {{ include "ocelli.storeURL" . | quote }} }
{{- if eq .Values.store.mode "embedded" }}
- { name: OCELLI_STORE_TOKEN_FILE, value: /var/run/secrets/ocelli-store/token }
{{- end }}
{{- end -}}

{{- define "ocelli.storeMount" -}}
{{- if eq .Values.store.mode "embedded" }}
- { name: store-token, mountPath: /var/run/secrets/ocelli-store, readOnly: true }
{{- end }}
{{- end -}}

{{- define "ocelli.storeVolume" -}}
{{- if eq .Values.store.mode "embedded" }}
- name: store-token
  projected:
    sources:
      - serviceAccountToken: { audience: ocelli-store, expirationSeconds: 3600, path: token }
{{- end }}
{{- end -}}

{{/* Peers in NetworkPolicies of the Classifiers' namespaces: clients of inference servers, and readers of their metrics. A peer
without a namespace is in the release's namespace, as in the policies of the chart. */}}
{{- define "ocelli.inferencePeers" -}}
- namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {{ .Release.Namespace }} } }
  podSelector:
    matchLabels:
      {{- include "ocelli.selector" (dict "root" . "component" "gateway") | nindent 6 }}
{{- end -}}

{{- define "ocelli.metricsPeers" -}}
{{- $peers := list }}
{{- $own := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace)) }}
{{- range .Values.networkPolicy.metricsFrom }}
{{- $peers = append $peers (ternary . (merge (deepCopy .) $own) (or (hasKey . "namespaceSelector") (hasKey . "ipBlock"))) }}
{{- end }}
{{- toYaml $peers }}
{{- end -}}

{{- define "ocelli.storeSecret" -}}
{{- if and (eq .Values.store.mode "bucket") .Values.store.bucket.secretName }}
envFrom:
  - secretRef: { name: {{ .Values.store.bucket.secretName }} }
{{- end }}
{{- end -}}

{{/* Public path prefixes: the API, with both its prefixes. Probes of load balancers (/livez) go to the Service. */}}
{{- define "ocelli.publicPaths" -}}
{{- range $prefix := list "" "/visual-recognition/api" }}
{{- range list "/v3" "/ocelli" "/console" "/identity/token" "/openapi.json" }}
- {{ $prefix }}{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Not empty if `helm test` has an API key, or had one. */}}
{{- define "ocelli.isTested" -}}
{{- if or .Values.test.apiKeySecret.name (not .Values.credentials.existingSecret) -}}
true
{{- end -}}
{{- end -}}
