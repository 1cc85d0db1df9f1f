"""Premises of a decision: what must hold before a gain or a horizon means something.

    reward   returns differ from state to state: else the true gradient is exactly 0
    policy   moving θ moves them beyond rounding, and so does the true gradient
    critic   Q(s, π(s)) is of the size of the returns measured from s on, and rises with them
    states   where gradients are taken: alive ones, which learned models have seen

Returns Σ_{t<T} γᵗ r_t, γᵀ = 0.1, are measured from starts and from states at which gradients are
taken, under π and under a copy moved by a tenth of θ on the same noise. What fails is the first
sentence of every page, and nothing is recommended or chosen but steps whose returns were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.checks.jacobians import STATES, CheckContext, sampled
from gradlab.data.trajectories import child, stream
from gradlab.findings import Decision, Finding, within
from gradlab.gradients.setting import Setting, Starts, by_group, group_count, grouping
from gradlab.gradients.start_laws import alive_counts
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.interface import act
from gradlab.networks.mlp import judge
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.over_groups import ratio_of_means
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.systems.system import Entropic, System, by_differences
from gradlab.truth.oracles import AT_MOST, effective_horizon
from gradlab.truth.returns import Rollouts

_LEFT = 0.1  # γᵀ beyond the returns that are measured
MOST, DEAR = 96, 32  # states that they are measured from, and of a simulator that is differenced
_MOVE = 0.1  # of each tensor's size, as θ is moved
_ROUNDING = 1e-11  # of the largest return
SAME_STEP, SAME_JACOBIAN = 1e-9, 1e-6  # relative to the largest entry
_FEWEST = 4  # groups behind an interval
FACTOR = 2.5  # by which a critic's size is decidedly another
_FLAT = 0.25  # rise of the return with the critic, below which the critic does not follow it
_RARE, _OUTWEIGH = 0.02, 0.9  # share of the states, and of the squared returns that it carries
_OFF = 0.25  # of the squared returns: a critic that is nearer than that is of their size

_Floats = NDArray[np.float64]


def premises(context: CheckContext) -> list[Finding]:
    """Those that fail, or that none does; then whether a model is exact."""
    results: list[Finding] = []
    # The entropy of a policy moves its objective, and a soft critic has its share of it.
    if not any(isinstance(each.states, Entropic) for each in context.estimators.values()):
        measured = _measured(context)
        found = _reward(measured, context)
        # Where returns diverge, as without any truth, no critic has their size.
        if found is None and context.truth.status != "none":
            found = _critics(context, measured)
        results.append(found or Finding("premises_hold", "pass"))
    simulator = context.task.simulator
    for name, (system, path) in context.differentiated().items():
        s, a = sampled(path, STATES)
        if system is not simulator and _identical(simulator, system, s, a):
            results.append(Finding("model_exact", "fail", name))
    return results


# States [N], and returns [N] from them under the policy and under the moved one.
_Returns = tuple[Starts, Tensor, Tensor]


def _measured(context: CheckContext) -> _Returns:
    task, begin, at = context.task, context.begin, context.at
    steps = min(effective_horizon(task.discount, _LEFT), AT_MOST)
    most = DEAR if by_differences(task.simulator) else MOST
    some = _some((begin,) if at is begin else (begin, at), most)
    here = context.setting
    setting = Setting(
        task.simulator, here.policy, some, task.discount, steps, here.termination,
        child(here.seed, "premises"),
    )  # fmt: skip
    (returns,) = Rollouts(setting, [(some, [_step(here.policy)])]).until(steps)
    return some, returns[0], returns[1]


def _some(laws: Sequence[Starts], most: int) -> Starts:
    """Rows of each law, spread over all that weigh anything, each of weight 1."""
    parts = []
    for at in laws:
        rows = (at.weight != 0).nonzero().flatten()
        rows = rows[torch.linspace(0, len(rows) - 1, min(most // len(laws), len(rows))).long()]
        parts.append((at.states[rows], at.group[rows]))
    states, group = (torch.cat(part) for part in zip(*parts, strict=True))
    return Starts(states, torch.ones_like(states[:, 0]), group)


def _step(policy: nn.Module) -> Tensor:
    """A random move of every trained parameter by a tenth of its tensor's size."""
    return torch.cat([
        move.flatten() * float(p.requires_grad)
        for p, move in zip(policy.parameters(), random_moves(policy), strict=True)
    ])  # fmt: skip


