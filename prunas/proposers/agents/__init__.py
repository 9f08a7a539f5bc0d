"""Methods that learn to propose: an agent that decides layer after layer, and a policy that drops blocks."""
