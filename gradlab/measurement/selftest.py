"""Measurements with known answers, and mistakes that have to be noticed, on this machine.

Known truths are closed forms of a scalar linear-quadratic system, or another algorithm: every line
holds a number, an interval that should hold the known one and, for a trap, what a mistake that has
been published would have given, which the interval must not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.measure import measure
from gradlab.networks.interface import check_policy
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.progress import Progress, silent
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.statistics.moments import Moments, PairSums, estimates
from gradlab.systems.linear import LinearQuadratic
from gradlab.tasks import Task, inverted_pendulum, linear_quadratic, path_tracking
from gradlab.truth.common_random import common_random_differences
from gradlab.truth.lqr import ExactCritic, lqr_gradient
from gradlab.truth.oracles import reference_gradients, unroll_all_actions

GAMMA, GAIN, MOMENT = 0.9, 0.3, 0.86  # discount, u = −k s, E[s²] of the starts
_ONE = torch.eye(1, dtype=torch.float64)


@dataclass(frozen=True)
class Check:
    """One line: gradlab's number with an interval, which should hold the known one.

    `mistake` is what a usual error would have given: the interval must not hold it.
    """

    name: str
    known: float
    measured: float
    low: float
    high: float
    mistake: float | None = None

    @property
    def passed(self) -> bool:
        fooled = self.mistake is not None and self.low <= self.mistake <= self.high
        return self.low <= self.known <= self.high and not fooled


def selftest(progress: Progress = silent) -> list[Check]:
    """All checks, in under a minute on two cores."""
    checks: list[Check] = []
    for done, part in enumerate(PARTS):
        progress("selftest", done, len(PARTS))
        checks += part()
    progress("selftest", len(PARTS), len(PARTS))
    return checks


class _Quadratic(nn.Module):
    """Q(s, u) = −(2 s² + 1.5 u² + 0.8 s u)."""

    def forward(self, s: Tensor, u: Tensor) -> Tensor:
        return -(2.0 * s[:, 0] ** 2 + 1.5 * u[:, 0] ** 2 + 0.8 * s[:, 0] * u[:, 0])


def _task() -> Task:
    mean, half = 0.6 * torch.ones(1, dtype=torch.float64), 0.5 * _ONE
    return linear_quadratic(
        A=0.9 * _ONE, B=0.5 * _ONE, Q=_ONE, R=_ONE, noise_covariance=0.01 * _ONE, start_mean=mean,
        start_covariance=half, discount=GAMMA, prior=(0.8 * _ONE, 0.6 * _ONE),
    )  # fmt: skip


def _policy() -> nn.Linear:
    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -GAIN)
    return policy


def _biases() -> list[Check]:
    """Squared biases of J_n against second moments in closed form."""
    profile = measure(_task(), _policy(), _Quadratic(), horizon=4, starts=2048, law="start")
    simulator = _task().simulator
    assert isinstance(simulator, LinearQuadratic)
    weight = -GAIN * _ONE
    truth = float(lqr_gradient(simulator, weight, MOMENT * _ONE, GAMMA, "first"))
    tail, cost = -4.0 - 3.0 * GAIN**2 + 1.6 * GAIN, -2 * (1 + GAIN**2)
    checks = []
    for name, a, b, step in (("model", 0.8, 0.6, 0.8 - 0.6 * GAIN), ("mixed", 0.8, 0.6, 0.75)):
        chain = a - b * GAIN
        for n in (1, 4):
            reward = sum(GAMMA**t * chain ** (t - 1) * b * cost * step**t for t in range(1, n))
            last = GAMMA**n * chain ** (n - 1) * b * tail * step**n
            exact = ((2 * GAIN + reward + last) * MOMENT - truth) ** 2
            checks.append(_from_profile(f"squared bias, {name}, n = {n}", exact, profile, name, n))
    exact = ((3.0 * GAIN - 0.8) * MOMENT - truth) ** 2
    return [*checks, _from_profile("squared bias, data", exact, profile, "data", 0)]


def _from_profile(label: str, exact: float, profile: Profile, name: str, n: int) -> Check:
    bias2 = profile.estimate(name, "bias2", n)
    room = 3 * jackknife_se(bias2.left_out)
    return Check(label, exact, bias2.value, bias2.value - room, bias2.value + room)


def identities() -> list[Check]:
    """The sweep against autograd; the full gradient against its sum of unified ones."""
    task = path_tracking()
    model = task.prior
    assert model is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = Policy(6, 2, hidden=(16,), scale=task.observation_scale).double()
        critic = QCritic(6, 2, hidden=(16,), scale=task.observation_scale).double()
    starts = as_starts(task.starts(4, torch.Generator().manual_seed(0)), 6)
    worst = 0.0
    for actions in ("first", "all"):
        estimator = replace(named.unified(model, critic, GAMMA, 6), actions=actions)
        got = estimator.gradients(policy, starts.states)
        want = reference_gradients(estimator, policy, starts)
        worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    name = "sweep of horizons less autograd, relative"
    return [Check(name, 0.0, worst, worst - 1e-10, worst + 1e-10), _theorem_one()]


def _theorem_one() -> Check:
    """full_n = Σ_{k=0}^{n} γᵏ unified_{n−k}(s_k), with the k = n term (MPG, Theorem 1)."""
    policy, critic, n = _policy(), _Quadratic(), 3
    system = linear_quadratic(
        A=0.9 * _ONE, B=0.5 * _ONE, Q=_ONE, R=_ONE, noise_covariance=0.0 * _ONE,
        start_mean=_ONE[0], start_covariance=_ONE, discount=GAMMA,
    ).simulator  # fmt: skip
    s = torch.ones(1, 1, dtype=torch.float64)
    full = float(named.model_driven(system, critic, GAMMA, n).gradients(policy, s))
    total = 0.0
    for k in range(n + 1):
        total += GAMMA**k * float(named.unified(system, critic, GAMMA, n - k).gradients(policy, s))
        s = system.step(s, policy(s).detach()).state
    room = 1e-10 * max(abs(total), 1e-300)
    return Check("full gradient as sum of unified ones", total, full, full - room, full + room)


def _oracles() -> list[Check]:
    """Closed forms against the unrolled simulator, and one truth for every kind of gradient."""
    weight, horizon = -GAIN * _ONE, 8
    quiet = LinearQuadratic(0.9 * _ONE, 0.5 * _ONE, _ONE, _ONE, 0.0 * _ONE)
    starts = as_starts(torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None], 1)
    exact = lqr_gradient(quiet, weight, starts.states[:, :, None] ** 2, GAMMA, "all", horizon)
    unrolled = unroll_all_actions(Setting(quiet, _policy(), starts, GAMMA, horizon))
    gap = float((unrolled - exact).abs().max() / exact.abs().max())
    name = f"closed form of T = {horizon} less the unrolled gradient, relative"
    return [Check(name, 0.0, gap, gap - 1e-10, gap + 1e-10), *_objective(weight)]


def _objective(weight: Tensor) -> list[Check]:
    """With the exact critic, J_0 at visited states times 1/(1 − γ) is the objective's gradient."""
    task = _task()
    simulator = task.simulator
    assert isinstance(simulator, LinearQuadratic)
    critic = ExactCritic(simulator, weight, GAMMA)
    profile = measure(task, _policy(), critic, horizon=2, starts=2048, truth="objective")
    exact = float(lqr_gradient(simulator, weight, MOMENT * _ONE, GAMMA, "all").norm())
    norm = profile.estimate("data", "mean_norm", 0)
    room = 3 * jackknife_se(norm.left_out)
    bias2 = profile.estimate("true_dynamics", "bias2", 2)
    span = profile.interval("true_dynamics", "bias2", 2)
    return [
        Check(
            "objective's gradient, trap: first-action gradients at the starts alone", exact,
            norm.value, norm.value - room, norm.value + room,
            float(lqr_gradient(simulator, weight, MOMENT * _ONE, GAMMA, "first").norm()),
        ),
        Check(
            "squared bias of the exact critic under the objective", 0.0, bias2.value,
            span.low, span.high,
        ),
    ]  # fmt: skip


