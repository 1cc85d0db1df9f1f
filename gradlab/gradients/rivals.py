"""The same estimators with other critics: what would the gradient be, had the critic come out
differently?

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

Critics = nn.Module | Sequence[nn.Module] | None


def listed(critic: Critics) -> tuple[nn.Module, ...]:
    """The critics given, one or several.

    Raises:
        InputError: an empty sequence, or something in it that is no module.
    """
    if critic is None:
        return ()
    if not isinstance(critic, list | tuple | nn.ModuleList):
        critic = [critic]  # type: ignore[list-item]
    if not len(critic):
        raise InputError("critic is an empty sequence: give at least one critic")
    for each in critic:
        if not isinstance(each, nn.Module):
            raise InputError(f"critic holds a {type(each).__name__}, expected torch modules")
    return tuple(critic)


def with_other_critics(
    chosen: Mapping[str, Estimator],
    own: Mapping[str, nn.Module | None],
    critics: Sequence[nn.Module],
) -> dict[str, list[Estimator]]:
    """For each estimator with a Q critic in its tail, the same with each of the other critics.

    Args:
        own: the critic that each estimator came with, which is not among the others.
        critics: those of the user, at least two or there are no others.
    """
    if len(critics) < 2:
        return {}
    copies = [(critic, copy.deepcopy(critic).double()) for critic in critics]
    found = {}
    for name, each in chosen.items():
        if each.tail.critic is None or each.tail.value != "Q":
            continue
        others = [double for critic, double in copies if critic is not own[name]]
        if others:
            found[name] = [replace(each, tail=replace(each.tail, critic=c)) for c in others]
    return found
