"""First-order algorithms on contact tasks, beside SAC."""
