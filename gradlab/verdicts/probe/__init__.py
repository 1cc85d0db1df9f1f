"""What the run of a probe says: its first screen, and one finding for each number."""
