"""An estimator with the truth in the place of some of its parts, to find where its error is made.

    states     s_0 … s_n are the simulator's
    A, B       ∂f/∂s, ∂f/∂a are the simulator's;   reward: r_s, r_a are
    critic_s   ∇_s Q at s_n is the true one, ∇_s Q^π = r_s + γ Aᵀ p,   p = ∇_s Q^π + Kᵀ ∇_a Q^π
    critic_a   ∇_a Q at s_n is the true one, ∇_a Q^π = r_a + γ Bᵀ p

With none replaced this is the estimator, with all the truth. All 64 sets share two paths and four
linearizations. A difference of two gradients splits over blocks, entries and steps without a rest:

    g(X) − g(Y) = Σ_t γᵗ [γ p_{t+1}ᵀ (ΔA D + ΔB E) + Δr_sᵀ D + Δr_aᵀ E + λ_tᵀ ΔK D]_t + tail
    D_0 = 0, E_0 = I, E_t = K_t D_t, D_{t+1} = A_t D_t + B_t E_t   of X,    p, λ of Y

(a telescoping sum; the mean over both orders is taken).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gradlab.data.trajectories import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator, augmenting, checked, first_horizon, with_entropy
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import (
    TailGradient,
    Trajectory,
    action_gradients,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.setting import Setting, Starts, by_group, group_sums, grouping
from gradlab.statistics.moments import Estimate, PairSums
from gradlab.statistics.shapley import Game, estimates, squared_norms, without
from gradlab.systems.system import Recorded, System

CAUSES = ("states", "A", "B", "reward", "critic_s", "critic_a")
MOST_HORIZONS = 8  # each is an unrolling of the simulator
_SETS = 16  # of action gradients multiplied at once


@dataclass(frozen=True)
class _Parts:
    """What a first-action gradient is a function of, along one path."""

    linear: Trajectory
    tail: TailGradient


@dataclass(frozen=True)
class Substitutions:
    """Both sides of every part, on both sides' states.

    Attributes:
        along: (estimator's parts, truth's parts) on the estimator's states, then on the truth's.
        truth: the truth's action gradients, [N, da].
        jacobian: ∂π/∂θ at the starts; starts: their weights and groups.
    """

    horizons: tuple[int, ...]
    discount: float
    along: tuple[tuple[_Parts, _Parts], tuple[_Parts, _Parts]]
    truth: Tensor
    jacobian: PolicyJacobian
    starts: Starts

    def parts(self, causes: Collection[str]) -> _Parts:
        """The estimator's parts with the truth's in the place of `causes`."""
        sides = self.along["states" in causes]
        A, B, reward, q_s, q_a = (sides[cause in causes] for cause in CAUSES[1:])
        linear = replace(
            sides[0].linear,
            A=A.linear.A,
            B=B.linear.B,
            r_s=reward.linear.r_s,
            r_a=reward.linear.r_a,
        )
        return _Parts(linear, TailGradient(q_s.tail.q_s, q_a.tail.q_a))

    def action_gradients(self, causes: Collection[str]) -> Tensor:
        """g_n at each horizon, [K, N, da], weights not included."""
        parts = self.parts(causes)
        return action_gradients(parts.linear, parts.tail, self.discount)[list(self.horizons)]

    def gradients(self, causes: Collection[str]) -> Tensor:
        """Per-sample gradients in θ at each horizon, [K, N, P], weights included."""
        g = self.action_gradients(causes) * self.starts.weight[:, None]
        return torch.stack([self.jacobian.gradients(g_n[None]) for g_n in g])

    @cached_property
    def errors(self) -> Tensor:
        """Action gradients less the truth's of all sets as bit masks, [64, K, N, da], weighted."""
        gradients = torch.stack([self.action_gradients(named(S)) for S in range(2 ** len(CAUSES))])
        return (gradients - self.truth) * self.starts.weight[:, None]


def named(mask: int) -> frozenset[str]:
    """The causes of a bit mask: the k-th of `CAUSES` is bit k."""
    return frozenset(cause for k, cause in enumerate(CAUSES) if mask >> k & 1)


