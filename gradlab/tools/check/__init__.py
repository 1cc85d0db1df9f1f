"""What a file of one's own gives gradlab, and what it lacks: `gradlab check`."""
