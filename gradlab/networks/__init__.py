"""Policies and critics as modules of linear layers and elementwise maps."""
