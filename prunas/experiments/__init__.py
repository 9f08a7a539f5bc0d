"""What users come for, told in order: search, train, compare."""
