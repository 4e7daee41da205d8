{{/* Names are fixed: a cluster has one operator, and a second release is refused instead of fighting the first. */}}
{{- define "copilot-operator.name" -}}copilot-operator{{- end }}

{{- define "copilot-operator.selector" -}}
app.kubernetes.io/name: copilot-operator
{{- end }}

{{- define "copilot-operator.labels" -}}
{{ include "copilot-operator.selector" . }}
{{ include "copilot-operator.release" . }}
{{- end }}

{{/* Labels of all objects, whatever they are. */}}
{{- define "copilot-operator.release" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "copilot-operator.image" -}}
{{- $version := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{- with .Values.image.digest }}{{ $version = printf "@%s" . }}{{ end -}}
{{ .Values.image.repository }}{{ $version }}
{{- end }}

{{/* Of every container of the chart. */}}
{{- define "copilot-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Of every pod of the chart. */}}
{{- define "copilot-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10002
runAsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}
