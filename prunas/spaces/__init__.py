"""Search spaces: bounds and points, files, loading, a user's network."""
