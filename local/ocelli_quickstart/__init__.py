"""`make run` and `make demo`: Ocelli whole on one machine, and its tutorial.

The composition of everything else: it starts a local cluster, applies the shipped manifests to it and shows what happens.
"""
