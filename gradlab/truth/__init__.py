"""True policy gradients: oracles that check one another, and the rule that admits a truth."""
