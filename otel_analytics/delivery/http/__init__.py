"""A request to the collector and its answer: the wire (pure), what was negotiated (pure), the transport."""
