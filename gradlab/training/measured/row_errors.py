"""Errors of the gradient that a row's policy follows, at the states that the row starts from.

    G    the row's own loss, start by start                                      (`row_gradients`)
    S    the same with the simulator in the model's place: same horizon, critic and noise of actions
    M    the same with the simulator's states and the model's Jacobians
    T    the simulator's own, of the same return — soft where the row's is, at the row's temperature
         — with θ in the same actions, unrolled to convergence (`truth.by_blocks`) or by score
         functions (`truth.score_actions`)

    relative_mse, …           G against T
    dynamics_relative_mse, …  G against S: the model's doing alone
    bias2_states, …           b·E(G − M), b·E(M − S), b·E(S − T) with b = E(G − T): parts of |b|²
                              that the model's states, its Jacobians and the tail (the critic, or
                              what is cut off where there is none) make; they sum to it, and may be
                              negative
    gradient2, truth2, inner  |E G|², |E T|² and E G · E T without the bias of noise, so that stages
                              and seeds can be summed before they are divided

Beside the horizon of the row shorter ones are measured, so that the range in which it is usable is
seen; 0 is its critic alone. Everything is in float64, with draws apart from training's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import child
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting, as_starts
from gradlab.networks.policies import Gaussian, WithLogProb
from gradlab.statistics.comparison import difference
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, PairSums, estimates, pair_mean
from gradlab.storage.journal_tables import Column, Table
from gradlab.systems.system import Entropic
from gradlab.training.algorithms import Algorithm
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner, alone
from gradlab.training.measured import row_gradients
from gradlab.training.measured.row_gradients import (
    FEWEST,
    USE,
    StartGradients,
    carrying,
    in_trained_weights,
    measured_terms,
    rows_of,
    samples,
    start_gradients,
)
from gradlab.training.members import unstacked
from gradlab.training.models.seed_models import (
    Model,
    TrueStates,
    TrueSteps,
    deals,
    in_dtype,
    of_seed,
)
from gradlab.training.parts.context import Floats
from gradlab.training.parts.policy_losses import Term
from gradlab.training.settings import Settings
from gradlab.training.state import Run
from gradlab.truth.by_blocks import EarlyTruth, early_truth
from gradlab.truth.score_actions import ScoreTruth, score_truth

QUANTITIES = ("bias2", "variance", "mse", "relative_mse", "cosine")
PARTS = ("bias2_states", "bias2_jacobians", "bias2_tail")
SQUARES = ("gradient2", "truth2", "inner")
ENDS = ("", "_low", "_high")
DYNAMICS = "dynamics_"
_REASON = "truth_reason"  # of the first seed whose truth is none or imprecise
STATUSES = ("none", "imprecise", "cut", "converged")
TRUTHS = (*STATUSES, "score")
_CHECKED = 10  # measurements to two whose truth is compared with finite differences


def table(algorithm: Algorithm, settings: Settings, seeds: tuple[int, ...]) -> Table:
    dims = ("seed", "horizon")
    columns = [f"{start}{name}" for start in ("", DYNAMICS) for name in QUANTITIES]
    names = [f"{column}{end}" for column in (*columns, *PARTS) for end in ENDS]
    schema = {name: Column(dims) for name in (*names, *SQUARES)}
    schema |= {
        "truth": Column(("seed",), f"number in {', '.join(TRUTHS)}"),
        "truth_steps": Column(("seed",), "simulator steps of the true return"),
        "starts": Column(("seed",), "that were measured"),
        "samples": Column(("horizon",), "N′ of the MSE: what an update averages"),
        "seconds": Column(unit="s, all seeds"),
        _REASON: Column(text=True),
    }
    horizons = tuple(term.horizon for term in measured_terms(algorithm, settings))
    return Table("iteration", schema, {"seed": seeds, "horizon": horizons})


def row(run: Run) -> dict[str, Any]:
    """One row of the table; NaN for a seed that left the finite numbers."""
    begun, terms = time.monotonic(), measured_terms(run.algorithm, run.settings)
    finite, columns = run.learner.finite(), dict[str, Any]()
    batches = row_gradients.batches(run)
    reasons = []
    for seed in np.flatnonzero(finite):
        own = _of_seed(run, int(seed), batches, terms)
        reasons.append(own.pop(_REASON, ""))
        for name, value in own.items():
            empty = np.full((len(finite), *np.shape(value)), np.nan)
            columns.setdefault(name, empty)[seed] = value
    columns[_REASON] = next(filter(None, reasons), "")
    columns["samples"] = [samples(run.algorithm, term) for term in terms]
    return columns | {"iteration": run.iteration, "seconds": time.monotonic() - begun}


def _of_seed(run: Run, seed: int, batches: Batch, terms: Sequence[Term]) -> dict[str, Any]:
    """Column → its values at each horizon, or its value."""
    single = alone(run.learner, seed, precision="float64", device="cpu")
    like = torch.zeros((), dtype=torch.float64)
    batch, count = rows_of(run, seed, batches, like)
    if count < FEWEST:
        few = f"{count} starts were within one episode, {FEWEST} are needed"
        return {"starts": count, _REASON: few}
    # What goes through the simulator itself has no part that a model makes.
    followed = None if run.algorithm.loss.of_simulator else run.learner.model
    model = of_seed(followed, seed, len(run.learner.seeds))
    measuring = _Measuring(run, single, batch, None if model is None else in_dtype(model, like))
    return measuring.columns(terms) | {"starts": count}


@dataclass(frozen=True, eq=False)
class _Measuring:
    """One seed's gradients and their truth."""

    run: Run
    single: Learner
    batch: Batch
    model: Model | None

    def columns(self, terms: Sequence[Term]) -> dict[str, Any]:
        counts = [carrying(self.run.algorithm, term) for term in terms]
        truth: EarlyTruth | ScoreTruth | None = None
        columns: dict[str, list[float]] = {}
        for term, count in zip(terms, counts, strict=True):
            followed = self._gradients(term, self.model)
            if truth is None:
                truth = self._truth(followed.states, counts)
            T = None if truth is None else truth.gradients(count)
            T = None if T is None else in_trained_weights(self.single, T)
            for name, ends in self._errors(term, followed.gradients, T).items():
                for end, number in zip(ENDS, ends, strict=True):
                    columns.setdefault(f"{name}{end}", []).append(number)
            for name, square in squares(followed.gradients, T).items():
                columns.setdefault(name, []).append(square)
        if truth is None:
            lost = "the states that it starts from are not finite"
            return {**columns, "truth": 0.0, "truth_steps": 0.0, _REASON: lost}
        return {
            **columns,
            "truth": float(TRUTHS.index(truth.status)),
            "truth_steps": float(truth.horizon),
            _REASON: truth.reason if truth.status in ("none", "imprecise") else "",
        }

    def _gradients(self, term: Term, model: Model | None) -> StartGradients:
        k, learner = self.run.iteration, self.single
        draws = Draws(learner.seeds, learner.dtype, learner.device, USE, block=1)
        batch = self.batch
        if self.run.algorithm.loss.paths:
            rows = batch.state.shape[1] // self.run.algorithm.horizons[0] * term.horizon
            batch = Batch(**{name: values[:, :rows] for name, values in batch.tensors.items()})
        starts = start_gradients(learner, batch, term, model, draws, k)
        return replace(starts, gradients=in_trained_weights(learner, starts.gradients))

    def _truth(self, states: Tensor, counts: Sequence[int]) -> EarlyTruth | ScoreTruth | None:
        run, k = self.run, self.run.iteration
        number = k // (run.settings.gradient_every or max(k, 1))
        try:
            setting = self._setting(states)
            if run.settings.gradient_truth == "score":
                return score_truth(setting, counts, temperature=self._temperature())
            return early_truth(self._soft(setting), counts, check=number % _CHECKED < 2)
        except InputError:  # states that are not finite
            return None

    def _setting(self, states: Tensor) -> Setting:
        run, single = self.run, self.single
        policy = unstacked(single.policy, 0, copy.deepcopy(single.policy_module).double())
        simulator, scored = run.task.simulator, run.settings.gradient_truth == "score"
        if scored and run.algorithm.policy == "deterministic":
            size = torch.ones(simulator.action_dim) if single.limit is None else single.limit
            policy = Gaussian(policy, (run.algorithm.exploration * size).tolist())
        seed = child(self.single.seeds[0], f"{USE} {run.iteration}")
        return Setting(
            simulator, policy, as_starts(states, simulator.state_dim), run.task.discount,
            run.task.horizon, run.settings.termination, seed,
        )  # fmt: skip

    def _soft(self, setting: Setting) -> Setting:
        """With the entropy of the return in system and policy."""
        alpha = self._temperature()
        if not alpha:
            return setting
        return replace(
            setting,
            simulator=Entropic(setting.simulator, alpha),
            policy=WithLogProb(setting.policy),
        )

    def _temperature(self) -> float:
        """In the task's own rewards per nat."""
        return self.single.temperature_of(0) / self.run.settings.reward_scale

    def _errors(self, term: Term, G: Tensor, T: Tensor | None) -> dict[str, _Interval]:
        own, true = _array(G), None if T is None else _array(T)
        count = samples(self.run.algorithm, term)
        found = dict(_quantities(own, true, count))
        rolled = term.horizon > 0 and self.model is not None
        if not rolled:
            nothing = (0.0, 0.0, 0.0)
            found |= dict.fromkeys(PARTS[:2], nothing) | {PARTS[2]: found["bias2"]}
            return found | {f"{DYNAMICS}{name}": _NOTHING for name in QUANTITIES}
        assert self.model is not None
        simulator = self.run.task.simulator
        S = _array(self._gradients(term, TrueSteps(simulator, deals(self.model))).gradients)
        M = _array(self._gradients(term, TrueStates(simulator, self.model)).gradients)
        dynamics = _quantities(own, S, count)
        found |= {f"{DYNAMICS}{name}": ends for name, ends in dynamics}
        return found | dict(_parts(own, M, S, true))


