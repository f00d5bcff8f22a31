"""The queue on disk: events survive crashes and outages."""
