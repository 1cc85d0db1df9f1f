"""Errors of the gradient that a row's policy follows against the true one, while it trains, at the
states that the row starts from.

    G    the row's own loss, start by start                                      (`start_gradients`)
    S    the same with the simulator in the model's place: same horizon, critic and noise of actions
    M    the same with the simulator's states and the model's Jacobians
    T    the simulator's own, of the same return — soft where the row's is, at the row's temperature
         — with θ in the same actions, unrolled to convergence (`truth.early_truth`) or by score
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

The gradient that a row's policy follows, start by start, from the row's own loss.

    G_i = −∂/∂θ_i [N · loss],   θ_1 = … = θ_N = θ,   the i-th start acted on by θ_i

The loss is called as by an update, for one seed in float64, with a copy of the policy for each
start: one backward pass has all gradients (ascent, per unit of the task's reward). Starts are the
states at which it first acts, those that the source draws; of on-policy paths the unbroken ones.
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

from gradlab.data.replay import Batch
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.findings.checks import reason
from gradlab.gradients.setting import Setting, as_starts
from gradlab.networks.policies import Gaussian, WithLogProb
from gradlab.statistics.comparison import difference
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, PairSums, estimates, pair_mean
from gradlab.storage.journal_tables import Column, Table
from gradlab.systems.system import Entropic
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.first_networks import without_jacobians
from gradlab.training.learner import Learner, alone
from gradlab.training.members import Network, unstacked
from gradlab.training.parts.context import Act, Draws, Floats, Stores, TwoStores
from gradlab.training.parts.critics import Q
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.seed_models import (
    Model,
    TrueStates,
    TrueSteps,
    deals,
    in_dtype,
    of_seed,
)
from gradlab.training.settings import Settings
from gradlab.training.state import Run
from gradlab.truth.agreement import EarlyTruth
from gradlab.truth.score_actions import score_truth
from gradlab.truth.truth import early_truth

_USE = "measured gradient"  # of the draws
FEWEST = 4  # starts whose moments have intervals


def check(algorithm: Algorithm, settings: Settings, task: Task) -> None:
    """Raises InputError where measurements are wanted of a run that has none."""
    if not settings.gradient_every:
        return
    wanted = f"gradient_every is {settings.gradient_every}, but"
    error = without_jacobians(task)
    if error is not None:
        raise InputError(
            f"{wanted} the simulator of {task.name} gives no Jacobians, and so no true gradient "
            f"to measure against ({error}): leave it out"
        ) from error
    paths = algorithm.source.steps // max(algorithm.horizons[0], 1)
    if algorithm.loss.paths and paths * settings.agents < FEWEST:
        raise InputError(
            f"{wanted} {algorithm.name} is measured on its newest paths, which are {paths} of each "
            f"of the {settings.agents} agents: take agents={FEWEST} or more, or leave it out"
        )


def measured_terms(algorithm: Algorithm, settings: Settings) -> tuple[Term, ...]:
    """Those of the row; where it has one horizon, shorter ones before it unless the settings leave
    them out: 0 (the critic alone), and powers of 2."""
    last = algorithm.terms[-1]
    several = len(algorithm.terms) > 1 or algorithm.loss.horizon is not None
    if several or last.horizon == 0 or settings.gradient_horizons == "own":
        return algorithm.terms
    valued = algorithm.critics > 0 and algorithm.target.kind == Q and not algorithm.loss.paths
    shorter = [0] if valued else []
    shorter += [2**k for k in range(last.horizon.bit_length()) if 2**k < last.horizon]
    return (*(replace(last, horizon=n) for n in shorter), last)


def carrying(algorithm: Algorithm, term: Term) -> int:
    """How many actions of a path carry θ."""
    if not term.way.all_actions or term.horizon == 0:
        return 1
    return term.horizon + (algorithm.critics > 0 and algorithm.target.kind == Q)


def samples(algorithm: Algorithm, term: Term) -> int:
    """Independent samples of the gradient that an update averages: rows, or paths of them."""
    steps = max(term.horizon, 1) if algorithm.loss.paths else 1
    return algorithm.batch // steps


def law(algorithm: Algorithm) -> str:
    """The states at which the row's gradient is measured: those that it starts from, in words."""
    if algorithm.loss.paths:
        return "starts of its newest paths, those within one episode"
    if algorithm.source.steps:
        return "states of its newest windows"
    batch = "replayed states"
    if algorithm.source.branching is not None and not isinstance(algorithm.source, TwoStores):
        batch = f"states of its batches ({algorithm.source.name})"
    beta = algorithm.loss.beta if isinstance(algorithm.loss, MixtureLoss) else 1.0
    mixed = f"states ({1 - beta:.0%} starts of the task, the others {batch})"
    return {1.0: batch, 0.0: "starts of the task"}.get(beta, mixed)


