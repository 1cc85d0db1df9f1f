"""A user's code: loaded from a file, called, and differentiated in any grad mode."""
