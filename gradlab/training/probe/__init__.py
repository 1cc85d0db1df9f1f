"""The probe of a training run: all seeds at once."""
