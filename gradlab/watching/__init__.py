"""A run in progress, on the terminal and as a local page: read beside its writer, never changed."""
