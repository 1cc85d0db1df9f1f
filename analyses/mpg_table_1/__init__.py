"""MPG's Table I at the scale that fits."""
