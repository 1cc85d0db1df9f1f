"""What logs say, in plain sentences."""
