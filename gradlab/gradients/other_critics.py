"""The same estimators with other critics, for the variance of the mean gradient across critics.

    variance_critics = 1/(C − 1) Σ_c |μ_c − μ̄|²,    μ_c the mean gradient with critic c

estimated on common starts and noise without their sampling noise; MPG's Fig. 1 shows this, not the
variance across samples. It speaks of the C critics that are given.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.networks.mlp import CriticLike, as_critic, same_critic

Critics = CriticLike | Sequence[CriticLike] | None
OtherCritics = Mapping[str, Sequence[Estimator]]  # by the name of the estimator


def listed(critic: Critics) -> tuple[nn.Module, ...]:
    """The critics given, one or several.

    Raises:
        InputError: an empty sequence, or something that is neither module nor function.
    """
    if critic is None:
        return ()
    several = critic if isinstance(critic, list | tuple | nn.ModuleList) else [critic]
    if not len(several):
        raise InputError("critic is an empty sequence: give at least one critic")
    return tuple(as_critic(critic) for critic in several)


def with_other_critics(
    chosen: Mapping[str, Estimator],
    owned: Mapping[str, nn.Module | None],
    critics: Sequence[nn.Module],
) -> dict[str, list[Estimator]]:
    """For each estimator with a Q critic in its tail, the same with each of the other critics.

    Args:
        owned: the critic that each estimator came with, which is not among the others.
        critics: those of the user, at least two or there are no others.
    """
    if len(critics) < 2:
        return {}
    copies = [(critic, copy.deepcopy(critic).double()) for critic in critics]
    several = {}
    for name, estimator in chosen.items():
        if estimator.tail.critic is None or estimator.tail.value != "Q":
            continue
        others = [double for critic, double in copies if not same_critic(critic, owned[name])]
        if others:
            several[name] = [
                replace(estimator, tail=replace(estimator.tail, critic=c)) for c in others
            ]
    return several