def substitutions(estimator: Estimator, setting: Setting, horizons: Sequence[int]) -> Substitutions:
    """Everything that the substitutions into one estimator need.

    Args:
        setting: with the truth's T, `Truth.horizon`, as its horizon; on the estimator's states n
            steps fewer are left.
        horizons: at most 8; the estimator's own horizon is not used.

    Raises:
        InputError: an estimator other than a rolled-out one with actions "first", or horizons
            that it does not have or that are longer than the truth.
    """
    begin = checked(estimator, setting.policy, setting.starts, setting.termination)
    _check(estimator, horizons, setting.horizon)
    augment = augmenting(estimator.entropy) if estimator.entropy else None
    estimator, policy = with_entropy(estimator, setting.policy, augment)
    simulator = setting.simulator if augment is None else augment(setting.simulator)
    setting = replace(setting, simulator=simulator, policy=policy, starts=begin)
    world = _World(estimator, setting)
    whole = world.unrolled(begin, 0, setting.horizon)
    ideal = _true_tail(whole, estimator.tail.discount)
    H = max(horizons)
    true_path, true_K = whole.path.cut(H), whole.K[: H + 1]
    path, K = true_path, true_K
    if estimator.states is not simulator:
        path, K = rollout_with_jacobians(estimator.states, policy, begin, H, setting.seed)
    there = world.continued(path, horizons, ideal)
    here = TailGradient(ideal.q_s[: H + 1], ideal.q_a[: H + 1])
    noise = begin.policy_noise(policy, setting.seed, 0)
    return Substitutions(
        horizons=tuple(horizons),
        discount=estimator.tail.discount,
        along=(
            world.both(estimator.states, path, K, there),
            world.both(simulator, true_path, true_K, here),
        ),
        truth=ideal.q_a[0],
        jacobian=policy_jacobian(policy, begin.states, noise),
        starts=begin,
    )


def _check(estimator: Estimator, horizons: Sequence[int], steps: int) -> None:
    if estimator.way.all_actions or isinstance(estimator.states, Recorded):
        raise InputError(
            f"estimator has actions {estimator.actions!r} and states "
            f"{type(estimator.states).__name__}: attribution needs actions 'first' and states "
            f"that are rolled out from the starts"
        )
    least = first_horizon(estimator)
    most = steps if estimator.jacobians is not None else 0
    wrong = [n for n in horizons if not least <= n <= most]
    if wrong or not 1 <= len(horizons) <= MOST_HORIZONS or steps < 1:
        raise InputError(
            f"horizons is {list(horizons)}, expected 1 to {MOST_HORIZONS} of {least} … {most}"
        )


@dataclass(frozen=True)
class _World:
    """What all rollouts have in common."""

    estimator: Estimator
    setting: Setting

    def unrolled(
        self, starts: Starts, first: int, steps: int, alive: Tensor | None = None
    ) -> Trajectory:
        """The simulator from step `first` on, on the noise of the truth."""
        here = self.setting
        path, K = rollout_with_jacobians(
            here.simulator, here.policy, starts, steps, here.seed, first
        )
        if alive is not None:
            path = replace(path, alive=path.alive & alive)
        return linearize_path(path, here.simulator, K, path.dynamics_noise, here.termination)

    def continued(self, path: Path, horizons: Sequence[int], ideal: TailGradient) -> TailGradient:
        """∇Q^π at the horizons of a path, 0 elsewhere; `ideal` is that of the truth's path."""
        q_s, q_a = torch.zeros_like(path.states), torch.zeros_like(path.actions)
        simulated = self.estimator.states is self.setting.simulator
        for n in horizons:
            at, tail = n, ideal
            if n > 0 and not simulated:
                starts = replace(self.setting.starts, states=path.states[n], path=None)
                more = self.unrolled(starts, n, self.setting.horizon - n, path.alive[n])
                at, tail = 0, _true_tail(more, self.estimator.tail.discount)
            q_s[n], q_a[n] = tail.q_s[at], tail.q_a[at]
        return TailGradient(q_s, q_a)

    def both(
        self, states: System, path: Path, K: Tensor, ideal: TailGradient
    ) -> tuple[_Parts, _Parts]:
        """The estimator's parts and the truth's, along one path."""
        tail, model = self.estimator.tail, self.estimator.jacobians
        model = states if model is None else model
        if tail.value == "V":  # which has no θ, and no action: q_s is all of it
            closed = ideal.q_s + torch.einsum("hnas,hna->hns", K, ideal.q_a)
            ideal = TailGradient(closed, torch.zeros_like(ideal.q_a))
        simulator = self.setting.simulator
        true = self._linear(states, simulator, path, K)
        modelled = true if model is simulator else self._linear(states, model, path, K)
        learned = tail_gradient(path, tail.critic, tail.value, self.setting.termination)
        return _Parts(modelled, learned), _Parts(true, ideal)

    def _linear(self, states: System, model: System, path: Path, K: Tensor) -> Trajectory:
        noise = jacobian_noise(states, model, path)
        return linearize_path(path, model, K, noise, self.setting.termination)


