"""A loss is asked by calling it: laws of critics, actors and policies, and exact conformance.

look_at(loss, batch, declared)      laws as findings, for loops
audit(loss, batch, critic=…)        the same as a run
conform(loss, "bandit")             the expected gradient against the enumerated one
"""
