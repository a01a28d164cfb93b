"""The object store: one URL, one layout, and the rules for zips of examples."""
