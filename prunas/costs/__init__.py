"""What a point costs and what a budget is."""
