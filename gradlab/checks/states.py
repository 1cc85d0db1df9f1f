"""States where gradients are taken: alive ones, which learned models have seen.

alive   under termination "mask" a state past an end weighs 0: how many of how many are left
seen    a learned model was fitted on states and actions of mean c and deviation d
        (`fitting.losses`); a state is one that it never saw where some coordinate of it
        or of its action has |x − c| > 5 d
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gradlab.checks.inspection import Inspection
from gradlab.gradients.start_laws import alive_counts
from gradlab.gradients.starts import Starts
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.interface import act
from gradlab.runs.check_results import ALIVE, SEEN, CheckResult
from gradlab.systems.entropy import Entropic
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.systems.system import System

_FAR = 5.0  # standard deviations of the data, beyond which a model has seen nothing
_FEW_ALIVE = 0.1  # share below which most of the measurement is thrown away
_SOME = 0.01  # share of unseen states that a few outliers make


def states(inspected: Inspection, at: Starts, names: tuple[str, ...]) -> list[CheckResult]:
    """Both checks.

    Args:
        at: every state at which first-action gradients are taken.
        names: of the state's coordinates; empty where the task has none.
    """
    results = [_alive(at)] if inspected.setting.termination == "mask" else []
    noise = at.policy_noise(inspected.setting.policy, inspected.setting.seed, 0)
    kept = at.weight != 0
    with torch.no_grad():
        action = act(inspected.setting.policy, at.states[kept], noise[kept])
    x = torch.cat([at.states[kept], action], dim=1)  # as the models are asked for them
    for name, ensemble in _learned(inspected).items():
        # A fresh ensemble, which knows no data, has mean 0 and deviation 1 in every column.
        untouched = (ensemble.input_mean == 0).all() and (ensemble.input_std == 1).all()
        if not untouched and len(x):
            results.append(_seen(name, ensemble, x, names, inspected))
    return results


def _alive(at: Starts) -> CheckResult:
    alive, groups, of = alive_counts(at)
    n = len(at.states)
    result = f"{alive} of {n} states are alive, in {groups} of {of} groups of starts"
    few = alive < _FEW_ALIVE * n
    meaning = "the policy leaves the task early: gradients rest on few states, take more starts"
    return CheckResult(ALIVE, result, meaning if few else "enough states carry gradients", not few)


def _seen(
    name: str, ensemble: GaussianEnsemble, x: Tensor, names: tuple[str, ...], inspected: Inspection
) -> CheckResult:
    x = x[:, : ensemble.state_dim + ensemble.action_dim]
    mean, std = (
        moment.detach().to(x)[:, 0] for moment in (ensemble.input_mean, ensemble.input_std)
    )
    far = ((x[None] - mean[:, None]) / std[:, None]).abs().amin(dim=0)  # of the nearest member's
    unseen = (far > _FAR).any(dim=1)
    share = float(unseen.double().mean())
    row, column = divmod(int(far.argmax()), far.shape[1])
    ds = ensemble.state_dim
    known = names[column] if column < len(names) else f"coordinate {column}"
    which = known if column < ds else inspected.action(column - ds)
    result = (
        f"{share:.1%} of {len(x)} states lie more than {_FAR:g} deviations from the data of the "
        f"model (furthest: {which}, {float(far[row, column]):.2g} deviations)"
    )
    if share <= _SOME:
        return CheckResult(f"{SEEN}, {name}", result, "the model has seen states like these", True)
    meaning = "the model extrapolates there: fit it on data of this policy, or trust it elsewhere"
    return CheckResult(f"{SEEN}, {name}", result, meaning, False)


def _learned(inspected: Inspection) -> dict[str, GaussianEnsemble]:
    """Every ensemble that some estimator rolls out or differentiates, each once."""
    ensembles: dict[int, tuple[str, GaussianEnsemble]] = {}
    for estimator in inspected.estimators.values():
        for system in (estimator.states, estimator.jacobians):
            if system is None:
                continue
            for part in _parts(system):
                ensembles.setdefault(id(part.ensemble), (inspected.name(system), part.ensemble))
    names = [name for name, _ in ensembles.values()]
    return {
        f"{name}, part {k + 1}" if names.count(name) > 1 else name: ensemble
        for k, (name, ensemble) in enumerate(ensembles.values())
    }


def _parts(system: object) -> Iterator[LearnedSystem]:
    plain: System | object = system.system if isinstance(system, Entropic) else system
    if isinstance(plain, TwoModels):
        yield from _parts(plain.prediction)
        yield from _parts(plain.gradient)
    elif isinstance(plain, LearnedSystem):
        yield plain
