"""What tracing and surgery both read: the tracer, residual branches, selecting layers."""
