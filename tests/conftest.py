"""Fixtures of every test: `local_cluster` and `namespace` come from the local cluster's plugin."""

pytest_plugins = ["ocelli_local.pytest_plugin"]
