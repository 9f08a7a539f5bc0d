"""Making a smaller network: layers constructed at new widths, branches removed, weights inherited."""