def jacobians() -> list[Check]:
    """MuJoCo's certified differences against the analytic twin's closed form."""
    mujoco, twin = inverted_pendulum(), inverted_pendulum(engine="analytic")
    states = mujoco.starts(8, torch.Generator().manual_seed(0))
    action = torch.full((8, 1), 0.3, dtype=torch.float64)
    both = [task.simulator.linearize(states, action) for task in (mujoco, twin)]
    gap = float((both[0].A - both[1].A).abs().max() / both[1].A.abs().max())
    return [Check("MuJoCo Jacobian less its twin's, relative", 0.0, gap, gap - 1e-7, gap + 1e-7)]


def _score() -> list[Check]:
    """Likelihood ratio and pathwise gradient have one mean."""
    task, critic = _task(), _Quadratic()
    policy = Gaussian(_policy(), 0.5)
    starts = task.starts(20_000, torch.Generator().manual_seed(0))
    first = named.model_driven(task.simulator, critic, GAMMA, 3).gradients(policy, starts)
    zeroth = named.likelihood_ratio(task.simulator, critic, GAMMA, 3).gradients(policy, starts)
    gap = (zeroth - first).flatten()
    mean, error = float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))
    name = "likelihood ratio less pathwise gradient"
    return [Check(name, 0.0, mean, mean - 3.5 * error, mean + 3.5 * error)]


