"""Model-based algorithms on swing-ups, and whose gradient they follow."""
