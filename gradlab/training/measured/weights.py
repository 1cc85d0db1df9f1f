"""Measurements drive the mixture as it trains: they replace its weights, or its horizon.

    by           states and truth                                            best
    "mse"        the seed's replay, E J_θπᵀ ∂_a Q^π(s, π(s)) there           least MSE
    "gain"       visited from the task's starts, ∇_θ E_ζ[V^π]                largest gain of a step

every `measure_every` iterations, seed by seed, on float64 copies. Until something else is shown to
be better (`measured.switching`) the rule is followed. Errors are those of one batch; gains, E ĝ·t /
(√E |ĝ|² |t|), shares of the best possible step of that length.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, Tail
from gradlab.measurement.assembly import shared_truth
from gradlab.measurement.inner_products import Measured, estimator_moments
from gradlab.measurement.resolve import starts_of
from gradlab.measurement.visited import objective_moments
from gradlab.progress import silent
from gradlab.runs.training.measured_weights import KEPT, LOST, NO_TRUTH, SWITCHED
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.grams import Grams
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, combine
from gradlab.storage.journal_tables import Column, Table
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.first_networks import without_jacobians
from gradlab.training.measured.gradient_errors import STATUSES
from gradlab.training.measured.switching import (
    By,
    Errors,
    Proposal,
    errors,
    propose_horizon,
    propose_weights,
)
from gradlab.training.parts.context import Floats, MeasuredWeights
from gradlab.training.parts.policy_losses import NEGLIGIBLE
from gradlab.training.state import Run
from gradlab.truth.agreement import Status
from gradlab.truth.truth import matched_truth

NAME = "mixture"


@dataclass(frozen=True, eq=False)
class _Sample:
    """One seed's gradients: inner products of those horizons whose gradients are finite.

    Attributes:
        status: of the truth; grams: None where it is none, or no gradient is finite.
        here: [K], is the horizon among them?
    """

    status: Status
    grams: Grams | None
    here: np.ndarray


def _at_replay(run: Run, seed: int, states: Tensor, check: bool) -> _Sample:
    """Against the truth of the states' own first actions."""
    horizons, termination = run.algorithm.horizons, run.settings.termination
    truth = shared_truth(
        run.task, _policy(run, seed), states, max(horizons), run.algorithm.batch, termination,
        _draw(run, seed), check=check,
    )  # fmt: skip
    if not truth.reference.admissible:
        return _nothing(run)
    measured = estimator_moments(
        {NAME: _estimator(run, seed)}, truth.setting, truth.reference, silent, kept=horizons
    )
    return _sample(run, truth.reference.status, measured)


def _of_the_return(run: Run, seed: int) -> _Sample:
    """Against the gradient of the return, at states visited from fresh starts of the task."""
    task, settings, draw = run.task, run.settings, _draw(run, seed)
    policy, horizons = _policy(run, seed), run.algorithm.horizons
    begin, termination = starts_of(task, settings.measure_starts, draw), settings.termination
    setting = Setting(
        task.simulator, policy, begin, task.discount, max(horizons), termination, draw
    )
    truth = matched_truth(setting, kinds=["all"])
    if not truth.admissible:
        return _nothing(run)
    try:
        measured = objective_moments(
            {NAME: _estimator(run, seed)}, setting, truth, silent, kept=horizons
        )
    except InputError:  # visited states that are not finite
        return _nothing(run)
    return _sample(run, truth.status, measured)


def _nothing(run: Run) -> _Sample:
    return _Sample("none", None, np.zeros(len(run.algorithm.horizons), dtype=bool))


def _policy(run: Run, seed: int) -> nn.Module:
    return run.learner.policy_of(seed).double().cpu()


def _draw(run: Run, seed: int) -> int:
    return child(run.learner.seeds[seed], f"measured weights {run.iteration}")


