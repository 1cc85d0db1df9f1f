"""The true gradient with θ in the first k actions of a path, for gradients that stop at a critic.

    Σ_{t<k} γᵗ E[J_θπ(s_t)ᵀ ∂_a Q^π(s_t, a_t)],   s_0 given, s_t by the simulator

A gradient of n steps that ends in Q(s_n, a_n) has θ in k = n + 1 actions, and this is its
expectation where model and critic are exact, whatever n is. k = 1 is DPG's and MPG's (kind "first"
of `matched_truth`), k → ∞ the gradient of the return (kind "all").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.setting import Setting
from gradlab.truth.continued import piece
from gradlab.truth.oracles import early_action_gradients
from gradlab.truth.reasons import Status
from gradlab.truth.truth import matched_truth


@dataclass(frozen=True, eq=False)
class EarlyTruth:
    """
    Attributes:
        status: of the truth with θ in the first action, by which this one stands or falls.
        horizon: T, the steps that the return sums; 0 where there is no truth.
        reason: of the status, one sentence.
        path: of the simulator, T steps long; None where there is no truth.
    """

    setting: Setting
    status: Status
    horizon: int
    reason: str
    path: LinearizedPath | None

    def gradients(self, count: int) -> Tensor | None:
        """Of every start with θ in the first `count` actions, [N, P]; None without a truth."""
        if self.path is None:
            return None
        setting = self.setting
        return early_action_gradients(
            self.path, setting.policy, count, self.horizon, setting.discount
        )


def early_truth(setting: Setting, counts: Sequence[int], *, check: bool = True) -> EarlyTruth:
    """The truth for several numbers of actions that carry θ.

    A return that converges from the first action on is summed for as many steps after the last
    one; one that has to be cut is cut at the same T, never before the setting's horizon.

    Args:
        check: as in `matched_truth`.
    """
    most = max(counts)
    longest = replace(setting, horizon=max(setting.horizon, most))
    truth = matched_truth(longest, kinds=["first"], check=check)
    if not truth.admissible:
        return EarlyTruth(setting, truth.status, 0, truth.reason, None)
    steps = truth.horizon + (0 if truth.status == "cut" else most - 1)
    return EarlyTruth(setting, truth.status, steps, truth.reason, piece(setting, steps))
