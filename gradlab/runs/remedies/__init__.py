"""The run of a test of remedies: one value per model, trial and quantity."""