def _estimator(run: Run, seed: int) -> Estimator:
    """What the mixture of one seed follows: its own model, or the task's prior."""
    model = run.task.prior if run.dynamics is None else run.dynamics.system_of(seed)
    critic = run.learner.critic_of(seed)
    assert model is not None and critic is not None  # other rows are refused
    tail = Tail(max(run.algorithm.horizons), critic.double().cpu(), run.task.discount)
    return Estimator(model, model, "first", tail)


def _sample(run: Run, status: Status, measured: Measured) -> _Sample:
    horizons = run.algorithm.horizons
    here = np.array([bool(np.isfinite(measured.cells[NAME, n].squares).all()) for n in horizons])
    if not here.any():
        return _Sample(status, None, here)
    cells = [(NAME, n) for n, good in zip(horizons, here, strict=True) if good]
    return _Sample(status, measured.kernels[0].grams(cells), here)


_CHECKED = 10  # measurements to one whose truth is compared with finite differences


def check(algorithm: Algorithm, task: Task) -> None:
    """Refuse measured weights where the task's simulator cannot give the truth."""
    if not isinstance(algorithm.weights, MeasuredWeights):
        return
    error = without_jacobians(task)
    if error is not None:
        raise InputError(
            f"{algorithm.weights.follow} is 'measured', but the simulator of {task.name} gives no "
            f"Jacobians, and so no true gradient to measure against ({error}): take 'rule'"
        ) from error


def row(run: Run) -> dict[str, Any]:
    """Measure every seed, put in force what is better, and record all of it.

    A second time at one iteration, after a resumption, it begins from what the first did.
    """
    begun, weighing = time.monotonic(), run.weighing
    learner, k = run.learner, run.iteration
    weighing.before = (weighing.before if weighing.at == k else learner.in_force).copy()
    weighing.at, learner.in_force = k, weighing.before.copy()
    rule = run.algorithm.weights(k, run.algorithm.horizons)
    number = k // run.settings.measure_every - 1
    replayed = _replayed(run)
    check = number % _CHECKED == 0 or replayed is None
    columns: dict[str, Any] = {"iteration": k, "rule": rule, "checked": int(check)}
    finite, in_force = learner.finite(), learner.weights(k)
    for seed in range(len(finite)):
        measured: dict[str, Any] = {"outcome": LOST}
        if finite[seed]:
            states = None if replayed is None else replayed[seed]
            measured = _of_seed(run, seed, states, in_force[seed], rule, check)
        if measured["outcome"] == SWITCHED:
            learner.in_force[seed] = measured["measured"]
        for name, value in (measured | {"in_force": learner.weights(k)[seed]}).items():
            array = np.asarray(value, dtype=np.float64)
            columns.setdefault(name, np.full((len(finite), *array.shape), np.nan))[seed] = array
    took = time.monotonic() - begun
    weighing.seconds += took
    share = weighing.seconds / max(run.seconds + took, 1e-9)
    starts = run.settings.measure_starts
    return columns | {"starts": starts, "seconds": took, "share": share}


def state(run: Run) -> dict[str, Tensor]:
    """What the next measurement and the weights in force depend on, for `load`."""
    if not isinstance(run.algorithm.weights, MeasuredWeights):
        return {}
    return {
        "in_force": torch.from_numpy(run.learner.in_force.copy()),
        "before": torch.from_numpy(run.weighing.before.copy()),
        "at": torch.tensor(run.weighing.at),
        "seconds": torch.tensor(run.weighing.seconds, dtype=torch.float64),
    }


def load(run: Run, saved: Mapping[str, Tensor]) -> None:
    if not isinstance(run.algorithm.weights, MeasuredWeights):
        return
    shape = run.learner.in_force.shape
    if any(saved[name].shape != shape for name in ("in_force", "before")):
        raise InputError(f"saved weights are not {shape[0]} × {shape[1]}")
    run.learner.in_force = saved["in_force"].numpy().copy()
    weighing = run.weighing
    weighing.before = saved["before"].numpy().copy()
    weighing.at, weighing.seconds = int(saved["at"]), float(saved["seconds"])


