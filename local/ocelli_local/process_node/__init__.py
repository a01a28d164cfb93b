"""A Kubernetes node that runs each container as a local process. It isolates nothing: it is for development.

Nothing is mounted and no image is pulled. A container's `command` runs on this machine, with the Pod's environment, a
loopback address of its own, and folders in place of volumes; paths below a mount are translated (`environment.py`).
What a Pod asks for and a process can't have is refused with an Event (`refusals.py`), never left out silently.
"""
