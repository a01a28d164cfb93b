// Projects whose resources the charts use: their definitions are YAML, so nothing imports them, and `go mod tidy` would empty
// this file. `go mod download PATH@VERSION` writes a new version's lines into go.sum.
module ocelli.dev/foreign-resources

go 1.26.0

require (
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.3
)
