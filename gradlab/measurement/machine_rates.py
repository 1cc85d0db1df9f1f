"""Rates of this machine, by a test of less than a second, and the counts of a measurement.

Each piece of work is done a few times on few rows: a prediction that is good to a factor of two is
enough (`gradlab.measurement.prices`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import torch
from torch import nn

from gradlab.data.noise import stream
from gradlab.fitting import critics, policies
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.starts import as_starts
from gradlab.measurement.moments.visited import FEWEST, SAMPLES, VISITING
from gradlab.measurement.pilot import plan_pilot
from gradlab.measurement.prices import MeasurementWork, Price, Rates, measurement, network
from gradlab.networks.interface import act, flat_parameters
from gradlab.networks.mlp import Policy
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.truth.common_random import acting_along
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.scout import PATIENCE, SCOUTING, linearization_price

ROWS, DEAR = 128, 8  # states of the probe: of a system whose Jacobians are dear, fewer
_STEPS = 16  # of a path whose gradients are summed
UPDATES, REPEATS = 3, 4
_MOVED, _LEAST = 2**18, 4  # parameters of all rows whose policies are moved, and rows at least


def rates(task: Task, policy: nn.Module | None) -> Rates:
    """Seconds per piece of work.

    Args:
        policy: float64; None: a network like the one that is made.
    """
    with torch.random.fork_rng(devices=[]):
        system, prior = task.simulator, task.prior
        policy = policy or Policy(system.state_dim, system.action_dim).double()
        state = task.starts(ROWS, stream(0, "price")).double()
        starts = as_starts(state, system.state_dim)
        noise = starts.policy_noise(policy, 0, 0)
        with torch.no_grad():
            action = act(policy, state, noise)
        xi = system.sample_noise(ROWS, stream(0, "price noise"), state.dtype)
        one = torch.ones(1, ROWS, system.action_dim, dtype=state.dtype)
        several = one.reshape(_STEPS, ROWS // _STEPS, -1)

        def jacobians(of: System) -> float:
            rows = DEAR if linearization_price(of) else ROWS
            drawn = of.sample_noise(rows, stream(0, "price noise"), state.dtype)
            return _seconds(lambda: of.linearize(state[:rows], action[:rows], drawn)) / rows

        def gradients(weights: torch.Tensor) -> float:
            jacobian = policy_jacobian(policy, state, noise)
            return _seconds(lambda: gram.path_gradients(jacobian, weights)) / ROWS

        def rolled() -> None:
            with torch.no_grad():
                system.step(state, act(policy, state, noise), xi)

        # As where jumps are bisected: to move θ for each row is dearer than the step.
        direction = flat_parameters(policy)
        few = slice(0, max(_LEAST, min(ROWS, _MOVED // max(len(direction), 1))))
        lengths = torch.linspace(-1e-3, 1e-3, ROWS, dtype=state.dtype)[few]
        step = _seconds(rolled) / ROWS

        def moving() -> None:
            acting_along(policy, direction, lengths, state[few], noise[few])

        return Rates(
            step=step,
            moved=step + min(_seconds(moving) for _ in range(REPEATS)) / len(lengths),
            jacobian=jacobians(system),
            prior=0.0 if prior is None else jacobians(prior),
            summed=gradients(several),
            gradient=gradients(one),
            update=_update(system),
        )


def work(task: Task, starts: int, horizon: int, visited: bool, parameters: int) -> MeasurementWork:
    """The counts of a measurement of the default estimators."""
    dear, sim = linearization_price(task.simulator), task.simulator
    pilot = plan_pilot(sim, parameters, starts, horizon, task.discount)
    return MeasurementWork(
        starts=starts,
        horizon=horizon,
        truth=max(effective_horizon(task.discount), horizon),
        visits=SAMPLES if visited else 0,
        through_simulator=1,
        through_prior=0 if task.prior is None else 2,
        most_truth=(PATIENCE + SCOUTING) / dear if dear else float("inf"),
        most_visited=max(VISITING / dear, FEWEST * horizon) if dear else float("inf"),
        pilot=pilot.price,
    )


def network_steps(task: Task, kind: str) -> int:
    """Simulator steps for the data of a policy or a critic that is made."""
    if kind == "policy":
        return policies.STARTS * policies.taught_steps(task)
    visits = critics.TRAJECTORIES * critics.visited_steps(task)
    return visits + critics.TRAJECTORIES * critics.VISITED * critics.STEPS


def _update(system: System) -> float:
    """One step of descent of a network like the policy that is made."""
    network = Policy(system.state_dim, system.action_dim)
    optimizer = torch.optim.Adam(network.parameters())
    rows = torch.zeros(512, system.state_dim)

    def descend() -> None:
        for _ in range(UPDATES):
            optimizer.zero_grad()
            network(rows).square().mean().backward()
            optimizer.step()

    return _seconds(descend) / UPDATES


def _seconds(do: Callable[[], object]) -> float:
    """The best of a few: what else runs on the machine comes and goes."""
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        do()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def prices(
    task: Task,
    policy: nn.Module | None,
    made: Collection[str],
    starts: int,
    horizon: int,
    visited: bool,
) -> tuple[Price, ...]:
    """The plan of a measurement of the default estimators, networks that are made included.

    Args:
        made: of "policy" and "critic"; visited: gradients are judged where the policy goes.
    """
    measured = rates(task, policy)
    policy = (
        Policy(task.simulator.state_dim, task.simulator.action_dim) if policy is None else policy
    )
    parameters = sum(p.numel() for p in policy.parameters())
    updates = {"policy": policies.UPDATES, "critic": critics.UPDATES}
    first = [
        network(kind, network_steps(task, kind), updates[kind], measured)
        for kind in updates
        if kind in made
    ]
    return (*first, *measurement(work(task, starts, horizon, visited, parameters), measured))
