"""What commands share towards the terminal: streams, signals, progress bars, answers."""
