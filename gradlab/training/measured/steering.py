"""Steering: what is followed, for how long, or nothing, as returns on the simulator say.

    rehearse   each horizon's updates are made ahead, critic and model frozen; the policy after 1, 5
               or 25 of them with the highest return is adopted, or the present one held
    accept     a policy that is lower than the last one accepted is taken back: half the step, the
               next horizon; else steps grow by 1.3 up to the rule's

Discounted returns of deterministic actions from the same few fresh starts on the same noise. The
optimiser counts every rehearsal as adopted, so that a seed does not depend on the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.storage.journal_tables import Column, Table
from gradlab.training.algorithm import Algorithm
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner
from gradlab.training.members import Network
from gradlab.training.models.seed_models import model_step
from gradlab.training.parts.context import FixedWeights, MeasuredWeights, Steer, Steered
from gradlab.training.parts.critics import Q
from gradlab.training.parts.policy_losses import FromStarts, MixtureLoss, Term
from gradlab.training.parts.targets import within
from gradlab.training.state import Run, Steering
from gradlab.training.trained import under
from gradlab.truth.oracles import effective_horizon

LENGTHS = (1, 5, 25)  # updates after which a rehearsed policy may be adopted
HORIZONS = (0, 1, 5, 25)  # of the candidates, up to the row's longest
STARTS = 16
LEFT = 0.1  # γᵀ beyond a judged return
_COMPARED = 5  # updates of the policy between two comparisons
SHORTER, LONGER, SHORTEST = 0.5, 1.3, 2.0**-10  # of the step
_SEED = ("seed",)


def steered(algorithm: Algorithm, steer: Steer | None, every: int | None = None) -> Algorithm:
    """The row with the horizons that are tried, and with decisions in the place of its weights.

    Args:
        every: iterations between two decisions; None: as many as 25 updates of the policy take to
            rehearse, or 5 to accept.
    """
    if steer is None:
        return algorithm
    validation.word("steer", steer, ("rehearse", "accept"))
    if isinstance(algorithm.weights, MeasuredWeights):
        raise InputError("steer and measured weights both choose what is followed: take one")
    if not isinstance(algorithm.loss, MixtureLoss | FromStarts) or algorithm.source.steps:
        raise InputError(
            f"steer is {steer!r}, but {algorithm.name} does not follow n-step returns from replay: "
            f"take mpg-v1, mpg-v2, mpg-general, n-step-dpg, n-step-adp, td3 or sac"
        )
    own = algorithm.horizons
    least = 0 if algorithm.critics and algorithm.target.kind == Q else 1
    wanted = sorted({*own, *(n for n in HORIZONS if least <= n <= max(own))})
    kind = max(algorithm.terms, key=lambda term: term.horizon).actions
    terms = tuple(
        algorithm.terms[own.index(n)] if n in own else Term(n, kind if n else "first")
        for n in wanted
    )
    updates = LENGTHS[-1] if steer == "rehearse" else _COMPARED
    chosen = updates * algorithm.delay if every is None else every
    validation.whole("steer_every", chosen, 1)
    rule = Steered(steer, chosen, algorithm.weights, own)  # type: ignore[arg-type]
    if isinstance(algorithm.weights, FixedWeights):
        algorithm.weights(0, own)
    return replace(algorithm, terms=terms, weights=rule)


def tables(algorithm: Algorithm, seeds: tuple[int, ...]) -> dict[str, Table]:
    """What is written at every decision."""
    if not isinstance(algorithm.weights, Steered):
        return {}
    columns = {
        "candidate": Column(_SEED, "horizon that was tried, or is followed; -1: the rule's"),
        "updates": Column(_SEED, "of the policy, since the decision before"),
        "held": Column(_SEED, "1: the policy is as it was before"),
        "change": Column(_SEED, "return, against the policy before"),
        "change_se": Column(_SEED, "return"),
        "step": Column(_SEED, "share of the rule's"),
        "seconds": Column(unit="s, all seeds"),
    }
    return {"steering": Table("iteration", columns, {"seed": seeds})}


def due(run: Run) -> bool:
    """Whether a decision is due before this iteration."""
    weights, k = run.algorithm.weights, run.iteration
    if not isinstance(weights, Steered):
        return False
    if run.dynamics is not None and not run.dynamics.fitted:
        return False
    return k > 0 and k % weights.every == 0


def row(run: Run) -> dict[str, Any]:
    """Decide for every seed, and record what was decided."""
    begin = time.monotonic()
    watch, run.learner.watch = run.learner.watch, None  # the probe watches updates alone
    assert isinstance(run.algorithm.weights, Steered)
    columns = _rehearsed(run) if run.algorithm.weights.by == "rehearse" else _compared(run)
    run.learner.watch = watch
    return {"iteration": run.iteration, **columns, "seconds": time.monotonic() - begin}


def _rehearsed(run: Run) -> dict[str, Any]:
    """Adopts the best length of the best horizon, or holds, seed by seed."""
    learner, k = run.learner, run.iteration
    trained, terms, E = learner.trained_policy, run.algorithm.terms, len(run.learner.seeds)
    learner.set_rates(k)
    shown = trained.gradients, trained.norms
    draws = Draws(learner.seeds, learner.dtype, learner.device, "steering", block=1)
    before, base = _policy(learner), learner.policy.copied()
    tried: list[tuple[int, int]] = []
    states, networks = [], [base]
    for place, term in enumerate(terms):
        if term.horizon and learner.model is None:
            continue
        weights = np.tile(np.eye(len(terms))[place], (E, 1))
        for u in range(LENGTHS[-1]):
            number = k * LENGTHS[-1] + u
            loss, _ = learner.policy_loss(number, run.drawn(draws, number), weights, draws)
            trained.step(loss.sum())
            if u + 1 in LENGTHS:
                tried.append((place, u + 1))
                states.append(_policy(learner))
                networks.append(learner.policy.copied())
        trained.load("policy", before)
    trained.gradients, trained.norms = shown
    returns = _returns(run, networks)
    change = (returns[1:] - returns[0]).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    mean, best = change.mean(dim=2).max(dim=0)
    held = ~(mean > 0)
    merged = _merged([before, *states], torch.where(held, 0, best + 1))
    steps = {name: before[name] + LENGTHS[-1] for name in before if name.endswith(".step")}
    trained.load("policy", merged | steps)
    picked = [tried[int(each)] for each in best]
    for seed, (place, _) in enumerate(picked):
        if not held[seed]:
            run.steering.candidate[seed] = place
            learner.in_force[seed] = np.eye(len(terms))[place]
    own = change[best, torch.arange(E)]
    return {
        "candidate": np.array([terms[place].horizon for place, _ in picked], dtype=np.float64),
        "updates": np.array([length for _, length in picked]) * ~held.numpy(),
        "held": held.numpy().astype(np.float64),
        "change": own.mean(dim=1).numpy(),
        "change_se": (own.std(dim=1) / STARTS**0.5).numpy(),
        "step": np.ones(E),
    }


def _compared(run: Run) -> dict[str, Any]:
    """Accepts the present policy, or goes back to the last one accepted, seed by seed."""
    learner, steering, terms = run.learner, run.steering, run.algorithm.terms
    trained, E = learner.trained_policy, len(run.learner.seeds)
    present, network = _policy(learner), learner.policy.copied()
    if not steering.accepted:  # the first policy is accepted as it is
        steering.accepted = present
    trained.load("policy", steering.accepted)
    returns = _returns(run, [learner.policy.copied(), network])
    change = (returns[1] - returns[0]).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    lower = change.mean(dim=1) < 0
    kept = _merged([present, steering.accepted], lower.long())
    steps = {name: present[name] for name in present if name.endswith(".step")}
    trained.load("policy", kept | steps)
    steering.accepted = _policy(learner)
    share = torch.ones(E) if trained.share is None else trained.share
    shorter, longer = (share * SHORTER).clamp_min(SHORTEST), (share * LONGER).clamp_max(1.0)
    trained.share = torch.where(lower, shorter, longer).to(share)
    followed = steering.candidate.copy()
    for seed in np.flatnonzero(lower.numpy()):
        steering.candidate[seed] = (steering.candidate[seed] + 1) % len(terms)
        learner.in_force[seed] = np.eye(len(terms))[steering.candidate[seed]]
    horizons = np.array([-1, *(term.horizon for term in terms)], dtype=np.float64)
    assert isinstance(run.algorithm.weights, Steered)
    made = run.algorithm.weights.every / run.algorithm.delay
    return {
        "candidate": horizons[followed + 1],
        "updates": np.where(lower.numpy(), 0.0, made),
        "held": lower.numpy().astype(np.float64),
        "change": change.mean(dim=1).numpy(),
        "change_se": (change.std(dim=1) / STARTS**0.5).numpy(),
        "step": trained.share.numpy().astype(np.float64),
    }


def state(run: Run) -> dict[str, Tensor]:
    """What the next decision and the weights in force depend on, for `load`."""
    if not isinstance(run.algorithm.weights, Steered):
        return {}
    steering, share = run.steering, run.learner.trained_policy.share
    return {
        "candidate": torch.from_numpy(steering.candidate.copy()),
        "in_force": torch.from_numpy(run.learner.in_force.copy()),
        **({} if share is None else {"share": share}),
        **{f"accepted.{name}": tensor for name, tensor in steering.accepted.items()},
    }


def load(run: Run, saved: Mapping[str, Tensor]) -> None:
    if not isinstance(run.algorithm.weights, Steered):
        return
    if saved["in_force"].shape != run.learner.in_force.shape:
        raise InputError("saved weights are of other horizons")
    run.learner.in_force = saved["in_force"].numpy().copy()
    if "share" in saved:
        run.learner.trained_policy.share = saved["share"].clone()
    accepted = {name: tensor.clone() for name, tensor in under(saved, "accepted.").items()}
    run.steering = Steering(saved["candidate"].numpy().copy(), accepted)


def _policy(learner: Learner) -> dict[str, Tensor]:
    """The policies of all seeds with their optimiser, in memory of their own."""
    state = learner.trained_policy.state("policy")
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _merged(states: Sequence[Mapping[str, Tensor]], choice: Tensor) -> dict[str, Tensor]:
    """Of every seed the state of its choice [E]; entries that seeds share are of the first."""
    seeds = torch.arange(len(choice))
    return {
        name: torch.stack([each[name] for each in states])[choice.to(first.device), seeds]
        if first.ndim
        else first
        for name, first in states[0].items()
    }


@torch.no_grad()
def _returns(run: Run, networks: Sequence[Network]) -> Tensor:
    """Discounted returns [networks, E, STARTS] of every seed's policies, from the seed's own fresh
    starts, the same for all of them."""
    learner, task, settings, k = run.learner, run.task, run.settings, run.iteration
    M, seeds, discount = len(networks), learner.seeds, run.task.discount
    act = partial(learner.acting.act, _joined(networks))
    drawn = [task.starts(STARTS, stream(seed, "steering starts", k)).double() for seed in seeds]
    state = torch.stack(drawn).repeat(M, 1, 1)
    total, alive = torch.zeros_like(state[..., 0]), torch.ones_like(state[..., 0])
    limit = None if task.action_limit is None else torch.tensor(task.action_limit).double()
    steps = settings.episode if discount >= 1 else effective_horizon(discount, LEFT)
    for t in range(min(steps, settings.episode)):
        wanted = act(state.to(learner.device, learner.dtype)).double().cpu()
        action, noise = within(wanted.nan_to_num(), limit), None
        if task.simulator.noise_dim:
            here = [stream(seed, f"steering noise {k}", t) for seed in seeds]
            each = [task.simulator.sample_noise(STARTS, generator) for generator in here]
            noise = torch.stack(each).double().repeat(M, 1, 1)
        state, reward, on = model_step(task.simulator, state, action, noise)
        reward = torch.where(wanted.isfinite().all(dim=2), reward, torch.nan)
        total += discount**t * torch.where(alive > 0, reward, 0.0)
        if learner.objective.masked:
            alive = alive * on
            if not alive.any():
                break
    return total.view(M, len(seeds), STARTS)


def _joined(networks: Sequence[Network]) -> Network:
    """The members of all of them side by side."""
    layers = [network.layers for network in networks]
    first = layers[0]
    biases = tuple(
        None if bias is None else torch.cat([each.biases[k] for each in layers])  # type: ignore[misc]
        for k, bias in enumerate(first.biases)
    )
    weights = tuple(
        torch.cat([each.weights[k] for each in layers]) for k in range(len(first.weights))
    )
    return replace(networks[0], layers=replace(first, weights=weights, biases=biases))
