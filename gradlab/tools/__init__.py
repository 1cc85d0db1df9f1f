"""Tools, a folder each. Nothing imports them but by name, so that a folder can go."""
