"""What a job can ask for: one file a work, registered by name."""
