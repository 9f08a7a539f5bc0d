"""What a run is, where it lives, and who executes it. Torch-free: a job only names its work."""
