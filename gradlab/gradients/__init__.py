"""Estimators as values, the sweeps that evaluate them and the oracles that judge them."""
