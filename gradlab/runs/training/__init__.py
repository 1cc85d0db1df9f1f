"""The run of a training: returns, outcomes, pairs of runs, and what its probe wrote."""
