"""How long does a gradient's quality last? From the cells of the board to a rule and its verdict."""
