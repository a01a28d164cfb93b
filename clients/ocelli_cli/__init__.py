"""The command line of Ocelli: `ocelli`, and `kubectl ocelli`."""
