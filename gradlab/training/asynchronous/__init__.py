"""One run in several processes, as in MPG section IV-C: actors and learners, by Ray.

This process is the optimiser: it owns the networks, gives work out and applies gradients. It keeps
whatever it gives out, so that a process that dies takes nothing with it.
"""
