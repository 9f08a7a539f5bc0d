"""Pruning methods as proposers, one file each."""
