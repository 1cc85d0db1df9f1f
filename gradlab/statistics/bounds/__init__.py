"""Error bounds of the papers, and the constants that they need."""
