"""The trainer: reads the sources of one revision, learns it, measures it and stores the artifact.

It needs the object store and what the sources are read from, and no rights in the cluster.
"""