def drawn_batches(run: Run) -> Batch:
    """As many rows as are measured, drawn as the row's source draws; on policy, all of them."""
    learner, size = run.learner, run.settings.gradient_starts
    if run.algorithm.source.steps:
        size = run.algorithm.batch
    draws = Draws(learner.seeds, learner.dtype, learner.device, _USE, block=1)
    second = None if run.branches is None else run.branches.replay
    return run.algorithm.source(Stores(run.replay, second, draws, size), run.iteration)


def rows_of(run: Run, seed: int, batches: Batch, like: Tensor) -> tuple[Batch, int]:
    """One seed's rows [1, ·] in the dtype and on the device of `like`, and how many starts.

    The policy has moved on since they were collected: at which noise it acts so is inferred.
    """
    batch = Batch(**{
        name: values[seed : seed + 1].to(like) for name, values in batches.tensors.items()
    })  # fmt: skip
    batch = replace(batch, policy_noise=None)
    if not run.algorithm.loss.paths:
        return batch, batch.state.shape[1]
    steps = run.algorithm.horizons[0]
    batch = unbroken(batch, steps, run.settings.agents)
    return batch, batch.state.shape[1] // steps


def unbroken(batch: Batch, steps: int, agents: int) -> Batch:
    """Paths in which no episode ends or begins, [1, steps · N, ·] step after step.

    Args:
        batch: [1, windows' steps · agents, ·], as it was collected.
    """

    def cut(values: Tensor) -> Tensor:
        """[1, steps, paths, ·]"""
        apart = values.reshape(1, -1, steps, agents, *values.shape[2:])
        return apart.transpose(1, 2).flatten(2, 3)

    state, after, ended = (cut(x) for x in (batch.state, batch.next_state, batch.terminated))
    whole = (after[:, :-1] == state[:, 1:]).all(dim=3) & (ended[:, :-1] < 0.5)
    kept = whole.all(dim=1)[0]
    return Batch(**{
        name: cut(values)[:, :, kept].flatten(1, 2) for name, values in batch.tensors.items()
    })  # fmt: skip


@dataclass(frozen=True, eq=False)
class _StartGradients:
    """states: where the loss began, [N, ds]; gradients: [N, P]; NaN where they left the numbers."""

    states: Tensor
    gradients: Tensor


def start_gradients(
    single: Learner, batch: Batch, term: Term, model: Model | None, draws: Draws, iteration: int
) -> _StartGradients:
    """Of one term at full weight.

    Args:
        single: one seed, in float64.
        batch: [1, N, ·], or [1, horizon · N, ·] step after step where the row follows paths.
        model: what the loss rolls out, or differentiates along recorded transitions.

    A horizon that is adapted is that of the term here.
    """
    paths = single.algorithm.loss.paths
    count = batch.state.shape[1] // (term.horizon if paths else 1)
    copies = single.policy.repeated(count)
    act = _Divided(single.acting.bound(copies), count)
    context = single.context(iteration, draws)
    context = replace(context, act=act, model=model, agents=count, cut=None)
    loss, _ = single.algorithm.loss(context, batch, (term,), np.ones((1, 1)))
    wanted = tuple(map(torch.zeros_like, copies.parameters))
    if loss.requires_grad:  # a reward of states alone has no slope in the last action
        wanted = torch.autograd.grad(loss.sum(), copies.parameters, materialize_grads=True)
    scale = -count / single.settings.reward_scale
    assert act.first is not None
    return _StartGradients(act.first, scale * _flattened(copies, wanted))


