"""Making a smaller network: the factory's own layers born at new widths, branches removed, weights inherited."""
