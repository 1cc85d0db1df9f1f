"""Systems in closed form: step and derivatives written out.

Linear dynamics with quadratic reward: the system whose every answer is known in closed form.

    s' = A s + B u + w,   w ~ N(0, W),   r = -(sᵀ Q s + uᵀ R u)      (s, u before the step)

W may be singular (zero: no noise), hence w = W^{1/2} ξ with the symmetric root.

Gymnasium's Pendulum-v1 in torch: a rod on a hinge, swung up by a weak motor.

    state [θ, θ̇], θ = 0 upright, not wrapped;  action [u], a torque

    u ← clip(u, ±2 N m)
    θ̇' = clip(θ̇ + T (3g/(2l) sin θ + 3/(m l²) u), ±8 rad/s),   θ' = θ + T θ̇'
    r  = −(wrap(θ)² + 0.1 θ̇² + 0.001 u²)      of the state before the step

The chart is Gymnasium's inner state: minimal, and smooth but for the velocity's clip (flagged) and
the torque's. Gymnasium observes (cos θ, sin θ, θ̇) instead, whose radial direction is in no
transition, so that a model's Jacobians in it are partly arbitrary. The wrap of the reward has
derivative 1.

The inverted pendulum in closed form: MPG's analytic prior, and the twin of MuJoCo's simulator.

    state [x, θ, ẋ, θ̇], θ = 0 upright;  action [a], force F = gear · a

    D q̈ = z,   D = [[M + m, h cos φ], [h cos φ, J]],   φ = θ + offset
    z = [h θ̇² sin φ + F - d ẋ,  h g sin φ - d θ̇],     h = m l_c,  J = I + m l_c²

with l_c the distance from the hinge to the pole's center of mass. MPG Appendix B-B prints another
D and z (the roles of the two masses, and the inertia, are not those of its Table IV): the next
states of that system are off by up to 48, so the rigid-body equations above are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.system import (
    Certificate,
    Linearization,
    Noise,
    Transition,
    check_step,
    constant,
    sample_normal,
)


@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """The system above.

    Attributes:
        A: [ds, ds], B: [ds, da].
        Q: [ds, ds], R: [da, da], symmetric and positive semidefinite.
        noise_covariance: W [ds, ds], symmetric and positive semidefinite.
    """

    differentiable: ClassVar[bool] = True

    A: Tensor
    B: Tensor
    Q: Tensor
    R: Tensor
    noise_covariance: Tensor
    noise_root: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ds, da = (x.shape[-1] if x.ndim else 0 for x in (self.A, self.B))
        _check_matrix("A", self.A, ds, ds)
        _check_matrix("B", self.B, ds, da)
        check_covariance("Q", self.Q, ds)
        check_covariance("R", self.R, da)
        check_covariance("noise_covariance", self.noise_covariance, ds)
        object.__setattr__(self, "noise_root", symmetric_root(self.noise_covariance))

    @property
    def state_dim(self) -> int:
        return self.B.shape[0]

    @property
    def action_dim(self) -> int:
        return self.B.shape[1]

    noise_dim = state_dim

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        Q, R = self.Q.to(state), self.R.to(state)
        after = self._mean(state, action)
        if noise is not None:
            after = after + noise @ self.noise_root.to(state)
        reward = -((state @ Q) * state).sum(1) - ((action @ R) * action).sum(1)
        return Transition(after, reward, torch.ones_like(reward, dtype=torch.bool))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        n = state.shape[0]
        return Linearization(
            A=self.A.to(state).expand(n, -1, -1),
            B=self.B.to(state).expand(n, -1, -1),
            r_s=-2 * state @ self.Q.to(state),
            r_a=-2 * action @ self.R.to(state),
            certificate=Certificate.exact(state),
        )

    sample_noise = sample_normal

    def infer_noise(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """[N, ds], the smallest ξ that explains the transition (its projection if none does)."""
        check_step(self, state, action, None)
        inverse = torch.linalg.pinv(self.noise_root, hermitian=True).to(state)
        unexplained = next_state - self._mean(state, action)
        return torch.mm(unexplained, inverse)

    def _mean(self, state: Tensor, action: Tensor) -> Tensor:
        return state @ self.A.to(state).T + action @ self.B.to(state).T


def symmetric_root(covariance: Tensor) -> Tensor:
    """W^{1/2}, symmetric, for positive semidefinite W."""
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding leaves the zero eigenvalues of a singular W at ±1e-17, whose roots (1e-9) a
    # pseudo-inverse would mistake for noise.
    scale = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    values = torch.where(values > scale, values, 0.0)
    return torch.mm(vectors * values.sqrt(), vectors.T)


def _check_matrix(name: str, matrix: Tensor, *shape: int) -> None:
    if matrix.shape != shape:
        raise InputError(f"{name} has shape {tuple(matrix.shape)}, expected {list(shape)}")
    if not torch.isfinite(matrix).all():
        raise InputError(f"{name} has entries that are not finite")


def check_covariance(name: str, matrix: Tensor, width: int) -> None:
    """Finite, symmetric and positive semidefinite [width, width], up to rounding."""
    _check_matrix(name, matrix, width, width)
    rounding = 100 * width * torch.finfo(matrix.dtype).eps * matrix.abs().max()
    if (matrix - matrix.T).abs().max() > rounding:
        raise InputError(f"{name} is not symmetric: use ({name} + {name}.T) / 2")
    lowest = torch.linalg.eigvalsh(matrix)[0]
    if lowest < -rounding:
        raise InputError(f"{name} has the eigenvalue {lowest:.3g}, expected none below 0")


TORQUE_LIMIT = 2.0  # N m
SPEED_LIMIT = 8.0  # rad/s
TIMESTEP = 0.05  # s
_GRAVITY = 10.0  # m/s²
_WEIGHTS = (1.0, 0.1, 0.001)
# No difference stencil is wider: beyond this distance (rad/s) from the clip it cannot be met.
STENCIL = 1e-4


@dataclass(frozen=True)
class Pendulum:
    """The system above. mass in kg, length in m; Gymnasium's are 1 and 1."""

    state_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 1
    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = True

    mass: float = 1.0
    length: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mass", "length"):
            validation.number(name, getattr(self, name), "a positive number", above=0)

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        theta, spin = state.unbind(1)
        torque = action[:, 0].clamp(-TORQUE_LIMIT, TORQUE_LIMIT)
        faster = self._faster(theta, spin, torque).clamp(-SPEED_LIMIT, SPEED_LIMIT)
        after = torch.stack([theta + faster * TIMESTEP, faster], 1)
        cost = wrap(theta) ** 2 + _WEIGHTS[1] * spin**2 + _WEIGHTS[2] * torque**2
        return Transition(after, -cost, torch.ones_like(cost, dtype=torch.bool))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        theta, spin = state.unbind(1)
        torque = action[:, 0].clamp(-TORQUE_LIMIT, TORQUE_LIMIT)
        faster = self._faster(theta, spin, torque)
        free = (faster.abs() <= SPEED_LIMIT).to(state)
        free_torque = (action[:, 0] == torque).to(state)
        pull, push = self._gains()
        spins = torch.stack([TIMESTEP * pull * theta.cos() * free, free], 1)
        turned = torch.stack([1 + TIMESTEP * spins[:, 0], TIMESTEP * free], 1)
        by_torque = TIMESTEP * push * free * free_torque
        certificate = Certificate.exact(state)
        return Linearization(
            A=torch.stack([turned, spins], 1),
            B=torch.stack([TIMESTEP * by_torque, by_torque], 1)[:, :, None],
            r_s=-2 * torch.stack([_WEIGHTS[0] * wrap(theta), _WEIGHTS[1] * spin], 1),
            r_a=(-2 * _WEIGHTS[2] * torque * free_torque)[:, None],
            certificate=Certificate(faster.abs() > SPEED_LIMIT - STENCIL, certificate.error),
        )

    sample_noise = sample_normal

    def _gains(self) -> tuple[float, float]:
        """Angular acceleration per sin θ and per torque."""
        return 3 * _GRAVITY / (2 * self.length), 3.0 / (self.mass * self.length**2)

    def _faster(self, theta: Tensor, spin: Tensor, torque: Tensor) -> Tensor:
        """θ̇' before its clip."""
        pull, push = self._gains()
        return spin + (pull * theta.sin() + push * torque) * TIMESTEP


