"""A small shop under real instrumentation, traffic for it, and a report of what arrived (extra `demo`)."""
