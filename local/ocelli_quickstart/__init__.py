"""`make run` and `make demo`: a complete Ocelli on one machine, and its tutorial.

It starts a local cluster, applies the shipped manifests and reports changes.
"""
