"""`measure` and its parts: the problem, moments, realised gains, bounds, attribution."""