def _true_tail(linear: Trajectory, discount: float) -> TailGradient:
    """∇_s Q^π [T + 1, N, ds] and ∇_a Q^π [T + 1, N, da] along the simulator's path of T steps."""
    q_s, q_a = torch.zeros_like(linear.path.states), torch.zeros_like(linear.path.actions)
    p = torch.zeros_like(q_s[0])
    for t in reversed(range(linear.path.horizon)):
        q_s[t] = linear.r_s[t] + discount * torch.einsum("nij,ni->nj", linear.A[t], p)
        q_a[t] = linear.r_a[t] + discount * torch.einsum("nia,ni->na", linear.B[t], p)
        p = q_s[t] + torch.einsum("nas,na->ns", linear.K[t], q_a[t])
    return TailGradient(q_s, q_a)


def squared_bias_games(substituted: Substitutions) -> list[Game]:
    """The squared bias of every set, at each horizon, without forming a gradient in θ."""
    label, size = grouping(substituted.starts)
    games = []
    for Y in substituted.errors.unbind(dim=1):
        total, within = products(substituted, Y)
        games.append(squared_norms(CAUSES, pair_sums(Y, total, within, Y, total, label), size))
    return games


def pair_sums(
    X: Tensor, total_z: Tensor, within_z: Tensor, Z: Tensor, total_x: Tensor, label: Tensor
) -> PairSums:
    """Pair sums of X with Z from Θ Z (over everybody, over one's group) and Θ X, [K, G] each."""
    own, left, right = (
        by_group((a * b).sum(dim=2), label) for a, b in ((X, within_z), (X, total_z), (Z, total_x))
    )
    return PairSums(own, left, right)


def products(substituted: Substitutions, g: Tensor) -> tuple[Tensor, Tensor]:
    """J_i Σ_j J_jᵀ g_j over all samples, and over those of one's own group, [K, N, da] each; g'_i
    times them are inner products of G'_i with sums of G."""
    jacobian, (label, size) = substituted.jacobian, grouping(substituted.starts)
    total = torch.cat([jacobian @ (jacobian.T @ part) for part in torch.split(g, _SETS)])
    if len(size) == len(label):
        return total, torch.einsum("nab,knb->kna", jacobian.gram(), g)
    sums = (group_sums(jacobian.gradients(each[None]), label)[label] for each in g)
    return total, torch.stack([jacobian.along_own(each)[0] for each in sums])


_BLOCKS = {
    "states": ("A", "B", "r_s", "r_a", "K", "q_s", "q_a"),
    "A": ("A",),
    "B": ("B",),
    "reward": ("r_s", "r_a"),
    "critic_s": ("q_s",),
    "critic_a": ("q_a",),
}
ENTRIES = 1 << 24  # action gradients held at once
_SIDES = ("own", "left", "right")


@dataclass(frozen=True)
class _Detail:
    """One cause's share, split over entries of its blocks and over steps; each sums to the share.

    Attributes:
        labels: (block, output, input) of each entry; the output of a gradient is 0.
        entries: their shares, all steps together.
        steps: shares of steps 0 … n, all entries together.
    """

    labels: tuple[tuple[str, int, int], ...]
    entries: tuple[Estimate, ...]
    steps: tuple[Estimate, ...]


def detail(substituted: Substitutions, cause: str, horizon: int) -> _Detail:
    """Where in a cause its share comes from."""
    if cause not in CAUSES or horizon not in substituted.horizons:
        raise InputError(
            f"cause is {cause!r} and horizon {horizon}, expected one of {CAUSES} and of "
            f"{substituted.horizons}"
        )
    label, size = grouping(substituted.starts)
    sums: list[PairSums] = []
    batch: list[tuple[float, Tensor]] = []
    labels: tuple[tuple[str, int, int], ...] = ()
    player = CAUSES.index(cause)
    for S, weight in without(len(CAUSES), player):
        labels, rows = _rows(substituted, S, player, horizon)
        batch.append((weight, rows))
        if len(batch) * rows.numel() >= ENTRIES:
            sums += _split_sums(substituted, batch, label)
            batch = []
    sums += _split_sums(substituted, batch, label) if batch else []
    total = PairSums(*(np.sum([getattr(s, x) for s in sums], axis=0) for x in _SIDES))
    every = estimates(total, size)
    return _Detail(labels, tuple(every[: len(labels)]), tuple(every[len(labels) :]))


