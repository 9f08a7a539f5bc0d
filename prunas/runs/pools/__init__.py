"""Where jobs are executed: one file an executor."""
