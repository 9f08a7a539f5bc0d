"""What a search leaves: rows, and the record they stand in."""
