"""Spans to events: pure, without clock, thread, I/O or SDK import."""
