"""What one update of every seed did, as it is recorded and watched."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.training.parts.weights import Floats


@dataclass(frozen=True)
class Update:
    """What one update did, [E] each; critics' numbers are 0 where there are none.

    Attributes:
        critic_loss: the row's, mostly half the mean squared error, summed over the seed's critics,
            and like `value` and `critic_norm` the mean over the steps of their fit.
        value: mean critic value on the batch, in scaled rewards.
        critic_norm, policy_norm: gradient norms before clipping.
        policy_loss: −Σ w_n mean X_n, with the entropy term where there is one.
        weights: [terms], over seeds with weights of their own the mean; horizon: the longest
            rollout made.
        temperature: α, where it is automatic; adapted: the horizon, where it is adapted.
        critic_seconds, policy_seconds: what either took, all seeds together (on a GPU: until it was
            queued).
    """

    critic_loss: Tensor
    value: Tensor
    critic_norm: Tensor
    policy_norm: Tensor | None
    policy_loss: Tensor | None
    weights: Floats
    horizon: int
    critic_seconds: float
    policy_seconds: float
    temperature: Tensor | None = None
    adapted: Tensor | None = None
