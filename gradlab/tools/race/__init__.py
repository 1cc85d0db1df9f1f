"""Returns side by side: gradients or losses followed for K updates, and a step before and after."""
