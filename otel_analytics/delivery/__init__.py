"""Events to the collector: what waits, what a request and its answer mean, who sends."""
