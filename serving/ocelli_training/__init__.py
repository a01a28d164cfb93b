"""The trainer: reads the sources of one revision, trains and evaluates it, and stores the artifact.

It needs access to the object store and to the sources, and no rights in the cluster.
"""
