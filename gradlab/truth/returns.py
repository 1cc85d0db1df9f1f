"""Discounted returns of policies that are moved in θ, from the same starts on the same noise.

    J_ki = w_i Σ_{t<T} γᵗ r_t      of start i under the policy at θ + step_k

All policies and starts, of several draws at once, are stepped in one pass, which can go on. No copy
of the policy is made for each: its linear layers multiply the rows of each policy by their own
weights, or, for rows on a line in θ, W x + ℓ U x, two products of all rows. Parameters outside of
linear layers, or layers that are not called on rows, are moved one policy after another; the first
step finds out by comparing actions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, islice
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gradlab.gradients.policy_jacobian import linear_layers, parameter_slices
from gradlab.gradients.setting import Setting, Starts
from gradlab.networks.interface import act, flat_parameters, noise_dim
from gradlab.progress import Progress, silent
from gradlab.systems.system import by_differences, step_running
from gradlab.truth.oracles import perturbed

WIDE = 4096  # parameters of a policy, below which single precision saves nothing
_LOOKED_AT, _HUNDREDTH = 16, 0.01  # starts in both precisions, and what they may differ by
_PAYS = 128  # starts, below which a look at both precisions costs more than it saves
_ROWS = 1024  # of one pass through a policy's layers: what a processor's cache holds
_HELD = 500_000  # parameters of moved policies at once, likewise
_COMPARED = 2  # rows on a line on which layers are compared with moved policies
_CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # of an action, by which they may differ

Acting = Callable[[Tensor, Tensor], Tensor]  # states, noise → actions, of all rows
Draw = tuple[Starts, Sequence[Tensor]]  # starts, and the steps of their policies
_Through = Callable[[nn.Linear, slice, slice | None, Tensor], Tensor]


class Step(NamedTuple):
    """What a step pays with its γᵗ [R], what is alive before and after it [R], rows stepped."""

    paid: Tensor
    before: Tensor
    alive: Tensor
    running: int


def stepped(
    setting: Setting,
    draws: Sequence[tuple[Starts, Tensor]],
    acting: Acting,
    dtype: torch.dtype | None = None,
    rest: bool = True,
) -> Iterator[Step]:
    """Rollouts of chosen rows of starts, each on the noise of its own start, step by step, without
    an end.

    Args:
        acting: of all rows, in the order of the draws.
        dtype: of states and actions; None: that of the starts.
        rest: what has left the finite numbers, or under "mask" has ended, is not stepped, and
            what has ended is not paid.
    """
    policy, system, seed = setting.policy, setting.simulator, setting.seed
    state = torch.cat([starts.states[rows] for starts, rows in draws]).to(dtype)
    masked = rest and setting.termination == "mask"
    alive = torch.ones(len(state), dtype=torch.bool, device=state.device)
    widths = noise_dim(policy), system.noise_dim
    for t in count():
        e, xi = (
            torch.cat([draw(starts)[rows] for starts, rows in draws]).to(state)
            if width
            else state.new_zeros(len(state), 0)
            for width, draw in zip(
                widths,
                (
                    partial(Starts.policy_noise, policy=policy, seed=seed, step=t),
                    partial(Starts.dynamics_noise, system=system, seed=seed, step=t),
                ),
                strict=True,
            )
        )
        with torch.no_grad():
            action = acting(state, e)
            running = torch.isfinite(action).all(dim=1) & torch.isfinite(state).all(dim=1)
            running = running & alive if masked else running
            going = int(running.sum())
            if rest and going < len(running):
                state = torch.where(running[:, None], state, torch.nan)
            out = step_running(system, state, action, xi)
        reward = torch.where(alive, out.reward, 0.0) if masked else out.reward
        before, state, alive = alive, out.state, alive & out.alive
        yield Step(setting.discount**t * reward, before, alive, going)


class Rollouts:
    """Returns at θ and at θ + steps, of several draws of starts, all in one pass.

    Attributes:
        late: by draw what of them the second half of the T steps paid; alive: what is, [1 +
            policies, n]; steps: of the simulator, of all draws.
    """

    def __init__(
        self,
        setting: Setting,
        draws: Sequence[Draw],
        stage: str = "",
        progress: Progress = silent,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._draws, self._stage, self._progress = draws, stage, progress
        sizes = [(1 + len(steps)) * len(starts.states) for starts, steps in draws]
        each = [
            (starts, torch.arange(len(starts.states)).repeat(1 + len(steps)))
            for starts, steps in draws
        ]
        policies = [
            (step, len(starts.states)) for starts, steps in draws for step in (None, *steps)
        ]
        acting = moved(setting.policy, policies, dtype)
        self._stepped = stepped(setting, each, acting, dtype)
        self._sizes, self._done = sizes, 0
        self._total = draws[0][0].states.new_zeros(sum(sizes))
        self.late: list[Tensor] = []
        self.alive: list[Tensor] = []
        self.steps = 0

    def until(self, T: int) -> list[Tensor]:
        """By draw, returns [1 + policies, n] of T steps, weights included and summed in the starts'
        dtype; those of fewer steps asked for before are gone on with."""
        late, alive = torch.zeros_like(self._total), torch.ones_like(self._total).bool()
        for step in islice(self._stepped, T - self._done):
            self._total += step.paid
            late += step.paid if self._done >= T // 2 else 0.0
            alive, self._done = step.alive, self._done + 1
            self.steps += step.running
            self._progress(self._stage, self._done, T)
        weights = [starts.weight for starts, _ in self._draws]
        returns, self.late, self.alive = (
            [x.view(-1, len(w)) for x, w in zip(torch.split(x, self._sizes), weights, strict=True)]
            for x in (self._total, late, alive)
        )
        self.late = [w * x for w, x in zip(weights, self.late, strict=True)]
        return [w * x for w, x in zip(weights, returns, strict=True)]


class PairedReturns:
    """`Rollouts`, in float32 where a wide policy's changes of its return are as good in it: where
    that changes their mean by less than a hundredth of its standard error.

    The first `_LOOKED_AT` starts of each draw show it by their first T steps; of `ways` policies in
    a row, as after more and more updates along one gradient, the first and the last one.

    Attributes:
        late, alive, steps: as of `Rollouts`.
    """

    def __init__(
        self,
        setting: Setting,
        draws: Sequence[tuple[Starts, Tensor | Sequence[Tensor]]],
        stage: str = "",
        progress: Progress = silent,
        ways: int = 1,
    ) -> None:
        self._draws = [(starts, list(steps)) for starts, steps in draws]
        self._ways, self._again = ways, [list[int]() for _ in draws]
        self._begin = partial(Rollouts, setting, stage=stage, progress=progress)
        wide = sum(p.numel() for p in setting.policy.parameters()) >= WIDE
        fewest = min(len(starts.states) for starts, _ in draws)
        self._try = wide and fewest >= _PAYS and not by_differences(setting.simulator)
        self._whole: Rollouts | None = None
        self._exact: Rollouts | None = None
        self.late: list[Tensor] = []
        self.alive: list[Tensor] = []
        self.steps = 0

    def until(self, T: int) -> list[Tensor]:
        """By draw, returns [1 + policies, n] of T steps, no fewer than before."""
        if self._whole is None:
            returns = None
            if self._try:
                with suppress(RuntimeError, TypeError, ValueError):  # of one precision alone
                    returns = self._in_single(T)
            if returns is None:
                self._whole = self._begin(self._draws)
                returns = self._whole.until(T)
        else:
            returns = self._whole.until(T)
        assert self._whole is not None
        self.late, self.alive = self._whole.late, self._whole.alive
        if any(self._again):
            if self._exact is None:
                pairs = zip(self._draws, self._again, strict=True)
                some = [(starts, [steps[k] for k in again]) for (starts, steps), again in pairs]
                self._exact = self._begin(some)
            exact = self._exact.until(T)
            returns = self._joined(returns, exact)
            self.late = self._joined(self.late, self._exact.late)
            for own, again, alive in zip(self.alive, self._again, self._exact.alive, strict=True):
                own[[1 + k for k in again]] = alive[1:]
        parts = (self._whole, self._exact)
        self.steps = self._looked + sum(each.steps for each in parts if each is not None)
        return returns

    _looked = 0  # steps of the starts that were looked at

    def _in_single(self, T: int) -> list[Tensor]:
        """Those in float32; which policies are not as good in it is kept."""
        ends = [0] if self._ways == 1 else [0, self._ways - 1]
        looked = [
            [k + end for k in range(0, len(steps), self._ways) for end in ends]
            for _, steps in self._draws
        ]
        pairs = zip(self._draws, looked, strict=True)
        fine = self._begin([
            (starts.block(slice(0, _LOOKED_AT)), [steps[k] for k in some])
            for (starts, steps), some in pairs
        ])  # fmt: skip
        few = fine.until(T)
        whole = self._begin(self._draws, dtype=torch.float32)
        returns = whole.until(T)
        again = []
        for own, exact, some, (starts, steps) in zip(
            returns, few, looked, self._draws, strict=True
        ):
            single = own[[0, *(1 + k for k in some)], :_LOOKED_AT]
            agree = _agree(exact[1:] - exact[0], single[1:] - single[0], len(starts.states))
            good = agree.view(-1, len(ends)).all(dim=1).repeat_interleave(self._ways)
            again.append([k for k in range(len(steps)) if not good[k]])
        self._whole, self._again, self._looked = whole, again, fine.steps
        return returns

    def _joined(self, single: Sequence[Tensor], exact: Sequence[Tensor]) -> list[Tensor]:
        """Policies of both precisions in their order, each change that of its own precision."""
        joined = []
        for own, again, base in zip(single, self._again, exact, strict=True):
            values = base[:1] + (own - own[:1])
            values[[1 + k for k in again]] = base[1:]
            joined.append(values)
        return joined


def paired_returns(
    setting: Setting,
    starts: Starts,
    steps: Tensor | Sequence[Tensor],
    stage: str = "",
    progress: Progress = silent,
) -> tuple[Tensor, PairedReturns]:
    """`PairedReturns` of one draw of starts over the horizon, and what else is known of them."""
    paired = PairedReturns(setting, [(starts, steps)], stage, progress)
    return paired.until(setting.horizon)[0], paired


def _agree(exact: Tensor, single: Tensor, n: int) -> Tensor:
    """Which mean changes [policies, few] of n starts are as good in single precision: by what they
    differ, two standard errors above, is within a hundredth of their standard error."""
    error, few = single - exact, exact.shape[1]
    off = error.mean(dim=1).abs() + 2 * error.std(dim=1) / few**0.5
    return torch.le(off, _HUNDREDTH * exact.std(dim=1) / n**0.5)


def moved(
    policy: nn.Module,
    policies: Sequence[tuple[Tensor | None, int]],
    dtype: torch.dtype | None = None,
) -> Acting:
    """Actions of policies at θ + step (None: θ), the rows of one after those of another.

    Args:
        policies: step [P], and how many rows it has.
        dtype: of states and actions; None: that of the policy.
    """
    theta = flat_parameters(policy)
    thetas = [(theta if step is None else theta + step).to(dtype) for step, _ in policies]
    sizes = [rows for _, rows in policies]
    chunks: list[list[int]] = [[]]
    for k, rows in enumerate(sizes):
        if chunks[-1] and sum(sizes[j] for j in chunks[-1]) + rows > _ROWS:
            chunks.append([])
        chunks[-1].append(k)
    now: list[int] = []  # those whose rows pass through the layers

    def through(layer: nn.Linear, weight: slice, bias: slice | None, x: Tensor) -> Tensor:
        out, begin = x.new_empty(sum(sizes[k] for k in now), layer.out_features), 0
        for k in now:
            rows = slice(begin, begin + sizes[k])
            W = thetas[k][weight].view_as(layer.weight).T
            if bias is None:
                torch.mm(x[rows], W, out=out[rows])
            else:
                torch.addmm(thetas[k][bias], x[rows], W, out=out[rows])
            begin = rows.stop
        return out

    copied = _by_layers(policy, through, dtype)

    def layered(state: Tensor, noise: Tensor) -> Tensor:
        assert copied is not None
        many = [sum(sizes[k] for k in chunk) for chunk in chunks]
        actions = []
        for chunk, s, e in zip(
            chunks, torch.split(state, many), torch.split(noise, many), strict=True
        ):
            now[:] = chunk
            actions.append(act(copied, s, e))
        return torch.cat(actions)

    def one(k: int) -> nn.Module:
        step = torch.zeros_like(theta) if policies[k][0] is None else policies[k][0]
        assert step is not None
        return perturbed(policy, step).to(dtype)

    def farthest(state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        far = torch.stack([(each - thetas[0]).norm() for each in thetas]).nan_to_num(-1.0)
        k = int(far.argmax())
        rows = torch.arange(sum(sizes[:k]), sum(sizes[: k + 1]))
        return rows, act(one(k), state[rows], noise[rows])

    modules: list[nn.Module] = []

    def apart(state: Tensor, noise: Tensor) -> Tensor:
        modules[:] = modules or [one(k) for k in range(len(policies))]
        pieces = zip(modules, torch.split(state, sizes), torch.split(noise, sizes), strict=True)
        return torch.cat([act(each, s, e) for each, s, e in pieces])

    return _acting(None if copied is None else layered, apart, farthest)


def along(policy: nn.Module, direction: Tensor, lengths: Tensor) -> Acting:
    """Actions of policies at θ + lengths[j] · direction, each at a row of its own."""

    def through(layer: nn.Linear, weight: slice, bias: slice | None, x: Tensor) -> Tensor:
        slope = nn.functional.linear(
            x, direction[weight].view_as(layer.weight), None if bias is None else direction[bias]
        )
        return nn.functional.linear(x, layer.weight, layer.bias) + lengths[:, None] * slope

    copied = _by_layers(policy, through)
    theta = {name: p.detach() for name, p in policy.named_parameters()}
    pieces = torch.split(direction, [p.numel() for p in theta.values()])
    line = {name: piece.view_as(theta[name]) for name, piece in zip(theta, pieces, strict=True)}

    def one(length: Tensor, s: Tensor, e: Tensor) -> Tensor:
        there = {name: p + length * line[name] for name, p in theta.items()}
        inputs = (s[None], e[None]) if e.shape[0] else (s[None],)
        action: Tensor = functional_call(policy, there, inputs)
        return action[0]

    by_row = vmap(one, chunk_size=max(1, _HELD // max(len(direction), 1)))

    def farthest(state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        rows = lengths.abs().topk(min(_COMPARED, len(lengths))).indices
        return rows, by_row(lengths[rows], state[rows], noise[rows])

    layered = None if copied is None else partial(act, copied)
    return _acting(layered, partial(by_row, lengths), farthest)


def _by_layers(
    policy: nn.Module, through: _Through, dtype: torch.dtype | None = None
) -> nn.Module | None:
    """A copy whose linear layers take rows as `through` says, which is given where weight and bias
    lie in θ; None where there are parameters outside of them."""
    copied = copy.deepcopy(policy).to(dtype)
    slices, layers = parameter_slices(copied), linear_layers(copied)
    owned = [id(p) for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    if not layers or sorted(owned) != sorted(slices):
        return None
    for layer in layers:
        bias = None if layer.bias is None else slices[id(layer.bias)]
        layer.forward = partial(through, layer, slices[id(layer.weight)], bias)  # type: ignore[method-assign]
    return copied


def _acting(
    layered: Acting | None,
    apart: Acting,
    compared: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Acting:
    """Through the layers, where that gives at the first step the actions of a policy that was
    moved, `compared` at some rows; else of one policy after another."""
    chosen: list[Acting] = []

    def acting(state: Tensor, noise: Tensor) -> Tensor:
        if not chosen and layered is not None:
            rows, expected = compared(state, noise)
            with suppress(RuntimeError, AttributeError):
                action, close = layered(state, noise), _CLOSE[state.dtype]
                if torch.allclose(action[rows], expected, close, 1e-3 * close, equal_nan=True):
                    chosen.append(layered)
                    return action
        chosen[:] = chosen or [apart]
        return chosen[0](state, noise)

    return acting
