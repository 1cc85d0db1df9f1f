"""How long does a gradient's quality last? From the board's cells to a rule and its verdict."""
