"""Which horizon is best at which stage of training."""
