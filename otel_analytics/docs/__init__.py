"""The manual, a page a topic: what ``otel-analytics docs`` shows."""
