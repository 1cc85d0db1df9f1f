"""Which part of an estimator makes its error: measured by substituting the truth for parts."""
