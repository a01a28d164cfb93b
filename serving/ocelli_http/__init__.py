"""HTTP servers: what gateway, embedded store and inference server share."""
