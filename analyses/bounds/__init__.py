"""Bounds on the bias of gradients, and the horizons that follow from them."""