def _replayed(run: Run) -> Tensor | None:
    """States of every seed's replay, [E, N, ds]; None where visited states are measured at."""
    if _weights(run).by == "gain":
        return None
    shape = (run.settings.measure_starts,)
    uniform = run.learner.draws.uniform("measured weights", run.iteration, shape)
    return run.replay.sample(uniform).state.double().cpu()


def _weights(run: Run) -> MeasuredWeights:
    assert isinstance(run.algorithm.weights, MeasuredWeights)
    return run.algorithm.weights


def _of_seed(
    run: Run, seed: int, states: Tensor | None, in_force: Floats, rule: Floats, check: bool
) -> dict[str, Any]:
    """Columns of one row from one seed's states, without the seed's axis."""
    sample = _of_the_return(run, seed) if states is None else _at_replay(run, seed, states, check)
    columns: dict[str, Any] = {"truth": STATUSES.index(sample.status), "outcome": NO_TRUTH}
    if sample.grams is None:
        return columns
    weights, here = _weights(run), sample.here
    measured = errors(sample.grams, run.algorithm.batch)
    propose = propose_weights if weights.follow == "weights" else propose_horizon
    lost = bool((in_force[~here] > NEGLIGIBLE).any())
    now = _among(in_force, here)
    proposal = propose(measured, now, weights.by)
    columns |= of_seed(measured, proposal, now, _among(rule, here), here, weights.by)
    if lost:  # it follows a gradient that is not finite
        columns |= {"gain": np.inf, "gain_least": np.inf}
    return columns | {"outcome": SWITCHED if lost or proposal.better else KEPT}


def _among(weights: Floats, here: np.ndarray) -> Floats:
    """Of some of the horizons, to a sum of 1; even where they had none."""
    some = weights[here]
    return some / some.sum() if some.sum() > 0 else np.full(len(some), 1 / len(some))


SEED, EACH = ("seed",), ("seed", "horizon")
_ENDS = {"": "", "_low": ", lower end", "_high": ", upper end"}
_OF_WEIGHTS = {"in_force": "the weights in force", "rule": "the rule's weights",
               "measured": "the measured weights"}  # fmt: skip


# Of each criterion: its unit, what it is, and columns: in force against the rule, of each horizon.
_COMPARED: Mapping[By, tuple[str, str, str, str, str, str]] = {
    "mse": ("reward^2", "MSE", "over_rule", "1", "MSE in force over the rule's", "mse"),
    "gain": (
        "reward", "Gain", "gain_over_rule", "reward", "Gain in force less the rule's", "gain_each"
    ),
}  # fmt: skip


def _criteria(by: By) -> tuple[By, ...]:
    """What is recorded: errors, and gains where they decide."""
    return ("mse",) if by == "mse" else ("mse", "gain")


def tables(algorithm: Algorithm, seeds: tuple[int, ...]) -> dict[str, Table]:
    """What is written at every measurement."""
    weights = algorithm.weights
    if not isinstance(weights, MeasuredWeights):
        return {}
    unit = _COMPARED[weights.by][0]
    truths = f"Number in {', '.join(STATUSES)}."
    columns = {
        "rule": Column(("horizon",), "1", description="Weights of the rule."),
        "measured": Column(EACH, "1", description="Best weights."),
        "in_force": Column(EACH, "1", description="Weights followed from here on."),
        "kept": Column(EACH, "1", description="1 where it may be the best horizon."),
        "outcome": Column(SEED, "1", description="0 switched, 1 kept, 2 no truth, 3 lost."),
        "truth": Column(SEED, "1", description=truths),
        "truth2": Column(SEED, "reward^2", description="Squared norm of the true gradient."),
        "gain": Column(SEED, unit, description="What the measured weights would improve."),
        "gain_least": Column(SEED, unit, description="Its least value; above 0: switch."),
        "checked": Column(unit="1", description="1 where differences checked the truth."),
        "starts": Column(unit="samples", description="Starts of each seed."),
        "seconds": Column(unit="s", description="Time of measuring, all seeds together."),
        "share": Column(unit="1", description="Share of the run's time that measuring took."),
    }
    for each in _criteria(weights.by):
        unit, what, compared, ratio, words, single = _COMPARED[each]
        named = {f"{each}_{name}": (unit, f"{what} of {of}") for name, of in _OF_WEIGHTS.items()}
        columns |= _with_ends(named | {compared: (ratio, words)}, SEED)
        columns |= _with_ends({single: (unit, f"{what} of each horizon")}, EACH)
    scales = {"seed": seeds, "horizon": algorithm.horizons}
    return {"weights": Table("iteration", columns, scales)}


