"""Networks from points: layers born at the new widths, then selections, removed branches and masks."""
