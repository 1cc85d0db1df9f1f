"""How do bias and variance of data- and model-driven gradients change with the horizon?

    data          J_0 with critics fitted by n-step targets, n = 1, 5, 25, three seeds (MPG eq. 4)
    prior, wrong  J_n through the task's own prior, and through a deliberately wrong one (eq. 6)
    mixed         simulator states, Jacobians of either model
    true          J_n through the simulator: only the critic's error is left
    early         J_n with a critic that nobody has trained, through prior and simulator

    python -m analyses.bias_variance [--small] [--tasks lqr …] [--output reports/bias-variance]

Each task is measured once, on common starts and noise, and kept in runs/bias-variance: a second
call draws what is there and measures what is missing. The policy is the prior's Riccati feedback
at 40% of its gain, so that neither the simulator's gradient nor the prior's is zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import gradlab
from analyses.bias_variance.report import CRITICS, data_levels, write
from analyses.identities import dp_vs_dr
from gradlab.cli.terminal.progress_bars import bars
from gradlab.data.noise import stream
from gradlab.fitting.critics import fit_critic
from gradlab.fitting.policies import distil, riccati_gain
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import QCritic
from gradlab.progress import Progress
from gradlab.runs.profile import Profile
from gradlab.systems.cartpole import (
    MODEL_BIAS,
    MODEL_NOISE,
    MODEL_STEP,
    MODEL_WEIGHTS,
    TABLE4,
    derivative,
)
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import System
from gradlab.systems.vehicle import TABLE3, VehicleModel
from gradlab.tasks import Task

FOLDER = Path("reports/bias-variance")
RUNS = Path("runs/bias-variance")
HORIZON, BATCH, SEED = 25, 256, 0
STRENGTH = 0.4  # of the prior's Riccati gain


@dataclass(frozen=True, eq=False)
class Case:
    """A task with its prior, a second, deliberately wrong model of it, and how many starts."""

    task: Task
    wrong: System
    starts: int = 256


def path_tracking() -> Case:
    """Wrong: tyres of half the stiffness. Both priors push the vehicle 0.5 m a step.

    Heavy tails: 256 starts leave the truth a relative standard error of 0.4.
    """
    soft = replace(TABLE3, Cf=TABLE3.Cf / 2, Cr=TABLE3.Cr / 2)
    return Case(gradlab.tasks.path_tracking(), VehicleModel(soft), starts=1024)


def inverted_pendulum() -> Case:
    """Wrong: half the pole's mass. Both priors push the cart 0.1 m a step."""
    return Case(gradlab.tasks.inverted_pendulum("analytic", slider="wide"), light_pole())


