"""The contract between Ocelli's parts: the Classifier resource and what operator, gateway, trainer and servers tell each other.

Everything here is plain data and pure functions, except the set-up of log lines that all parts share. It knows no Kubernetes
client, no HTTP, no store and no tensor.
"""
