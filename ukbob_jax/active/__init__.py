"""Active learning: what to annotate next, so that a network learns most from a person's time."""