def light_pole() -> System:
    """The pendulum's prior with half the pole's mass and inertia."""
    light = replace(TABLE4, pole_mass=TABLE4.pole_mass / 2, inertia=TABLE4.inertia / 2)

    def step(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        on_x = state.new_tensor([[1.0, 0.0, 0.0, 0.0]])
        push = (MODEL_BIAS + MODEL_NOISE * noise) * on_x
        reward = -(state.square() @ state.new_tensor(MODEL_WEIGHTS))
        return state + MODEL_STEP * derivative(light, state, action) + push, reward

    return gradlab.systems.from_function(step, 4, 1, noise_dim=1)


def lqr() -> Case:
    """Two coupled double integrators; prior: A and B off by 1%; wrong: B halved."""
    world = dp_vs_dr.make_world()
    s, prior = world.system, dp_vs_dr.wrong(world.system, 0, 0.01)
    task = gradlab.tasks.linear_quadratic(
        s.A, s.B, s.Q, s.R, s.noise_covariance, world.start_mean, world.start_covariance,
        dp_vs_dr.DISCOUNT, prior=(prior.A, prior.B),
    )  # fmt: skip
    return Case(task, LinearQuadratic(s.A, s.B / 2, s.Q, s.R, s.noise_covariance))


def double_integrator() -> Case:
    """Prior: 90% of the push, 2% friction; wrong: half the push."""
    task = gradlab.tasks.double_integrator(
        start_mean=(1.0, 0.0), prior_push=0.9, prior_friction=0.02
    )
    wrong = gradlab.tasks.double_integrator(prior_push=0.5).prior
    assert wrong is not None
    return Case(task, wrong)


CASES: dict[str, Callable[[], Case]] = {
    "path-tracking": path_tracking,
    "inverted-pendulum": inverted_pendulum,
    "lqr": lqr,
    "double-integrator": double_integrator,
}


def measure(case: Case, starts: int, horizon: int, progress: Progress) -> Profile:
    """Every estimator of one task, on common starts."""
    task, wrong = case.task, case.wrong
    simulator, prior = task.simulator, task.prior
    assert prior is not None
    # The prior's Riccati feedback at `STRENGTH` of its gain, as a 2×256 ELU network.
    ds = task.simulator.state_dim
    reference = torch.tensor(task.reference_state or (0.0,) * ds, dtype=torch.float64)
    gain = STRENGTH * riccati_gain(prior, reference, task.discount)
    policy = distil(task, gain, reference, SEED, progress)
    critics = {
        name: fit_critic(task, policy, steps=n, seed=seed, progress=_named(progress, name))
        for name, n, seed in data_levels()
    }
    tails = {name: Tail(horizon, critic, task.discount) for name, critic in critics.items()}
    tail = tails[f"data {CRITICS[-1]}"]
    early = Tail(horizon, untrained_critic(task), task.discount)
    estimators = {
        name: Estimator(simulator, None, "first", replace(each, horizon=0))
        for name, each in tails.items()
    }
    for name, model in (("prior", prior), ("wrong", wrong)):
        estimators[name] = Estimator(model, model, "first", tail)
        estimators[f"mixed {name}"] = Estimator(simulator, model, "first", tail)
    estimators |= {
        f"prior, critic {n}": Estimator(prior, prior, "first", tails[f"data {n}"])
        for n in CRITICS[:-1]
    }
    estimators |= {
        "true": Estimator(simulator, simulator, "first", tail),
        "early prior": Estimator(prior, prior, "first", early),
        "early true": Estimator(simulator, simulator, "first", early),
    }
    return gradlab.measure(
        task, policy, None, estimators, horizon, starts, BATCH, law="start", seed=SEED,
        progress=progress, command="python -m analyses.bias_variance",
    )  # fmt: skip


def untrained_critic(task: Task) -> QCritic:
    """A critic as it is before its first update."""
    seed = int(torch.randint(2**31, (1,), generator=stream(SEED, "untrained critic")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        simulator = task.simulator
        return QCritic(simulator.state_dim, simulator.action_dim, scale=task.observation_scale)


def _named(progress: Progress, name: str) -> Progress:
    return lambda _, done, total: progress(name, done, total)


def kept(name: str, size: tuple[int, int] | None, runs: Path) -> Profile:
    """The measurement of one task, from its run file where there is one.

    Args:
        size: starts and horizon, where they are not the case's own.
    """
    case = CASES[name]()
    starts, horizon = size or (case.starts, HORIZON)
    file = runs / f"{name}-{starts}-starts-{horizon}-steps.h5"
    if file.exists():
        print(f"{name}: measured before, {file}")
        return gradlab.load(file)
    begun = time.monotonic()
    print(f"{name}: measuring")
    with bars() as progress:
        profile = measure(case, starts, horizon, progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    profile.save(file)
    print(f"{name}: measured in {time.monotonic() - begun:.0f} s, {profile.truth['reason']}")
    return profile


def main(
    small: bool = False,
    tasks: Sequence[str] = tuple(CASES),
    output: Path = FOLDER,
    runs: Path = RUNS,
) -> None:
    """Measure and draw.

    Args:
        small: few starts and steps.
        tasks: which of path-tracking, inverted-pendulum, lqr, double-integrator.
        output: folder of figures and tables.
        runs: folder of the run files; remove a file to measure its task again.
    """
    size = (32, 4) if small else None
    write({name: kept(name, size, runs) for name in tasks}, output)
