"""What a measured choice of estimator and horizon is worth."""
