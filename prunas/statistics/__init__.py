"""What the finished runs say: rows, summaries, curves and tables. Needs neither torch nor matplotlib."""