def in_trained_weights(single: Learner, gradients: Tensor) -> Tensor:
    """Gradients [N, P] in the weights that act, as gradients in the weights that are trained."""
    trained, acting = single.trained_policy, single.policy
    if acting is trained.raw:
        return gradients
    pulled = torch.autograd.grad(
        acting.parameters, trained.raw.parameters, _divided(acting, gradients),
        retain_graph=True, is_grads_batched=True,
    )  # fmt: skip
    return _flattened(acting, tuple(tensor.squeeze(1) for tensor in pulled))


class _Divided:
    """Acts on [1, N · K, ·] by N copies of the policy, K neighbouring rows each.

    Attributes:
        first: the states [N, ds] of its first call.
    """

    def __init__(self, act: Act, count: int) -> None:
        self.act, self.count = act, count
        self.first: Tensor | None = None

    def __call__(self, state: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        divided = state.view(self.count, -1, state.shape[2])
        if self.first is None:
            self.first = divided[:, 0].detach()
        dealt = None if noise is None else noise.view(self.count, -1, noise.shape[2])
        action, log_prob = self.act(divided, dealt)
        joined = action.view(1, -1, action.shape[2])
        return joined, None if log_prob is None else log_prob.view(1, -1)


def _flattened(network: Network, gradients: tuple[Tensor, ...]) -> Tensor:
    """[M, P] in the order of a module's parameters: each layer's weight [out, in], its bias."""
    depth = len(network.layers.weights)
    weights, biases = gradients[:depth], iter(gradients[depth:])
    parts = []
    for weight, bias in zip(weights, network.layers.biases, strict=True):
        parts.append(weight.mT.flatten(1))
        if bias is not None:
            parts.append(next(biases).flatten(1))
    return torch.cat(parts, dim=1)


def _divided(network: Network, flat: Tensor) -> list[Tensor]:
    """The inverse: [N, P] → [N, 1, in, out] of every weight, then [N, 1, 1, out] of every bias."""
    weights, biases, at = [], [], 0
    for weight, bias in zip(network.layers.weights, network.layers.biases, strict=True):
        wide, narrow = weight.shape[1:]
        block = flat[:, at : at + wide * narrow]
        weights.append(block.view(-1, 1, narrow, wide).mT)
        at += wide * narrow
        if bias is not None:
            biases.append(flat[:, None, None, at : at + narrow])
            at += narrow
    return [*weights, *biases]


QUANTITIES = ("bias2", "variance", "mse", "relative_mse", "cosine")
PARTS = ("bias2_states", "bias2_jacobians", "bias2_tail")
SQUARES = ("gradient2", "truth2", "inner")
ENDS = ("", "_low", "_high")
_DYNAMICS = "dynamics_"
_REASON = "truth_reason"  # of the first seed whose truth is none or imprecise
STATUSES = ("none", "imprecise", "cut", "converged")
TRUTHS = (*STATUSES, "score")
_CHECKED = 10  # measurements to two whose truth is compared with finite differences


_ABOUT = {  # of every error: its unit, and what it is
    "bias2": ("reward^2", "Squared bias of the gradient"),
    "variance": ("reward^2", "Variance of one sample's gradient"),
    "mse": ("reward^2", "MSE of a batch's gradient"),
    "relative_mse": ("1", "Relative MSE of the gradient"),
    "cosine": ("1", "Cosine of the gradient"),
    "bias2_states": ("reward^2", "Squared bias by states"),
    "bias2_jacobians": ("reward^2", "Squared bias by Jacobians"),
    "bias2_tail": ("reward^2", "Squared bias by the tail"),
}
_AGAINST = {"": "against the truth", _DYNAMICS: "against the simulator's"}
_ENDS = {"": "", "_low": ", lower end", "_high": ", upper end"}


def _error_columns(names: Sequence[str], start: str = "") -> dict[str, Column]:
    """Of seed and horizon, each with the two ends of its interval."""
    return {
        f"{start}{name}{end}": Column(
            ("seed", "horizon"), _ABOUT[name][0],
            description=f"{_ABOUT[name][1]}, {_AGAINST[start]}{says}.",
        )
        for name in names for end, says in _ENDS.items()
    }  # fmt: skip


def table(algorithm: Algorithm, settings: Settings, seeds: tuple[int, ...]) -> Table:
    each, truths = ("seed", "horizon"), f"Number in {', '.join(TRUTHS)}."
    schema = _error_columns((*QUANTITIES, *PARTS)) | _error_columns(QUANTITIES, _DYNAMICS)
    schema |= {
        "gradient2": Column(each, "reward^2", description="Squared norm of the gradient."),
        "truth2": Column(each, "reward^2", description="Squared norm of the true gradient."),
        "inner": Column(each, "reward^2", description="Inner product of both."),
        "truth": Column(("seed",), "1", description=truths),
        "truth_steps": Column(("seed",), "steps", description="Steps of the true return."),
        "starts": Column(("seed",), "samples", description="Starts that were measured."),
        "samples": Column(("horizon",), "samples", description="Samples that an update averages."),
        "seconds": Column(unit="s", description="Time of measuring, all seeds together."),
        _REASON: Column((), "1", True, "Why the truth is none or imprecise."),
    }
    horizons = tuple(term.horizon for term in measured_terms(algorithm, settings))
    return Table("iteration", schema, {"seed": seeds, "horizon": horizons})


def row(run: Run) -> dict[str, Any]:
    """One row of the table; NaN for a seed that left the finite numbers."""
    begun, terms = time.monotonic(), measured_terms(run.algorithm, run.settings)
    finite, columns = run.learner.finite(), dict[str, Any]()
    batches = drawn_batches(run)
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
        truth: EarlyTruth | None = None
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
            _REASON: reason(truth.finding) if truth.status in ("none", "imprecise") else "",
        }

    def _gradients(self, term: Term, model: Model | None) -> _StartGradients:
        k, learner = self.run.iteration, self.single
        draws = Draws(learner.seeds, learner.dtype, learner.device, _USE, block=1)
        batch = self.batch
        if self.run.algorithm.loss.paths:
            rows = batch.state.shape[1] // self.run.algorithm.horizons[0] * term.horizon
            batch = Batch(**{name: values[:, :rows] for name, values in batch.tensors.items()})
        starts = start_gradients(learner, batch, term, model, draws, k)
        return replace(starts, gradients=in_trained_weights(learner, starts.gradients))

    def _truth(self, states: Tensor, counts: Sequence[int]) -> EarlyTruth | None:
        run, k = self.run, self.run.iteration
        number = k // max(run.settings.gradient_every, 1)
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
        seed = child(self.single.seeds[0], f"{_USE} {run.iteration}")
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
            return found | {f"{_DYNAMICS}{name}": _NOTHING for name in QUANTITIES}
        assert self.model is not None
        simulator = self.run.task.simulator
        S = _array(self._gradients(term, TrueSteps(simulator, deals(self.model))).gradients)
        M = _array(self._gradients(term, TrueStates(simulator, self.model)).gradients)
        dynamics = _quantities(own, S, count)
        found |= {f"{_DYNAMICS}{name}": ends for name, ends in dynamics}
        return found | dict(_parts(own, M, S, true))


_Interval = tuple[float, float, float]
_NOTHING: _Interval = (np.nan, np.nan, np.nan)


def _quantities(G: Floats, T: Floats | None, batch: int) -> Iterator[tuple[str, _Interval]]:
    finite = np.isfinite(G).all() and (T is None or np.isfinite(T).all())
    with np.errstate(over="ignore", invalid="ignore"):
        known = _moments_of(G, T, batch) if finite else {}
    for name in QUANTITIES:
        estimate = known.get(name)
        yield name, _NOTHING if estimate is None else ends(name, estimate)


def _moments_of(G: Floats, T: Floats | None, batch: int) -> Mapping[str, Estimate]:
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
