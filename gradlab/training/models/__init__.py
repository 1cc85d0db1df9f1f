"""Models that are learned while a policy trains."""
