"""What every study shares: rows that grow, paired trials, intervals, criteria, verdicts."""
