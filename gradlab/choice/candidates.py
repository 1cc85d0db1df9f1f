"""The candidates of a choice: estimators under one truth, at horizons where they were measured.

Gradients of the first action and of all actions aim at different truths unless they were measured
against the objective's, and an error against one says nothing about an error against the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from gradlab.choice.values import Cell
from gradlab.errors import InputError
from gradlab.runs.competing import is_data_again
from gradlab.runs.decision_rules import horizons_of, judged_estimator
from gradlab.runs.identity import competing
from gradlab.runs.profile import Profile
from gradlab.statistics.grams import Kernels

TRUTHS = {
    "first": "the gradient of the first action",
    "all": "the gradient of all actions",
    "objective": "the gradient of the objective",
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a choice is made among.

    Attributes:
        kind: whose truth: "first", "all" or "objective".
        names: estimators that are candidates; excluded: those that are not, and why.
        judged: the estimator of rules, pairs and the usable horizon; None: only data.
        cells: every candidate gradient once: horizon 0 of a model that is J_0 itself is left
            out beside the data's.
        kernels: of this truth; None in files of older versions.
    """

    kind: str
    names: tuple[str, ...]
    excluded: Mapping[str, str]
    judged: str | None
    cells: tuple[Cell, ...]
    kernels: Kernels | None

    @property
    def of_return(self) -> bool:
        """Is the truth the gradient of the return, so that gains have their meaning?"""
        return self.kind == "objective"

    def finite(self, profile: Profile, name: str) -> list[int]:
        """Horizons of one estimator at which its error is a number."""
        return [h for each, h in self.cells if each == name and is_finite(profile, (each, h))]


def candidates(profile: Profile, estimators: Collection[str] | None) -> Candidates:
    """The named estimators, or those that compete under the truth of the judged one.

    Raises:
        InputError: unknown estimators, none, or some under different truths.
    """
    if estimators is None:
        names, excluded = _everybody(profile)
    else:
        names, excluded = _asked(profile, estimators), {}
    kind = kind_of(profile, names[0])
    judged = judged_estimator(profile)
    if judged not in names:
        long = [name for name in names if max(horizons_of(profile, name), default=0) > 0]
        judged = long[0] if long else None
    kernels = [each for each in profile.kernels if each.kind == kind]
    among = {name: profile.identities[name] for name in names}
    cells = ((name, h) for name in names for h in horizons_of(profile, name))
    return Candidates(
        kind,
        tuple(names),
        excluded,
        judged,
        tuple(cell for cell in cells if not is_data_again(among, cell)),  # each gradient once
        kernels[0] if kernels else None,
    )


def kind_of(profile: Profile, name: str) -> str:
    """Whose truth an estimator is measured against."""
    if profile.config.get("truth") == "objective":
        return "objective"
    return "first" if profile.config.get("actions", {}).get(name, "first") == "first" else "all"


def is_finite(profile: Profile, cell: Cell, quantity: str = "mse") -> bool:
    """Is a quantity a number there, whichever group of starts is left out?"""
    estimate = profile.estimate(cell[0], quantity, cell[1])
    return bool(np.isfinite(estimate.value) and np.isfinite(estimate.left_out).all())


def _asked(profile: Profile, estimators: Collection[str]) -> list[str]:
    unknown = sorted(set(estimators) - set(profile.estimators))
    if unknown or not estimators:
        raise InputError(
            f"estimators is {sorted(estimators)}, expected some of {list(profile.estimators)}"
        )
    names = [name for name in profile.estimators if name in estimators]
    kinds = {name: TRUTHS[kind_of(profile, name)] for name in names}
    if len(set(kinds.values())) > 1:
        raise InputError(
            f"estimators have different truths, {kinds}: their errors cannot be compared; choose "
            f"among those of one truth, or measure with truth='objective', one truth for all"
        )
    return names


def _everybody(profile: Profile) -> tuple[list[str], dict[str, str]]:
    about = judged_estimator(profile) or profile.estimators[0]
    kind = kind_of(profile, about)
    excluded = {
        name: f"its truth is another one, {TRUTHS[kind_of(profile, name)]}: choose among its kind "
        f"by itself"
        for name in profile.estimators
        if kind_of(profile, name) != kind
    }
    names = [name for name in profile.estimators if name not in excluded]
    among = competing({name: profile.identities[name] for name in names})
    for name in names:
        if name not in among:
            needs = "it needs the simulator's states"
            if profile.identities[name].control:
                needs = "a control arm that needs a differentiable simulator"
            excluded[name] = f"{needs}; name it among the estimators to let it compete"
    return list(among), excluded