def _rows(
    substituted: Substitutions, S: int, player: int, horizon: int
) -> tuple[tuple[tuple[str, int, int], ...], Tensor]:
    """Y_S + Y_{S∪i}, then the split of Y_S − Y_{S∪i} over entries and steps, [1 + E, N, da]."""
    k = substituted.horizons.index(horizon)
    joined = S | 1 << player
    x, y = substituted.parts(named(S)), substituted.parts(named(joined))
    entries: dict[str, Tensor] = {}
    steps = [torch.zeros_like(substituted.truth) for _ in range(horizon + 1)]
    for block, t, piece in split(x, y, horizon, substituted.discount, _BLOCKS[CAUSES[player]]):
        entries[block] = entries[block] + piece if block in entries else piece
        steps[t] = steps[t] + piece.sum(dim=(0, 1))
    labels = tuple(
        (b, i, j) for b, e in entries.items() for i in range(len(e)) for j in range(e.shape[1])
    )
    flat = [e.flatten(0, 1) for e in entries.values()]
    both = substituted.errors[S, k] + substituted.errors[joined, k]
    pieces = torch.cat([*flat, torch.stack(steps)]) * substituted.starts.weight[:, None]
    return labels, torch.cat([both[None], pieces])


def _split_sums(
    substituted: Substitutions, batch: list[tuple[float, Tensor]], label: Tensor
) -> Iterator[PairSums]:
    """w_S times the pair sums of each split with its Y_S + Y_{S∪i}; Θ is formed once."""
    total, within = products(substituted, torch.cat([rows for _, rows in batch]))
    size = len(batch[0][1])
    for k, (weight, rows) in enumerate(batch):
        all_of_it, of_group = (whole[k * size : (k + 1) * size] for whole in (total, within))
        sums = pair_sums(rows[1:], all_of_it[:1], of_group[:1], rows[:1], all_of_it[1:], label)
        yield PairSums(weight * sums.own, weight * sums.left, weight * sums.right)


def split(
    x: _Parts, y: _Parts, n: int, discount: float, blocks: Collection[str] = _BLOCKS["states"]
) -> Iterator[tuple[str, int, Tensor]]:
    """(block, step, [rows, columns, N, da]): pieces whose sum is g_n(x) − g_n(y).

    Args:
        blocks: those in which x and y differ; the others' pieces are 0, and left out.
    """
    for before, after in ((x, y), (y, x)):
        D, E = _sensitivities(before.linear, n)
        p, costate = _costates(after, n, discount)
        for t in range(n + 1):
            scale = 0.5 * discount**t
            for block, worth, moved in _sources(t, n, D[t], E[t], p, costate[t], discount):
                if block in blocks:
                    delta = _at(x, block, t) - _at(y, block, t)
                    yield block, t, scale * torch.einsum("ni,nij,nja->ijna", worth, delta, moved)


def _sources(
    t: int, n: int, D: Tensor, E: Tensor, p: Tensor, costate: Tensor, discount: float
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each block of step t with what its output is worth and how its input has moved."""
    one = torch.ones_like(costate[:, :1])
    if t < n:
        ahead = discount * p[t + 1]
        yield from (("A", ahead, D), ("B", ahead, E), ("r_s", one, D), ("r_a", one, E))
    else:
        yield from (("q_s", one, D), ("q_a", one, E))
    yield "K", costate, D


def _at(parts: _Parts, block: str, t: int) -> Tensor:
    """[N, rows, columns] of one block at one step; gradients are rows."""
    values: Tensor = getattr(parts.tail if block in ("q_s", "q_a") else parts.linear, block)[t]
    return values if values.ndim == 3 else values[:, None]


def _sensitivities(linear: Trajectory, n: int) -> tuple[Tensor, Tensor]:
    """D_t = ∂s_t/∂a_0 and E_t = ∂a_t/∂a_0 for t = 0 … n, [n + 1, N, ·, da]."""
    samples, ds = linear.path.states.shape[1:]
    da = linear.path.actions.shape[2]
    new = linear.path.states.new_zeros
    D, E = [new(samples, ds, da)], [torch.eye(da).to(new(0)).expand(samples, -1, -1)]
    for t in range(n):
        D.append(linear.A[t] @ D[t] + linear.B[t] @ E[t])
        E.append(linear.K[t + 1] @ D[t + 1])
    return torch.stack(D), torch.stack(E)


def _costates(parts: _Parts, n: int, discount: float) -> tuple[Tensor, Tensor]:
    """p_t and λ_t, what s_t and a_t are worth at step t, for t = 0 … n."""
    linear, tail = parts.linear, parts.tail
    costate = [tail.q_a[n]]
    p = [tail.q_s[n] + torch.einsum("nas,na->ns", linear.K[n], costate[0])]
    for t in reversed(range(n)):
        ahead = discount * p[-1]
        costate.append(linear.r_a[t] + torch.einsum("nia,ni->na", linear.B[t], ahead))
        open_loop = linear.r_s[t] + torch.einsum("nij,ni->nj", linear.A[t], ahead)
        p.append(open_loop + torch.einsum("nas,na->ns", linear.K[t], costate[-1]))
    return torch.stack(p[::-1]), torch.stack(costate[::-1])
