"""Measured errors drive the mixture: the weights of least MSE, or the horizon, as it trains.

    every `measure_every` iterations, for each seed and its starts s ~ its replay
    truth        E J_θπᵀ ∂_a Q^π(s, π(s)), the simulator unrolled            (`shared_truth`)
    estimators   ∇J_n of every horizon of the mixture, by the model and the critic in use
    proposal     the simplex weights of least MSE at the batch size, or the horizon; followed only
                 where it is shown to be better than what is in force    (`statistics.switching`)

What is in force is the rule's until then. Starts come from replay since that is what the update
averages over. They and all noise follow from (seed, iteration), networks are float64 copies, and
what is in force is part of the saved state: a run that was killed goes on bit for bit.

A truth is compared with finite differences at the first measurement and at every tenth: these test
the simulator's Jacobians, which do not change as the policy does. Where episodes end, or the
truth has to be cut, `matched_truth` compares them every time. An imprecise truth will do: the
starts judge differences of errors against one and the same truth.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator, Tail
from gradlab.gradients.inner_products import estimator_moments
from gradlab.hooks import silent
from gradlab.journal_tables import Column, Table
from gradlab.shared_truth import SharedTruth, shared_truth
from gradlab.statistics.comparison import log_ratio
from gradlab.statistics.grams import Grams
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate
from gradlab.statistics.switching import Errors, Proposal, errors, propose_horizon, propose_weights
from gradlab.tasks import Task
from gradlab.training.algorithms import Algorithm
from gradlab.training.gradient_errors import model_of
from gradlab.training.learner import NEGLIGIBLE
from gradlab.training.measured_outcomes import KEPT, LOST, NO_TRUTH, SWITCHED
from gradlab.training.weights import Floats, MeasuredWeights

if TYPE_CHECKING:
    from gradlab.training.run import Run

CHECKED = 10  # measurements to one whose truth is compared with finite differences
FEW = 8  # starts with finite gradients, below which nothing is told
STATUSES = ("none", "imprecise", "cut", "converged")
SEED, EACH = ("seed",), ("seed", "horizon")
INTERVALS = ("mse_in_force", "mse_rule", "mse_measured", "over_rule")


def check(algorithm: Algorithm, task: Task) -> None:
    """Can the simulator of the task give the truth?

    Raises:
        InputError: it has no Jacobians.
    """
    if not isinstance(algorithm.weights, MeasuredWeights):
        return
    simulator, starts = task.simulator, task.starts(2, stream(0, "probe")).double()
    action = starts.new_zeros(2, simulator.action_dim)
    noise = starts.new_zeros(2, simulator.noise_dim)
    try:
        simulator.linearize(starts, action, noise)
    except (AttributeError, NotImplementedError, RuntimeError, InputError) as error:
        raise InputError(
            f"{algorithm.weights.follow} is 'measured', but the simulator of {task.name} gives no "
            f"Jacobians, and so no true gradient to measure against ({error}): take 'rule'"
        ) from error


def tables(algorithm: Algorithm, seeds: tuple[int, ...]) -> dict[str, Table]:
    """What is written at every measurement, beside what the rule would have done; MSE at the
    batch size."""
    if not isinstance(algorithm.weights, MeasuredWeights):
        return {}
    columns = {
        "rule": Column(("horizon",), "weights of the rule"),
        "measured": Column(EACH, "weights of least MSE"),
        "in_force": Column(EACH, "weights followed from here on"),
        "kept": Column(EACH, "1: may be the best horizon (95%)"),
        "outcome": Column(SEED, "number in training.measured_outcomes.OUTCOMES"),
        "truth": Column(SEED, f"number in {', '.join(STATUSES)}"),
        "truth2": Column(SEED, "|true gradient|²"),
        "gain": Column(SEED, "MSE in force − MSE measured"),
        "gain_least": Column(SEED, "the least that the starts allow; above 0: switch"),
        "checked": Column(unit="1: the truth was compared with finite differences"),
        "starts": Column(unit="per seed"),
        "seconds": Column(unit="s, all seeds"),
        "share": Column(unit="of the time since the run began that measuring took"),
    }
    for name in INTERVALS:
        columns |= {f"{name}{end}": Column(SEED) for end in ("", "_low", "_high")}
    columns |= {f"mse{end}": Column(EACH) for end in ("", "_low", "_high")}
    scales = {"seed": seeds, "horizon": algorithm.horizons}
    return {"weights": Table("iteration", columns, scales)}


@final
class Measuring:
    """State: when was measured last, what was in force before, and the seconds so far."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.at, self.before = 0, run.learner.in_force.copy()
        self.seconds = 0.0

    @property
    def due(self) -> bool:
        """Is there something to measure before this iteration?"""
        run = self.run
        if not isinstance(run.algorithm.weights, MeasuredWeights):
            return False
        if run.dynamics is not None and not run.dynamics.fitted:
            return False
        return run.iteration > 0 and run.iteration % run.settings.measure_every == 0

    def row(self) -> dict[str, Any]:
        """Measure every seed, put in force what is better, and tell all of it.

        A second time at one iteration, after a resumption, it begins from what the first did.
        """
        run, begun = self.run, time.monotonic()
        learner, k = run.learner, run.iteration
        self.before = (self.before if self.at == k else learner.in_force).copy()
        self.at, learner.in_force = k, self.before.copy()
        rule = run.algorithm.weights(k, run.algorithm.horizons)
        number = k // run.settings.measure_every - 1
        check = number % CHECKED == 0
        uniform = learner.draws.uniform("measured weights", k, (run.settings.measure_starts,))
        states = run.replay.sample(uniform).state.double().cpu()
        found: dict[str, Any] = {"iteration": k, "rule": rule, "checked": int(check)}
        finite, in_force = learner.finite(), learner.weights(k)
        for seed in range(len(finite)):
            told: dict[str, Any] = {"outcome": LOST}
            if finite[seed]:
                told = _of_seed(run, seed, states[seed], in_force[seed], rule, check)
            if told["outcome"] == SWITCHED:
                learner.in_force[seed] = told["measured"]
            _put(found, seed, told | {"in_force": learner.weights(k)[seed]}, len(finite))
        took = time.monotonic() - begun
        self.seconds += took
        share = self.seconds / max(run.seconds + took, 1e-9)
        return found | {"starts": states.shape[1], "seconds": took, "share": share}

    def state(self) -> dict[str, Tensor]:
        if not isinstance(self.run.algorithm.weights, MeasuredWeights):
            return {}
        return {
            "in_force": torch.from_numpy(self.run.learner.in_force.copy()),
            "before": torch.from_numpy(self.before.copy()),
            "at": torch.tensor(self.at),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            InputError, KeyError: the numbers are of another run.
        """
        if not isinstance(self.run.algorithm.weights, MeasuredWeights):
            return
        shape = self.run.learner.in_force.shape
        if any(state[name].shape != shape for name in ("in_force", "before")):
            raise InputError(f"saved weights are not {shape[0]} × {shape[1]}")
        self.run.learner.in_force = state["in_force"].numpy().copy()
        self.before = state["before"].numpy().copy()
        self.at, self.seconds = int(state["at"]), float(state["seconds"])


@dataclass(frozen=True, eq=False)
class Sample:
    """One seed's gradients: inner products of those horizons whose gradients are finite.

    Attributes:
        here: [K], is the horizon among them?
    """

    grams: Grams
    here: np.ndarray


def _of_seed(
    run: Run, seed: int, states: Tensor, in_force: Floats, rule: Floats, check: bool
) -> dict[str, Any]:
    """What one seed's starts say; columns of one row, without the seed's axis."""
    truth = _truth(run, seed, states, check)
    told: dict[str, Any] = {"truth": STATUSES.index(truth.reference.status), "outcome": NO_TRUTH}
    if not truth.reference.admissible:
        return told
    sample = _sample(run, seed, truth)
    if sample is None:
        return told
    algorithm, here = run.algorithm, sample.here
    assert isinstance(algorithm.weights, MeasuredWeights)
    measured = errors(sample.grams, algorithm.batch)
    propose = propose_weights if algorithm.weights.follow == "weights" else propose_horizon
    lost = bool((in_force[~here] > NEGLIGIBLE).any())
    now = _among(in_force, here)
    proposal = propose(measured, now)
    told |= _told(measured, proposal, now, _among(rule, here), here)
    if lost:  # it follows a gradient that is not finite
        told |= {"gain": np.inf, "gain_least": np.inf}
    return told | {"outcome": SWITCHED if lost or proposal.better else KEPT}


def _truth(run: Run, seed: int, states: Tensor, check: bool) -> SharedTruth:
    learner, algorithm = run.learner, run.algorithm
    return shared_truth(
        run.task, learner.policy_of(seed).double().cpu(), states, max(algorithm.horizons),
        algorithm.batch, run.settings.termination,
        child(learner.seeds[seed], f"measured weights {run.iteration}"), check=check,
    )  # fmt: skip


def _sample(run: Run, seed: int, truth: SharedTruth) -> Sample | None:
    """None where no gradient is finite."""
    horizons, model = run.algorithm.horizons, model_of(run, seed)
    tail = Tail(max(horizons), run.learner.critic_of(seed).double().cpu(), run.task.discount)
    found = estimator_moments(
        {"": Estimator(model, model, "first", tail)}, truth.policy, truth.begin, truth.reference,
        truth.horizon, truth.termination, truth.seed, silent,
    )  # fmt: skip
    here = np.array([bool(np.isfinite(found.cells["", n].squares).all()) for n in horizons])
    if not here.any():
        return None
    cells = [("", n) for n, good in zip(horizons, here, strict=True) if good]
    return Sample(found.kernels[0].grams(cells), here)


def _among(weights: Floats, here: np.ndarray) -> Floats:
    """Of some of the horizons, to a sum of 1; even where they had none."""
    some = weights[here]
    return some / some.sum() if some.sum() > 0 else np.full(len(some), 1 / len(some))


def _told(
    measured: Errors, proposal: Proposal, in_force: Floats, rule: Floats, here: np.ndarray
) -> dict[str, Any]:
    """Columns of one seed; NaN for horizons without finite gradients."""

    def everybody(values: Any, missing: float = np.nan) -> Floats:
        whole = np.full(len(here), missing)
        whole[here] = values
        return whole

    old, by_rule = measured.mse(in_force), measured.mse(rule)
    told: dict[str, Any] = {
        "measured": everybody(proposal.weights, 0.0),
        "kept": everybody(proposal.kept),
        "truth2": float(measured.found.value[-1, -1]),
        "gain": proposal.gain,
        "gain_least": proposal.least,
    }
    singles = [_ends(measured.mse(each)) for each in np.eye(len(in_force))]
    for end, values in zip(("", "_low", "_high"), zip(*singles, strict=True), strict=True):
        told[f"mse{end}"] = everybody(values)
    ends = {
        "mse_in_force": _ends(old),
        "mse_rule": _ends(by_rule),
        "mse_measured": _ends(measured.mse(proposal.weights)),
        "over_rule": _ratio(old, by_rule),
    }
    for name, values in ends.items():
        told |= {f"{name}{e}": v for e, v in zip(("", "_low", "_high"), values, strict=True)}
    return told


def _ends(mse: Estimate) -> tuple[float, float, float]:
    found = interval("mse", mse)
    return mse.value, found.low, found.high


def _ratio(first: Estimate, second: Estimate) -> tuple[float, float, float]:
    """NaN where the samples do not know both to be above 0; exactly 1 where they are one."""
    found = log_ratio(first, second)
    if found is None:
        return np.nan, np.nan, np.nan
    return first.value / second.value, float(np.exp(found.low)), float(np.exp(found.high))


def _put(found: dict[str, Any], seed: int, told: Mapping[str, Any], seeds: int) -> None:
    """One seed's columns into the row of all."""
    for name, value in told.items():
        values = np.asarray(value, dtype=np.float64)
        found.setdefault(name, np.full((seeds, *values.shape), np.nan))[seed] = values
