"""Arguments of a measurement that are refused at once: numbers, networks, estimators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import TERMINATIONS, Estimator
from gradlab.gradients.mixing.head import check_head
from gradlab.gradients.starts import Starts
from gradlab.gradients.ways import Way
from gradlab.networks.critics import CriticLike, as_critic
from gradlab.networks.interface import (
    act,
    check_critic,
    check_policy,
    check_trainable,
    double_copy,
    noise_dim,
)
from gradlab.networks.policies import check_stochastic
from gradlab.networks.rows import check_rows
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System
from gradlab.tasks import Task

FEWEST = 4  # groups that a jackknife needs


def check_arguments(horizon: int, starts: int, batch: int, termination: str) -> None:
    """What can be refused before anything is computed.

    Raises:
        InputError: names the argument, its value and what is expected.
    """
    validation.whole("horizon", horizon)
    if starts < FEWEST:
        raise InputError(
            f"starts is {starts}, expected at least {FEWEST}: intervals leave starts out"
        )
    validation.whole("starts", starts)
    validation.whole("batch", batch, 1)
    validation.word("termination", termination, TERMINATIONS)


def check_networks(task: Task, policy: nn.Module | None, critic: CriticLike | None) -> None:
    """Try networks, simulator and prior on two starts before anything expensive begins.

    Raises:
        InputError: names the network and what does not fit; a step that fails.
    """
    probe, da = task.starts(2, stream(0, "probe")), task.simulator.action_dim
    for system in (task.simulator, task.prior):
        if system is not None:
            stepped(system, probe.double(), torch.zeros(len(probe), da, dtype=torch.float64))
    if policy is not None:
        original = double_copy("policy", policy)
        check_policy(original, probe, da)
        check_trainable(policy)
        noise = torch.zeros(len(probe), noise_dim(policy), dtype=torch.float64)
        with torch.enable_grad():
            attached = act(original, probe.double(), noise).requires_grad
        if not attached:
            raise InputError(
                "policy has no gradient in its parameters: its actions are detached; remove "
                "no_grad, detach, rounding or numpy between them"
            )
    if critic is not None:
        check_critic(double_copy("critic", as_critic(critic)), "Q", probe, da)


def check_estimator(name: str, estimator: Estimator, task: Task, begin: Starts, truth: str) -> None:
    if truth == "objective" and not estimator.way.every and isinstance(estimator.states, Recorded):
        raise InputError(
            f"{name} reads recorded states, which the objective's truth would have to leave: use "
            f"truth='matched', or actions='all'"
        )
    if estimator.tail.discount != task.discount:
        raise InputError(
            f"{name} has discount {estimator.tail.discount}, the task {task.discount}: "
            f"their gradients differ in scale; use one discount"
        )
    if estimator.states.state_dim != task.simulator.state_dim:
        raise InputError(
            f"{name} has states of state_dim {estimator.states.state_dim}, the task's simulator "
            f"has {task.simulator.state_dim}"
        )
    if estimator.tail.critic is not None:
        check_critic(
            estimator.tail.critic, estimator.tail.value, begin.states, task.simulator.action_dim
        )


def check_density(way: Way, policy: nn.Module) -> None:
    """
    Raises:
        InputError: the scores of this way need a density, or a Gaussian head, which the policy has
            not.
    """
    if way.mixed:
        check_head(policy)
    elif not way.pathwise:
        check_stochastic(policy)


def check_steps(
    task: Task, policy: nn.Module, chosen: Mapping[str, Estimator], begin: Starts
) -> None:
    """Every system takes a step, and treats rows alone, on two starts."""
    two = begin.block(slice(0, 2))
    with torch.no_grad():
        action = act(policy, two.states, two.policy_noise(policy, 0, 0))
    named = {id(task.simulator): ("simulator", task.simulator)}
    named |= {} if task.prior is None else {id(task.prior): ("prior model", task.prior)}
    for name, estimator in chosen.items():
        for system in (estimator.states, estimator.jacobians):
            if system is not None:
                named.setdefault(id(system), (f"model of {name}", system))
    for name, system in named.values():
        if not isinstance(system, Recorded):
            stepped(system, two.states, action)  # what fails here is not to fail after the truth
            check_rows(f"step of the {name}", partial(stepped, system), two.states, action)


def stepped(system: System, state: Tensor, action: Tensor) -> Tensor:
    out = system.step(state, action, None)
    return torch.cat([out.state, out.reward[:, None]], dim=1)
