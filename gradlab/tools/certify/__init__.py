"""Are a simulator's derivatives those of its own step? A certificate with a verdict in words.

    J  the system's derivatives: autograd of `step`, and `linearize`
    D  certified central differences of `step`, with an error of their own

A Jacobian is wrong where J and D differ beyond the error of D and the step is smooth there; at a
kink or a jump the step is rough, and no Jacobian is wrong.
"""