def random_moves(policy: nn.Module) -> list[Tensor]:
    """Of every parameter by a tenth of its tensor's size."""
    generator = stream(0, "sanity move")
    draws = [(p.data, torch.randn(p.shape, generator=generator)) for p in policy.parameters()]
    return [_MOVE * (x.square().mean().sqrt() + 1e-3) * draw.to(x) for x, draw in draws]


def _reward(measured: _Returns, context: CheckContext) -> Finding | None:
    """Returns that are all the same, or that the policy, maybe fitted here, does not move."""
    truth, fitted = context.truth, getattr(context.setting.policy, "fitted", None) is True
    (_, R, moved), n = measured, len(measured[1])
    finite = torch.isfinite(R) & torch.isfinite(moved)
    references = [reference for reference in (truth.first, truth.every) if reference is not None]
    zero = bool(references) and all(
        reference.norm == 0 == reference.standard_error for reference in references
    )
    if not finite.any():
        return None
    R, moved = R[finite], moved[finite]
    allowed = _ROUNDING * float(torch.maximum(R.abs(), moved.abs()).max())
    if float((moved - R).abs().max()) > allowed:
        return Finding("no_derivative", "fail", n=n) if zero else None
    if len(R) > 1 and float(R.max() - R.min()) <= allowed:
        return Finding("reward_constant", "fail", "", float(R[0]) + 0.0, n=n)
    return Finding("fitted_policy_still" if fitted else "policy_still", "fail", n=n)


def _identical(simulator: System, model: System, s: Tensor, a: Tensor) -> bool:
    if not len(s):
        return False
    with torch.no_grad():
        one, other = (system.step(s, a, None) for system in (simulator, model))
    pairs = (one.state, other.state), (one.reward[:, None], other.reward[:, None])
    if not all(_close(x, y, SAME_STEP) for x, y in pairs):
        return False
    true, guess = (system.linearize(s, a, None) for system in (simulator, model))
    blocks = ("A", "B", "r_s", "r_a")
    return all(_close(getattr(true, k), getattr(guess, k), SAME_JACOBIAN) for k in blocks)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    size = float(torch.maximum(one.abs(), other.abs()).max())
    return float((one - other).abs().max()) <= tolerance * size


def _critics(context: CheckContext, measured: _Returns) -> Finding | None:
    """Each critic's values against the returns that follow them; the first that is off."""
    at, R, _ = measured
    noise = at.policy_noise(context.setting.policy, child(context.setting.seed, "premises"), 0)
    with torch.no_grad():
        a = act(context.setting.policy, at.states, noise)
    critics = {id(e.tail.critic): e.tail for e in context.estimators.values()}
    for tail in critics.values():
        if tail.critic is None:
            continue
        with torch.no_grad():
            Q = judge(tail.critic, tail.value, at.states, a)
        finite = torch.isfinite(R) & torch.isfinite(Q)
        if group_count(at.group[finite]) < _FEWEST:
            continue
        rows = replace(at, states=at.states[finite], weight=at.weight[finite],
                       group=at.group[finite])  # fmt: skip
        label, size = grouping(rows)
        q, r = Q[finite], R[finite]
        sums = by_group(torch.stack([q, r, q * r, q * q, r * r]), label)
        off = _off([sample_mean(sums_of_one, size) for sums_of_one in sums])
        if off is not None:
            few = off.code != "critic_sign" and _outweighed(r)
            return replace(off, code=off.code + "_few" * few, n=len(R))
    return None


def _outweighed(returns: Tensor) -> bool:
    """Do a few rollouts outweigh all others in a fit of a critic?"""
    squares = returns.square().sort(descending=True).values
    few = max(1, int(_RARE * len(squares)))
    return float(squares[:few].sum() / squares.sum()) >= _OUTWEIGH


