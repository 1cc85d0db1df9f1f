"""Steering: whether returns on the simulator steer training better than one fixed gradient."""
