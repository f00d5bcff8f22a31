"""Adapters to the OpenTelemetry SDK: they map and hand on, nothing else."""
