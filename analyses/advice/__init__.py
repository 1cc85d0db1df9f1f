"""Advice followed: what a measurement recommends, taken as many updates as it is said to hold."""
