"""A run in progress, live: in the terminal and on a local page."""
