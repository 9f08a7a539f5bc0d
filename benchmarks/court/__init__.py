"""Published found shapes, tried against uniform and tapered ones of the same cost."""
