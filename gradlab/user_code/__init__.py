"""Code of the user's own: loaded from a file, called, and differentiated in any grad mode."""