def wrap(angle: Tensor) -> Tensor:
    """angle − 2πk in [−π, π); its derivative is 1."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


ACTION_LIMIT = 3.0
_MODEL_STEP = 0.04
MODEL_BIAS = 0.1
MODEL_NOISE = 0.5
SIMULATOR_WEIGHTS = (0.01, 1.0, 0.1, 0.1)
_MODEL_WEIGHTS = (0.01, 1.0, 1e-3, 1e-3)

Timing = Literal["pre_step", "post_step"]


@dataclass(frozen=True)
class PendulumReward:
    """r = -Σ w_i s_i² (eq. 18), of the state before the step or (published code) after it."""

    weights: tuple[float, float, float, float] = SIMULATOR_WEIGHTS
    timing: Timing = "pre_step"

    def value(self, before: Tensor, after: Tensor) -> Tensor:
        state = before if self.timing == "pre_step" else after
        return -(state.square() @ constant(self.weights, state))

    def gradients(
        self, before: Tensor, after: Tensor, A: Tensor, B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """r_s [N, 4] and r_a [N, 1]; after the step they pass through A and B."""
        w = constant(self.weights, before)
        if self.timing == "pre_step":
            return -2 * w * before, torch.zeros_like(B[:, 0])
        pull = -2 * w * after
        return torch.einsum("ni,nij->nj", pull, A), torch.einsum("ni,nij->nj", pull, B)


@dataclass(frozen=True)
class CartPoleParameters:
    """Masses (kg), hinge to the pole's center of mass (m), its inertia there (kg m²), and so on.

    `damping` acts on both joints, `gear` is force per action, `offset` the angle (rad) from the
    pole's axis θ to its center of mass. `timestep` is one substep (s), `substeps` a control step.
    """

    cart_mass: float
    pole_mass: float
    half_length: float
    inertia: float
    gravity: float
    gear: float
    damping: float
    offset: float
    timestep: float
    substeps: int


# MPG Table IV, a uniform rod of 0.6 m.
TABLE4 = CartPoleParameters(
    cart_mass=9.42,
    pole_mass=4.89,
    half_length=0.3,
    inertia=4.89 * 0.6**2 / 12,
    gravity=9.81,
    gear=100.0,
    damping=0.0,
    offset=0.0,
    timestep=_MODEL_STEP,
    substeps=1,
)


@dataclass(frozen=True)
class CartPoleModel:
    """The prior: one explicit Euler step of 0.04 s, x gains N(0.1, std 0.5); action not clipped.

    Positions advance with the old velocities. Its reward weighs velocities by 1e-3, not 0.1.
    """

    state_dim: ClassVar[int] = 4
    action_dim: ClassVar[int] = 1
    noise_dim: ClassVar[int] = 1
    differentiable: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True

    reward: Timing = "pre_step"

    def __post_init__(self) -> None:
        validation.word("reward", self.reward, get_args(Timing))

    @property
    def _reward(self) -> PendulumReward:
        return PendulumReward(_MODEL_WEIGHTS, self.reward)

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        after = state + _MODEL_STEP * derivative(TABLE4, state, action) + _drift(state, noise)
        return Transition(after, self._reward.value(state, after), alive(after))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        rate, by_q, by_a = _derivative_jacobian(TABLE4, state, action)
        after = state + _MODEL_STEP * rate + _drift(state, noise)
        identity = torch.eye(4, dtype=state.dtype, device=state.device)
        A, B = identity + _MODEL_STEP * by_q, _MODEL_STEP * by_a
        r_s, r_a = self._reward.gradients(state, after, A, B)
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    sample_noise = sample_normal

    def infer_noise(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """[N, 1], the noise that moves x where `next_state` has it."""
        mean = self.step(state, action).state
        return (next_state - mean)[:, :1] / MODEL_NOISE


@dataclass(frozen=True)
class CartPoleSimulator:
    """MuJoCo's InvertedPendulum in torch: RK4 substeps, action clipped to ±3.

    Equal to MuJoCo to rounding wherever no joint limit acts: it has neither the slider's stop
    (stock: ±1 m) nor the hinge's (±90°).
    """

    state_dim: ClassVar[int] = 4
    action_dim: ClassVar[int] = 1
    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = True

    parameters: CartPoleParameters
    reward: Timing = "pre_step"

    def __post_init__(self) -> None:
        validation.word("reward", self.reward, get_args(Timing))

    @property
    def _reward(self) -> PendulumReward:
        return PendulumReward(SIMULATOR_WEIGHTS, self.reward)

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        applied, after = action.clamp(-ACTION_LIMIT, ACTION_LIMIT), state
        for _ in range(self.parameters.substeps):
            after = _runge_kutta(self.parameters, after, applied)
        return Transition(after, self._reward.value(state, after), alive(after))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        applied, after = action.clamp(-ACTION_LIMIT, ACTION_LIMIT), state
        identity = torch.eye(4, 5, dtype=state.dtype, device=state.device)
        columns = identity.expand(state.shape[0], 4, 5)
        for _ in range(self.parameters.substeps):
            after, columns = _runge_kutta_columns(self.parameters, after, applied, columns)
        free = (action == applied).to(action)
        A, B = columns[:, :, :4], columns[:, :, 4:] * free[:, None]
        r_s, r_a = self._reward.gradients(state, after, A, B)
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    sample_noise = sample_normal


def alive(state: Tensor) -> Tensor:
    """|x| < 2 and |θ| ≤ 0.2 (finite). [N] bool."""
    return (state[:, 0].abs() < 2) & (state[:, 1].abs() <= 0.2)


def derivative(p: CartPoleParameters, state: Tensor, action: Tensor) -> Tensor:
    """ds/dt [N, 4]."""
    _, theta, speed, spin = state.unbind(1)
    h, J, total = _inertias(p)
    angle = theta + p.offset
    sine, coupling = angle.sin(), h * angle.cos()
    push = h * spin.square() * sine + p.gear * action[:, 0] - p.damping * speed
    tip = h * p.gravity * sine - p.damping * spin
    determinant = total * J - coupling.square()
    cart = (J * push - coupling * tip) / determinant
    pole = (total * tip - coupling * push) / determinant
    return torch.stack([speed, spin, cart, pole], 1)


def _derivative_jacobian(
    p: CartPoleParameters, state: Tensor, action: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """ds/dt [N, 4] and its Jacobians in the state [N, 4, 4] and the action [N, 4, 1].

    dq̈ = D⁻¹ (dz - dD q̈).
    """
    rate = derivative(p, state, action)
    cart, pole = rate[:, 2], rate[:, 3]
    _, theta, _, spin = state.unbind(1)
    h, J, total = _inertias(p)
    angle = theta + p.offset
    sine, coupling = h * angle.sin(), h * angle.cos()
    zero, one = torch.zeros_like(theta), torch.ones_like(theta)
    push = [coupling * spin.square() + sine * pole, zero - p.damping, 2 * sine * spin]
    tip = [p.gravity * coupling + sine * cart, zero, zero - p.damping]
    push_by, tip_by = torch.stack([*push, zero + p.gear], 1), torch.stack([*tip, zero], 1)
    over = (1 / (total * J - coupling.square()))[:, None]
    cart_by = (J * push_by - coupling[:, None] * tip_by) * over
    pole_by = (total * tip_by - coupling[:, None] * push_by) * over
    kinematic = torch.stack([zero, zero, one, zero, zero, zero, zero, one], 1).view(-1, 2, 4)
    # Nothing depends on x: the columns above are (θ, ẋ, θ̇, a).
    accelerations = torch.stack([cart_by, pole_by], 1)
    by_x = torch.zeros_like(accelerations[:, :, :1])
    dynamic = torch.cat([by_x, accelerations[:, :, :3]], 2)
    by_a = torch.cat([torch.zeros_like(accelerations[:, :, 3:]), accelerations[:, :, 3:]], 1)
    return rate, torch.cat([kinematic, dynamic], 1), by_a


def _inertias(p: CartPoleParameters) -> tuple[float, float, float]:
    """h, J and M + m."""
    h = p.pole_mass * p.half_length
    return h, p.inertia + h * p.half_length, p.cart_mass + p.pole_mass


def _drift(state: Tensor, noise: Noise) -> Tensor:
    """[N, 4]: the prior's biased noise, on x alone."""
    on_x = constant((1.0, 0.0, 0.0, 0.0), state)
    return MODEL_BIAS * on_x if noise is None else (MODEL_BIAS + MODEL_NOISE * noise) * on_x


def _runge_kutta(p: CartPoleParameters, state: Tensor, action: Tensor) -> Tensor:
    T = p.timestep
    k1 = derivative(p, state, action)
    k2 = derivative(p, state + T / 2 * k1, action)
    k3 = derivative(p, state + T / 2 * k2, action)
    k4 = derivative(p, state + T * k3, action)
    return state + T / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _runge_kutta_columns(
    p: CartPoleParameters, state: Tensor, action: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """One substep of the state and of its derivatives [N, 4, 5] in the step's first (s, a)."""
    rates, slopes = [], []
    at, at_columns = state, columns
    for next_stage in (p.timestep / 2, p.timestep / 2, p.timestep, 0.0):
        rate, by_s, by_a = _derivative_jacobian(p, at, action)
        slope = by_s @ at_columns
        slope = torch.cat([slope[:, :, :4], slope[:, :, 4:] + by_a], 2)
        rates.append(rate)
        slopes.append(slope)
        at, at_columns = state + next_stage * rate, columns + next_stage * slope
    return _rk4_sum(state, rates, p.timestep), _rk4_sum(columns, slopes, p.timestep)


def _rk4_sum(start: Tensor, k: list[Tensor], T: float) -> Tensor:
    return start + T / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3])
