"""One network, looked at."""
