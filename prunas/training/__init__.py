"""Training: one loop for every network, protocol and method."""
