"""The embedded store: one folder behind HTTP, in which each namespace sees its own part and no other."""
