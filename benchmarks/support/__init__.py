"""Which networks prunas surveys, what varies in them, and whether the narrowed networks are right."""
