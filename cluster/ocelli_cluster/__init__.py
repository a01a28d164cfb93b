"""The Kubernetes API for operator and gateway: client, resources and the list-and-watch cache."""
