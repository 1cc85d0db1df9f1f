"""The estimators of a measurement: the user's, or the default ones with what is asked for beside.

score, ivw, ddcg, total    of the simulator, θ in every action (`gradients.ways`)
cut_EDGE                   of the simulator, all actions, that derivative taken as zero
                           (`gradients.cut`)
replayed                   of the model, where there is one: all actions, from visited states
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

from torch import nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.gradients.cut import EDGES, Cut
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.gradients.ways import WAYS, Name
from gradlab.measurement.arguments import check_density
from gradlab.networks.critics import CriticLike, as_critic
from gradlab.networks.interface import double_copy
from gradlab.runs.identity import Identity, Jacobians, States, told_apart
from gradlab.systems.entropy import Entropic
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System
from gradlab.tasks import Task

CUTS = {f"cut_{edge}": Cut((edge,)) for edge in EDGES}
DENSITIES = tuple(name for name, way in WAYS.items() if not way.pathwise)
ALSO = (*DENSITIES, *CUTS, "replayed")


def check_also(also: Sequence[str], given: object) -> None:
    """
    Raises:
        InputError: no such estimator, or one beside estimators of the user's own.
    """
    validation.instance("also", also, (tuple, list), "a tuple of names, such as ('ivw',)")
    for name in also:
        validation.word("also", name, ALSO)
    if also and given is not None:
        raise InputError(
            f"also names {', '.join(also)}, which stand beside the default estimators: put them "
            f"among estimators of your own"
        )


def check_densities(also: Sequence[str], policy: nn.Module | None) -> None:
    """
    Args:
        policy: the user's; None: one is fitted, which is deterministic.

    Raises:
        InputError: a name needs scores, which the policy has not.
    """
    for name in DENSITIES:
        if name not in also:
            continue
        if policy is None:
            raise InputError(
                f"also names {name}, which needs a stochastic policy, and the one that is fitted "
                f"here is deterministic: give a policy with a density"
            )
        check_density(WAYS[name], policy)


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
        also: names of `ALSO`, each there as true_dynamics_NAME; as model_replayed with a prior.
    """
    if given is not None:
        validation.instance("estimators", given, Mapping, "a dictionary of Estimators by name")
        if not given:
            raise InputError("estimators is empty: name at least one, or leave it out")
        for name, estimator in given.items():
            if not isinstance(estimator, Estimator):
                got = type(estimator).__name__
                raise InputError(f"estimator {name!r} is a {got}: measure its parts, Estimators")
        return {name: _lengthened(estimator, horizon) for name, estimator in given.items()}
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
    for name in also:
        of = "model" if prior is not None and name == "replayed" else "true_dynamics"
        chosen[f"{of}_{name}"] = _beside(name, task, tail)
    return chosen


def identify(chosen: Mapping[str, Estimator], simulator: System) -> dict[str, Identity]:
    """Who each estimator is, by its objects: any system that is not the simulator is a model."""
    return told_apart([_identity(name, each, simulator) for name, each in chosen.items()])


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


def _beside(name: str, task: Task, tail: Tail) -> Estimator:
    simulator = task.simulator
    if name in CUTS:
        return Estimator(simulator, simulator, "all", tail, cut=CUTS[name])
    if name == "replayed":
        own = simulator if task.prior is None else task.prior
        return Estimator(own, own, "replayed", tail, replay=simulator)
    model = simulator if WAYS[name].differentiates else None
    return Estimator(simulator, model, cast(Name, name), tail)


def _lengthened(estimator: Estimator, horizon: int) -> Estimator:
    given = estimator.tail.critic
    critic = None if given is None else copy.deepcopy(given).double()
    longest = 0 if estimator.jacobians is None and estimator.way.differentiates else horizon
    return replace(estimator, tail=replace(estimator.tail, critic=critic, horizon=longest))
