"""A probabilistic ensemble as a System: noise and member are arguments.

    s' = μ_k(s, a) + σ_k(s, a) ξ,     A, B = ∂s'/∂(s, a) at that noise

Noise [N, out + 1] holds out = ds (ds + 1 with a reward head) standard normal columns ξ, and a last
column u, uniform in [0, 1), that chooses the member, elites[⌊u · number of elites⌋]. Without noise:
the elites' mean transition, and its Jacobian. In closed form through gradlab's own layers, one row
per output, since μ and σ share the product's left factor:

    ∂μ/∂x = [I, 0] + f ∂m/∂x̂ / d,     ∂σ/∂x = σ/2 · (∂log v/∂raw) ∂raw/∂x̂ / d,     x = [s, a]

Those of networks of one's own are differentiated automatically.

States of one model, Jacobians of another, as one System (DDPPO section 4.2, appendix B.1.2).

    s', r = prediction(s, a, ξ),      A, B, r_s, r_a = ∂ gradient(s, a)

The gradient model is differentiated at its mean, whatever noise the prediction model drew: that
noise is another model's. Through `step`, automatic differentiation gives the same Jacobians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.gaussian_ensemble import (
    GaussianEnsemble,
    Numbers,
    bounded,
    check_numbers,
    predict,
    scaled,
    standardised_inputs,
)
from gradlab.networks.layers import Modules, blocks, pull_back, trace
from gradlab.systems.function import AliveFunction, survivors
from gradlab.systems.system import (
    Certificate,
    Linearization,
    Noise,
    System,
    Transition,
    check_step,
    flat_reward,
    inner,
)

_Inference = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TwoModels:
    """See above.

    Attributes:
        prediction: whose states, rewards, noise and termination.
        gradient: whose Jacobians; torch can differentiate it.
    """

    differentiable: ClassVar[bool] = True

    prediction: System
    gradient: System

    sample_noise = inner("sample_noise", "prediction")
    state_dim = inner("state_dim", "prediction")
    action_dim = inner("action_dim", "prediction")
    noise_dim = inner("noise_dim", "prediction")
    member_column = inner("member_column", "prediction")
    infer_noise = inner("infer_noise", "prediction")

    def __post_init__(self) -> None:
        for name in ("state_dim", "action_dim"):
            ours, theirs = getattr(self.prediction, name), getattr(self.gradient, name)
            if ours != theirs:
                raise InputError(f"gradient has {name} {theirs}, prediction has {ours}")
        if not self.gradient.differentiable:
            raise InputError("gradient is not differentiable: give a model that torch can follow")

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        with torch.no_grad():
            predicted = self.prediction.step(state.detach(), action.detach(), noise)
        if not torch.is_grad_enabled():
            return predicted
        slope = self.gradient.step(state, action)
        return Transition(
            predicted.state + (slope.state - slope.state.detach()),
            predicted.reward + (slope.reward - slope.reward.detach()),
            predicted.alive,
        )

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        return self.gradient.linearize(state, action)


ROWS = 4096  # transitions whose noise is inferred at once, under every member
RewardFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LearnedSystem:
    """See above; computes in the dtype and on the device of the states.

    Attributes:
        ensemble: its parameters are read at every call, so it may be trained meanwhile.
        reward: (state, action, next_state) -> [N], torch and differentiable, in the place of the
            ensemble's head; None: the head.
        alive: the task's termination, next_state [N, ds] -> bool [N]; None: every state is alive.
        elites: the members that are used; None: all.
    """

    differentiable: ClassVar[bool] = True

    ensemble: GaussianEnsemble
    reward: RewardFunction | None = None
    alive: AliveFunction | None = None
    elites: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        validation.instance("ensemble", self.ensemble, GaussianEnsemble, "a GaussianEnsemble")
        if self.reward is None and not self.ensemble.reward:
            raise InputError(
                "the ensemble has no reward head: give reward=(state, action, next_state) -> [N]"
            )
        members = range(self.ensemble.members)
        if self.elites is not None and (
            not self.elites
            or len(set(self.elites)) < len(self.elites)
            or any(member not in members for member in self.elites)
        ):
            want = f"different members from 0 to {members[-1]}"
            raise InputError(f"elites are {list(self.elites)}, expected {want}")
        check_numbers(self.ensemble, self.chosen)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The members that are used."""
        return tuple(range(self.ensemble.members)) if self.elites is None else self.elites

    @property
    def state_dim(self) -> int:
        return self.ensemble.state_dim

    @property
    def action_dim(self) -> int:
        return self.ensemble.action_dim

    @property
    def noise_dim(self) -> int:
        return self.ensemble.outputs + 1

    @property
    def member_column(self) -> int | None:
        """The column of noise that chooses the member; None where there is one member."""
        return self.noise_dim - 1 if len(self.chosen) > 1 else None

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        x = torch.cat([state, action], dim=1)
        if noise is None:
            outputs = predict(self.ensemble.numbers(x, self.chosen), x).mean.mean(dim=0)
        else:  # μ_k + σ_k ξ, every row by its own member
            parts, order = [], []
            for member, rows in self._by_member(noise):
                predicted = predict(self.ensemble.numbers(x, [member]), x[rows])
                parts.append(predicted.mean[0] + predicted.std[0] * noise[rows, :-1])
                order.append(rows)
            outputs = torch.cat(parts)[torch.cat(order).argsort()]
        after = outputs[:, : self.state_dim]
        rated = outputs[:, -1] if self.reward is None else self._rated(state, action, after)
        return Transition(after, rated, survivors(self.alive, after))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        x, ds = torch.cat([state, action], dim=1), self.state_dim
        outputs, jacobian = self._mean_jacobian(x) if noise is None else self._jacobian(x, noise)
        A, B = jacobian[:, :ds, :ds], jacobian[:, :ds, ds:]
        if self.reward is None:
            r_s, r_a = jacobian[:, ds, :ds], jacobian[:, ds, ds:]
        else:
            r_s, r_a = self._reward_gradients(state, action, outputs[:, :ds], A, B)
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        shape = (n, self.ensemble.outputs)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        uniform = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return torch.cat([normal, uniform], dim=1).to(dtype)

    def infer_noise(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """[N, out + 1], noise that leads to `next_state`, by the elite under which each transition
        is likeliest; the reward's is 0, its mean."""
        check_step(self, state, action, None)
        blocks = (slice(begin, begin + ROWS) for begin in range(0, len(state), ROWS))
        return torch.cat([self._inferred(state[b], action[b], next_state[b]) for b in blocks])

    def _inferred(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        numbers = self.ensemble.numbers(state, self.chosen)
        predicted, ds = predict(numbers, torch.cat([state, action], dim=1)), self.state_dim
        std, error = predicted.std[..., :ds], next_state - predicted.mean[..., :ds]
        if self.ensemble.deterministic:  # no noise leads there; the member that comes nearest
            noise, density = torch.zeros_like(error), -error.square().sum(dim=2)
        else:
            noise = error / std
            density = -0.5 * noise.square().sum(dim=2) - std.log().sum(dim=2)
        index = density.argmax(dim=0)
        likeliest = noise[index, torch.arange(len(state), device=state.device)]
        inferred = state.new_zeros(len(state), self.noise_dim)
        inferred[:, :ds] = likeliest
        inferred[:, -1] = (index.to(state) + 0.5) / len(self.chosen)
        return inferred

    def _jacobian(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """μ_k + σ_k ξ and its Jacobian [N, out, ds + da]; without the head where it is not used."""
        outputs = self._used()
        value, jacobian = x.new_empty(len(x), outputs), x.new_empty(len(x), outputs, x.shape[1])
        for member, rows in self._by_member(noise):
            numbers = self.ensemble.numbers(x, [member])
            value[rows], jacobian[rows] = _realised(
                numbers, x[rows], noise[rows, :outputs], outputs
            )
        return value, jacobian

    def _mean_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Averages over the elites, of which one Jacobian is held at a time."""
        outputs, share = self._used(), 1 / len(self.chosen)
        zero = x.new_zeros(len(x), outputs)
        value, jacobian = zero.clone(), x.new_zeros(len(x), outputs, x.shape[1])
        for member in self.chosen:
            linear = _realised(self.ensemble.numbers(x, [member]), x, zero, outputs)
            value += share * linear[0]
            jacobian += share * linear[1]
        return value, jacobian

    def _used(self) -> int:
        return self.state_dim if self.reward is not None else self.ensemble.outputs

    def _by_member(self, noise: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Members and the rows that their noise gives them."""
        if self.member_column is None:
            yield self.chosen[0], torch.arange(len(noise), device=noise.device)
            return
        uniform = noise[:, -1].detach()
        if not bool(((uniform >= 0) & (uniform <= 1)).all()):
            raise InputError(
                f"noise column {self.member_column} chooses the member: expected numbers in [0, 1)"
            )
        # In float32 a draw may round to 1.
        index = (uniform * len(self.chosen)).long().clamp_max(len(self.chosen) - 1)
        for k, member in enumerate(self.chosen):
            rows = (index == k).nonzero()[:, 0]
            if len(rows):
                yield member, rows

    def _rated(self, state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        assert self.reward is not None
        reward = flat_reward(self.reward(state, action, after), state)
        if reward.shape != state.shape[:1]:
            raise InputError(f"reward returned {list(reward.shape)}, expected [{len(state)}]")
        return reward

    def _reward_gradients(
        self, state: Tensor, action: Tensor, after: Tensor, A: Tensor, B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """r_s and r_a; through the next state they pass A and B."""
        leaves = [x.detach().requires_grad_() for x in (state, action, after)]
        with torch.enable_grad():
            total = self._rated(*leaves).sum()
        if not total.requires_grad:  # a constant
            return torch.zeros_like(state), torch.zeros_like(action)
        by_state, by_action, pull = torch.autograd.grad(
            total, leaves, allow_unused=True, materialize_grads=True
        )
        r_s = by_state + torch.einsum("ni,nij->nj", pull, A)
        return r_s, by_action + torch.einsum("ni,nij->nj", pull, B)


@torch.no_grad()
def _realised(numbers: Numbers, x: Tensor, noise: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """μ + σ ξ [N, outputs] and its Jacobian [N, outputs, ds + da].

    Args:
        numbers: of one member.
        x: [s, a], [N, ds + da].
        noise: ξ [N, outputs].
        outputs: how many of the outputs, from the first.
    """
    value, jacobian = x.new_empty(len(x), outputs), x.new_empty(len(x), outputs, x.shape[1])
    for rows in blocks(numbers.layers, len(x), outputs):
        value[rows], jacobian[rows] = _of_block(numbers, x[None, rows], noise[rows])
    return value, jacobian


def _of_block(numbers: Numbers, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    k = noise.shape[1]
    if isinstance(numbers.layers, Modules):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            predicted = predict(numbers, x)
            y = predicted.mean[..., :k] + predicted.std[..., :k] * noise
            rows_of = [
                torch.autograd.grad(each.sum(), x, retain_graph=True, materialize_grads=True)[0]
                for each in y.unbind(dim=-1)
            ]
        return y.detach()[0], torch.stack(rows_of, dim=-2)[0]
    raw, slopes = trace(numbers.layers, standardised_inputs(numbers, x))
    prediction = scaled(numbers, x, raw)
    spread = prediction.std[..., :k] * noise
    # A transposed view would hand its strides on to every product with it, and each be copied.
    weights = numbers.layers.weights[-1].mT.contiguous()
    rows = numbers.target_std[..., :k, None] * weights[:, None, :k]
    if not numbers.deterministic:
        by_raw = 0.5 * spread * bounded(numbers, raw.chunk(2, dim=-1)[1])[1][..., :k]
        rows = rows + by_raw[..., None] * weights.chunk(2, 1)[1][:, None, :k]
    jacobian = (
        pull_back(numbers.layers, slopes, rows) / numbers.input_std[:, :, None]
        + numbers.residual[:k]
    )
    return (prediction.mean[..., :k] + spread)[0], jacobian[0]
