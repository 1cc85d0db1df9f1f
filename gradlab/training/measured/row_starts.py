"""Starts at which a row's own gradient is measured: those that its policy loss starts from.

batches   rows as the source draws them, with draws apart from training's
paths     of the newest windows where the loss follows paths; those in which an episode ends or
          begins are left out, so that each is one path from one start
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.training.algorithms import Algorithm
from gradlab.training.draws import Draws
from gradlab.training.parts.critics import Q
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.sources import Stores, TwoStores
from gradlab.training.state import Run

USE = "measured gradient"  # of the draws
FEWEST = 4  # starts whose moments have intervals


def measured_terms(algorithm: Algorithm) -> tuple[Term, ...]:
    """Those of the row; where it has one horizon, shorter ones before it: 0 (the critic alone),
    and powers of 2."""
    last = algorithm.terms[-1]
    if len(algorithm.terms) > 1 or algorithm.loss.horizon is not None or last.horizon == 0:
        return algorithm.terms
    valued = algorithm.critics > 0 and algorithm.target.kind == Q and not algorithm.loss.paths
    shorter = [0] if valued else []
    shorter += [2**k for k in range(last.horizon.bit_length()) if 2**k < last.horizon]
    return (*(replace(last, horizon=n) for n in shorter), last)


def carrying(algorithm: Algorithm, term: Term) -> int:
    """How many actions of a path carry θ."""
    if not term.way.every or term.horizon == 0:
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
    if not isinstance(algorithm.loss, FromStarts) or algorithm.loss.share == 0:
        return batch
    if algorithm.loss.share == 1:
        return "starts of the task"
    return f"states ({algorithm.loss.share:.0%} starts of the task, the others {batch})"


def batches(run: Run) -> Batch:
    """As many rows as are measured, drawn as the row's source draws; on policy, all of them."""
    learner, size = run.learner, run.settings.gradient_starts
    if run.algorithm.source.steps:
        size = run.algorithm.batch
    draws = Draws(learner.seeds, learner.dtype, learner.device, USE, block=1)
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
