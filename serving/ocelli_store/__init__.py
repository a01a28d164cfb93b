"""The embedded store: a folder behind HTTP in which each namespace can only access its own part."""