_Interval = tuple[float, float, float]
_NOTHING: _Interval = (np.nan, np.nan, np.nan)


def _quantities(G: Floats, T: Floats | None, batch: int) -> Iterator[tuple[str, _Interval]]:
    finite = np.isfinite(G).all() and (T is None or np.isfinite(T).all())
    with np.errstate(over="ignore", invalid="ignore"):
        known = moments_of(G, T, batch) if finite else {}
    for name in QUANTITIES:
        estimate = known.get(name)
        yield name, _NOTHING if estimate is None else ends(name, estimate)


def moments_of(G: Floats, T: Floats | None, batch: int) -> Mapping[str, Estimate]:
    """Estimates of gradients G against T, [N, P] each, from the same independent starts."""
    moments = Moments(np.ones(len(G)), (G * G).sum(axis=1), _products(G, G))
    if T is not None:
        moments = replace(
            moments, truth=_products(T, T), difference=_products(G - T, G - T),
            cross=_products(G, T),
        )  # fmt: skip
    return estimates(moments, batch)


def squares(G: Tensor, T: Tensor | None) -> dict[str, float]:
    """`SQUARES`, NaN without a truth or where a gradient is not finite."""
    if T is None or not (G.isfinite().all() and T.isfinite().all()):
        return dict.fromkeys(SQUARES, np.nan)
    own, true, size = _array(G), _array(T), np.ones(len(G))
    pairs = ((own, own), (true, true), (own, true))
    values = (pair_mean(_products(X, Z), size).value for X, Z in pairs)
    return dict(zip(SQUARES, values, strict=True))


def _parts(G: Floats, M: Floats, S: Floats, T: Floats | None) -> Iterator[tuple[str, _Interval]]:
    """What states, Jacobians and tail make of the squared bias."""
    if T is None or not all(np.isfinite(X).all() for X in (G, M, S, T)):
        yield from dict.fromkeys(PARTS, _NOTHING).items()
        return
    size = np.ones(len(G))
    for name, part in zip(PARTS, (G - M, M - S, S - T), strict=True):
        product = pair_mean(_products(G - T, part), size)
        zero = Estimate(0.0, np.zeros_like(product.left_out))
        bounds = difference(product, zero)
        yield name, (product.value, bounds.low, bounds.high)


def _products(X: Floats, Z: Floats) -> PairSums:
    """Of samples as groups of one, [N, P]."""
    return PairSums((X * Z).sum(axis=1), X @ Z.sum(axis=0), Z @ X.sum(axis=0))


def ends(name: str, estimate: Estimate) -> _Interval:
    """Value, low and high."""
    bounds = interval(name, estimate)
    return estimate.value, bounds.low, bounds.high


def _array(x: Tensor) -> Floats:
    return np.asarray(x.detach().numpy(), dtype=np.float64)
