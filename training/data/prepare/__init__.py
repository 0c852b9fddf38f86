"""Public archives to the one layout, one module an archive."""
