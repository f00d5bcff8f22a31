"""OTLP in, of any language, and Kafka: the same views and engagements by the same mapping (extra: bridge)."""