def _off(means: list[Estimate]) -> Finding | None:
    """How a critic is off, from the means of Q, R, QR, Q² and R²."""
    q, r, qr, qq, rr = means
    ratio = ratio_of_means(q, r)
    # The slope of the return on the critic is 1 for the true one, whatever noise returns have.
    together, own = combine(_covariance, qr, q, r), combine(_covariance, qq, q, q)
    rise = ratio_of_means(together, own)
    follows = rise is not None and rise.low > 1 / FACTOR and rise.high < FACTOR
    apart = ratio is not None and (ratio.high < 1 / FACTOR or ratio.low > FACTOR)
    if ratio is not None and apart and not follows:
        # Before a fit it falls by chance where the return rises.
        falls = rise is not None and rise.high < 0 and ratio.high < 0
        code = "critic_sign" if falls else "critic_size"
        return Finding(code, "fail", "", q.value / r.value, ratio.low, ratio.high)
    error = qq.value - 2 * qr.value + rr.value
    if rise is not None and rise.high < _FLAT and error > _OFF * rr.value:
        slope = together.value / own.value
        return Finding("critic_flat", "fail", "", slope, rise.low, rise.high)
    return None


def _covariance(product: _Floats, one: _Floats, other: _Floats) -> _Floats:
    return np.asarray(product - one * other, dtype=np.float64)


_FAR = 5.0  # standard deviations of the data, beyond which a model has seen nothing
_FEW_ALIVE = 0.1  # share below which most of the measurement is thrown away
_SOME = 0.01  # share of unseen states that a few outliers make


def states(context: CheckContext) -> list[Finding]:
    """Are the states at which first-action gradients are taken alive, and have models seen them?"""
    results, at = [], context.at
    if context.setting.termination == "mask":
        (alive, groups, of), n = alive_counts(at), len(at.states)
        decision: Decision = "fail" if alive < _FEW_ALIVE * n else "pass"
        where, least = f"{groups} of {of}", _FEW_ALIVE * n
        results.append(Finding("states_alive", decision, "", alive, threshold=least, n=n, at=where))
    noise = at.policy_noise(context.setting.policy, context.setting.seed, 0)
    kept = at.weight != 0
    with torch.no_grad():
        action = act(context.setting.policy, at.states[kept], noise[kept])
    x = torch.cat([at.states[kept], action], dim=1)  # as the models are asked for them
    for name, ensemble in _learned(context).items():
        # A fresh ensemble, which knows no data, has mean 0 and deviation 1 in every column.
        untouched = (ensemble.input_mean == 0).all() and (ensemble.input_std == 1).all()
        if not untouched and len(x):
            results.append(_seen(name, ensemble, x, context))
    return results


def _seen(name: str, ensemble: GaussianEnsemble, x: Tensor, context: CheckContext) -> Finding:
    x = x[:, : ensemble.state_dim + ensemble.action_dim]
    mean, std = (
        moment.detach().to(x)[:, 0] for moment in (ensemble.input_mean, ensemble.input_std)
    )
    far = ((x[None] - mean[:, None]) / std[:, None]).abs().amin(dim=0)  # of the nearest member's
    unseen = (far > _FAR).any(dim=1)
    share = float(unseen.double().mean())
    column, ds = int(far.amax(dim=0).argmax()), ensemble.state_dim
    names = context.task.state_names
    known = names[column] if column < len(names) else f"coordinate {column}"
    which = known if column < ds else context.action(column - ds)
    return within("states_seen", share, _SOME, name, n=len(x), at=which)


def _learned(context: CheckContext) -> dict[str, GaussianEnsemble]:
    """Every ensemble that some estimator rolls out or differentiates, each once."""
    ensembles: dict[int, tuple[str, GaussianEnsemble]] = {}
    for system in context.systems():
        for part in _parts(system):
            ensembles.setdefault(id(part.ensemble), (context.name(system), part.ensemble))
    names = [name for name, _ in ensembles.values()]
    return {
        f"{name}, part {k + 1}" if names.count(name) > 1 else name: ensemble
        for k, (name, ensemble) in enumerate(ensembles.values())
    }


def _parts(system: object) -> list[LearnedSystem]:
    if isinstance(system, TwoModels):
        return [*_parts(system.prediction), *_parts(system.gradient)]
    return [system] if isinstance(system, LearnedSystem) else []