def traps() -> list[Check]:
    """.grad that is never zeroed, and a squared bias that counts noise as bias."""
    kappa, mean, spread = 1.7, 0.6, 0.5  # G = κ s², s ~ N(mean, spread): every moment is known
    generator = torch.Generator().manual_seed(2)
    s = mean + spread**0.5 * torch.randn(4096, generator=generator, dtype=torch.float64)
    G = (kappa * s**2)[:, None]
    exact = kappa**2 * (2 * spread**2 + 4 * mean**2 * spread)
    accumulated = float(G[:35].cumsum(dim=0).var())
    noise = 0.3 * torch.randn(256, 100, generator=generator, dtype=torch.float64)
    measured = estimates(_moments(G[:256] + noise, G[:256].expand(-1, 100)), batch=1)
    variance = interval("variance", estimates(_moments(G, G), batch=1)["variance"])
    bias2 = interval("bias2", measured["bias2"])
    return [
        Check(
            "variance, trap: accumulating .grad", exact, float(G.var()),
            variance.low, variance.high, accumulated,
        ),
        Check(
            "squared bias of 0, trap: plug-in", 0.0, measured["bias2"].value,
            bias2.low, bias2.high, float(noise.mean(dim=0).square().sum()),
        ),
        _misplaced_discount(),
        _train_mode_normalisation(),
    ]  # fmt: skip


def _moments(G: Tensor, T: Tensor) -> Moments:
    n = len(G)
    g, t = G.numpy(), T.numpy()
    squares = (g * g).sum(axis=1)
    kinds = ((g, g), (t, t), (g - t, g - t), (g, t))
    gradient, truth, difference, cross = (
        PairSums((x * z).sum(axis=1), x @ z.sum(axis=0), z @ x.sum(axis=0)) for x, z in kinds
    )
    return Moments(np.ones(n), squares, gradient, truth, difference, cross)


def _misplaced_discount() -> Check:
    """d/da of Σ γᵗ r_t against an adjoint that discounts rewards but not its own recursion."""
    task, policy, steps = _task(), _policy(), 5
    starts = as_starts(task.starts(256, torch.Generator().manual_seed(1)), 1)
    differences = common_random_differences(
        Setting(task.simulator, policy, starts, GAMMA, steps), n=256
    )
    closed, cost, s = 0.9 - 0.5 * GAIN, -2 * (1 + GAIN**2), starts.states[:, 0]
    terms = [0.5 * closed ** (2 * t - 1) * cost for t in range(1, steps)]
    # E[s_t s_0] = closedᵗ E[s_0²]: the same sum with and without its discounts
    right = 2 * GAIN + sum(GAMMA**t * term for t, term in enumerate(terms, 1))
    wrong = 2 * GAIN + sum(terms)
    sign = float(differences.directions[0, 0])
    slopes = sign * differences.narrow[-1, 0]
    residual = slopes - right * s * s
    error = 3.5 * float(residual.std()) / math.sqrt(len(s))
    measured, second = float(slopes.mean()), float((s * s).mean())
    return Check(
        "first-action gradient, trap: adjoint without discount", right * second, measured,
        measured - error, measured + error, wrong * second,
    )  # fmt: skip


def _train_mode_normalisation() -> Check:
    """Spectral normalisation in train mode changes the policy with every call: refused."""
    policy = nn.Sequential(spectral_norm(nn.Linear(2, 4)), nn.Tanh(), nn.Linear(4, 1)).double()
    try:
        check_policy(policy, torch.zeros(2, 2, dtype=torch.float64), 1)
        refused = 0.0
    except InputError:
        refused = 1.0
    return Check(
        "trap: spectral norm in train mode is refused", 1.0, refused, refused, refused, 0.0
    )


PARTS: tuple[Callable[[], list[Check]], ...] = (
    _biases,
    identities,
    _oracles,
    jacobians,
    _score,
    traps,
)
