"""A Kubernetes node that runs each container as a local process. It isolates nothing: it is for development.

Nothing is mounted and no image is pulled. A container's `command` runs on this machine, with the Pod's environment, a
loopback address of its own, and folders instead of volumes; paths below a mount are translated (`environment.py`).
Settings of a Pod that do not apply to processes are refused with an Event (`refusals.py`), not ignored.
"""
