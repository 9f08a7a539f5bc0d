"""Searches in a super-network: one training whose slices are all candidates."""
