"""Estimators of a measurement, and what networks and systems are tried for at once.

    score, ivw, ddcg, total    of the simulator, θ in every action (`gradients.weighted_terms`)
    cut_transition, decay_α, stop_k    of the simulator, all actions (`GradientStop`)
    replayed                   of the model: all actions, from visited states

In a world model's latent the ways by density are of the model, and `score` and `ivw` stand among
the default estimators of a policy that has one, as in Dreamer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Starts, Tail
from gradlab.gradients.trajectory import GradientStop, check_head
from gradlab.gradients.ways import WAYS, Name, Way
from gradlab.measurement.config import DENSITIES, cut_of
from gradlab.networks.interface import (
    act,
    check_critic,
    check_policy,
    check_rows,
    check_trainable,
    double_copy,
    noise_dim,
)
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.networks.policies import check_stochastic
from gradlab.runs.identity import Identity, Jacobians, States, mark_ambiguous
from gradlab.systems.system import Entropic, Recorded, System
from gradlab.tasks import Task
from gradlab.tasks.world_models import Imagined


def check_networks(
    task: Task, policy: nn.Module | None, critic: CriticLike | None, trained: bool = True
) -> None:
    """Try networks, simulator and prior on two starts before anything expensive begins.

    Args:
        trained: the policy's parameters are to have a gradient.

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
        if trained:
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
    if (
        truth == "objective"
        and not estimator.way.all_actions
        and isinstance(estimator.states, Recorded)
    ):
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


def stepped(system: System, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Tensor:
    out = system.step(state, action, noise)
    if out.reward.shape != (len(state),):
        got = list(out.reward.shape)
        raise InputError(f"step returned the reward {got}, expected [{len(state)}]: flatten it")
    return torch.cat([out.state, out.reward[:, None]], dim=1)


_DECAYS = tuple(f"decay_{alpha}" for alpha in (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99))
_IMAGINED = ("score", "ivw")  # by default, in a world model's latent


def with_imagined(
    also: Sequence[str], task: Task, policy: nn.Module, given: object
) -> tuple[str, ...]:
    """`also`, and what a world model is measured by where the policy has what it needs."""
    imagined = given is None and isinstance(task.prior, Imagined)
    names = [name for name in _IMAGINED if imagined and _has_density(WAYS[name], policy)]
    return tuple(dict.fromkeys((*also, *names)))


def _has_density(way: Way, policy: nn.Module) -> bool:
    try:
        check_density(way, policy)
    except InputError:
        return False
    return True


def estimators_at(
    task: Task,
    critic: CriticLike | None,
    given: Mapping[str, Estimator] | None,
    horizon: int,
    every: bool = False,
    also: Sequence[str] = (),
) -> dict[str, Estimator]:
    """The estimators at horizon H, with float64 copies of their critics.

    Args:
        every: whether the default ones are there with θ in every action, too.
        also: names of `config.ALSO`, each there as true_dynamics_NAME; as model_replayed with a
            prior, and in a world model's latent as model_score, model_ivw, …
    """
    if given is not None:
        validation.instance("estimators", given, Mapping, "a dictionary of Estimators by name")
        if not given:
            raise InputError("estimators is empty: name at least one, or leave it out")
        lengthened = {}
        for name, estimator in given.items():
            if not isinstance(estimator, Estimator):
                got = type(estimator).__name__
                raise InputError(f"estimator {name!r} is a {got}: measure its parts, Estimators")
            own = estimator.tail.critic
            copied = None if own is None else double_copy("critic", own)
            of_critic = estimator.jacobians is None and estimator.way.differentiates
            tail = replace(estimator.tail, critic=copied, horizon=0 if of_critic else horizon)
            lengthened[name] = replace(estimator, tail=tail)
        return lengthened
    if critic is None:
        raise InputError("critic is None: give a critic, or estimators with tails of their own")
    tail = Tail(horizon, double_copy("critic", as_critic(critic)), task.discount)
    simulator = task.simulator
    prior = None if task.prior is simulator else task.prior  # of what is measured once
    unrolled = {"true_dynamics": Estimator(simulator, simulator, "first", tail)}
    if prior is not None:
        model = Estimator(prior, prior, "first", tail)
        unrolled = {"model": model, "mixed": replace(model, states=simulator)} | unrolled
    chosen = {"data": Estimator(simulator, None, "first", replace(tail, horizon=0))} | unrolled
    if every:
        chosen |= {f"{name}_all": replace(e, actions="all") for name, e in unrolled.items()}
    if "decay" in also:  # α = 1 beside them
        chosen["true_dynamics_all"] = replace(unrolled["true_dynamics"], actions="all")
    several = (x for name in also for x in (_DECAYS if name == "decay" else (name,)))
    for name in dict.fromkeys(several):
        imagined = prior if isinstance(prior, Imagined) and name in DENSITIES else None
        of_model = imagined is not None or (prior is not None and name == "replayed")
        label = f"{'model' if of_model else 'true_dynamics'}_{name}"
        chosen[label] = _beside(name, task, tail, imagined or simulator)
    return chosen


def identify(chosen: Mapping[str, Estimator], simulator: System) -> dict[str, Identity]:
    """Who each estimator is, by its objects: any system that is not the simulator is a model."""
    return mark_ambiguous([_identity(name, each, simulator) for name, each in chosen.items()])


def _identity(name: str, estimator: Estimator, simulator: System) -> Identity:
    states, jacobians = _plain(estimator.states), estimator.jacobians
    own = _plain(jacobians) if jacobians is not None else None
    whose: States = "recorded" if isinstance(states, Recorded) else _whose(states, simulator)
    derivatives: Jacobians = "none" if own is None else _whose(own, simulator)
    tail = estimator.tail
    return Identity(
        name, whose, derivatives, estimator.actions,
        tail="none" if tail.critic is None else tail.value,
        gradient_model=(whose, derivatives) == ("model", "model") and states is not own,
        cut=str(estimator.cut),
    )  # fmt: skip


def _whose(system: System, simulator: System) -> Literal["simulator", "model"]:
    return "simulator" if system is _plain(simulator) else "model"


def _plain(system: System) -> System:
    """Without an entropy term."""
    return system.system if isinstance(system, Entropic) else system


def _beside(name: str, task: Task, tail: Tail, system: System) -> Estimator:
    simulator = task.simulator
    if cut := cut_of(name):
        return Estimator(simulator, simulator, "all", tail, cut=GradientStop(**cut))
    if name == "replayed":
        own = simulator if task.prior is None else task.prior
        return Estimator(own, own, "replayed", tail, replay=simulator)
    model = system if WAYS[name].differentiates else None
    return Estimator(system, model, cast(Name, name), tail)