def _with_ends(of: Mapping[str, tuple[str, str]], dims: tuple[str, ...]) -> dict[str, Column]:
    """Columns of values by name, their unit and what they are, and of the ends of intervals."""
    return {
        f"{name}{end}": Column(dims, unit, description=f"{what}{says}.")
        for name, (unit, what) in of.items() for end, says in _ENDS.items()
    }  # fmt: skip


def of_seed(
    measured: Errors,
    proposal: Proposal,
    in_force: Floats,
    rule: Floats,
    here: np.ndarray,
    by: By,
) -> dict[str, Any]:
    """Columns of one seed; NaN for horizons without finite gradients.

    Args:
        in_force, rule: weights of the horizons with finite gradients, which `here` [K] marks.
    """
    columns: dict[str, Any] = {
        "measured": _everybody(proposal.weights, here, 0.0),
        "kept": _everybody(proposal.kept, here),
        "truth2": float(measured.found.value[-1, -1]),
        "gain": proposal.gain,
        "gain_least": proposal.least,
    }
    named = {"in_force": in_force, "rule": rule, "measured": proposal.weights}
    for each in _criteria(by):
        _, _, compared, _, _, single = _COMPARED[each]
        loss = measured.mse if each == "mse" else partial(_share, measured)
        against = _ratio if each == "mse" else _gap
        ends = {f"{each}_{name}": _ends(each, loss(w)) for name, w in named.items()}
        ends[compared] = against(loss(in_force), loss(rule))
        columns |= {
            f"{name}{end}": value
            for name, values in ends.items()
            for end, value in zip(_ENDS, values, strict=True)
        }
        singles = [_ends(each, loss(one)) for one in np.eye(len(in_force))]
        for end, values in zip(_ENDS, zip(*singles, strict=True), strict=True):
            columns[f"{single}{end}"] = _everybody(values, here)
    return columns


def _share(measured: Errors, w: Floats) -> Estimate:
    """Gain as a share of the best possible step's; not finite where |t|² is not above 0."""
    norm2 = Estimate(float(measured.found.value[-1, -1]), measured.found.left_out[:, -1, -1])
    return combine(lambda gain, t: gain / np.sqrt(t), measured.gain(w), norm2)


def _everybody(values: Any, here: np.ndarray, missing: float = np.nan) -> Floats:
    whole = np.full(len(here), missing)
    whole[here] = values
    return whole


def _ends(quantity: str, estimate: Estimate) -> tuple[float, float, float]:
    bounds = interval(quantity, estimate)
    return estimate.value, bounds.low, bounds.high


def _ratio(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """NaN where the samples do not know both to be above 0; exactly 1 where they are one."""
    bounds = log_ratio(first, second)
    if bounds is None:
        return np.nan, np.nan, np.nan
    return first.value / second.value, float(np.exp(bounds.low)), float(np.exp(bounds.high))


def _gap(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """NaN where one of them is not finite."""
    if not all(np.isfinite([part.value, *part.left_out]).all() for part in (first, second)):
        return np.nan, np.nan, np.nan
    bounds = difference(first, second)
    return first.value - second.value, bounds.low, bounds.high
