"""The terminal of every command: streams, signals, progress bars, answers and their tables."""
