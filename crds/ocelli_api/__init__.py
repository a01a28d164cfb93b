"""The contract between Ocelli's programs: the Classifier resource and the documents that they exchange.

It contains plain data and pure functions, and the logging setup that all programs share. It must not know Kubernetes clients,
HTTP, the object store or tensors.
"""
