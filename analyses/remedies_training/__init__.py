"""Remedies inside MPG while it trains."""
