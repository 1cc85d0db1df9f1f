"""Arguments of a measurement that are refused at once, and its estimators.

    visited   states that the policy visits from the task's starts, where an update takes its
              gradients; the truth is the gradient of the return, ∇_θ E_ζ[V^π]
    start     the starts themselves (or those that are given); each kind of gradient has a truth of
              its own, which may be nearly orthogonal to the gradient of the return

    score, ivw, ddcg, total    of the simulator, θ in every action (`gradients.weighted_terms`)
    cut_transition, decay_α, stop_k    of the simulator, all actions (`gradients.courses.Cut`)
    replayed                   of the model: all actions, from visited states

In a world model's latent the ways by density are of the model, and `score` and `ivw` stand among
the default estimators of a policy that has one, as in Dreamer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients.courses import Cut, check_head
from gradlab.gradients.estimator import TERMINATIONS, Estimator
from gradlab.gradients.setting import Starts, Tail
from gradlab.gradients.ways import WAYS, Name, Way
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
from gradlab.runs.identity import Identity, Jacobians, States, told_apart
from gradlab.systems.system import Entropic, Recorded, System
from gradlab.tasks import Task, trimmed
from gradlab.tasks.world_models import Imagined

Law = Literal["visited", "start"]
TruthKind = Literal["objective", "matched"]
LAWS, TRUTHS = get_args(Law), get_args(TruthKind)


def resolved(
    starts: int | Tensor | Path, law: str | None, truth: str | None
) -> tuple[Law, TruthKind]:
    """Law and truth of a measurement, what is None by its default.

    A number of starts means visited states, a tensor or a path the states that it holds; visited
    states are judged by the gradient of the return, given ones by their matched truths.

    Raises:
        InputError: an unknown word, or law, truth and starts that contradict one another.
    """
    if law is not None:
        validation.word("law", law, LAWS)
    if truth is not None:
        validation.word("truth", truth, TRUTHS)
    counted = isinstance(starts, int)
    _check_contradictions(starts, law, truth)
    if law is None:
        law = "visited" if counted or truth == "objective" else "start"
    if truth is None:
        truth = "objective" if law == "visited" else "matched"
    return cast(Law, law), cast(TruthKind, truth)


def narrowed(task: Task, trim_starts: float, starts: int | Tensor | Path) -> Task:
    """The task with its starts trimmed by this share; as it is where that is 0.

    Raises:
        InputError: it is no such share, or the states were given and so have no law to trim.
    """
    share = validation.number("trim_starts", trim_starts, "a share of the starts, 0 for none")
    if share == 0:
        return task
    if not isinstance(starts, int):
        raise InputError(
            f"trim_starts is {share:g}, but starts holds the states themselves: leave out "
            f"rows by a rule that was fixed before they were drawn, or give a number of starts"
        )
    return trimmed(task, share)


def _check_contradictions(starts: int | Tensor | Path, law: str | None, truth: str | None) -> None:
    if law == "start" and truth == "objective":
        raise InputError(
            "law is 'start' and truth is 'objective': against the gradient of the return, "
            "first-action gradients are judged at visited states; leave law out, or use "
            "truth='matched' at the starts"
        )
    if law != "visited" or isinstance(starts, int):
        return
    if isinstance(starts, Path):
        raise InputError(
            "law is 'visited' but starts is a Path, which is a law of its own: leave law out, or "
            "give a number of starts"
        )
    if truth == "matched":
        raise InputError(
            "law is 'visited' and truth is 'matched', but starts is a tensor, whose rows are the "
            "states to judge at: leave law out, or give a number of starts"
        )


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


def stepped(system: System, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Tensor:
    out = system.step(state, action, noise)
    if out.reward.shape != (len(state),):
        got = list(out.reward.shape)
        raise InputError(f"step returned the reward {got}, expected [{len(state)}]: flatten it")
    return torch.cat([out.state, out.reward[:, None]], dim=1)


_CUTS = {"cut_transition": Cut(transition=True)}
_DENSITIES = tuple(name for name, way in WAYS.items() if not way.pathwise)
_DECAYS = tuple(f"decay_{alpha}" for alpha in (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99))
_IMAGINED = ("score", "ivw")  # by default, in a world model's latent
ALSO = (*_DENSITIES, *_CUTS, "decay", "replayed")


def check_also(also: Sequence[str], given: object) -> None:
    """
    Raises:
        InputError: no such estimator, or one beside estimators of the user's own.
    """
    validation.instance("also", also, (tuple, list), "a tuple of names, such as ('ivw',)")
    for name in also:
        if _own_cut(name) is None:
            validation.word("also", name, (*ALSO, "decay_α (0 ≤ α < 1)", "stop_k (k ≥ 1)"))
    if also and given is not None:
        raise InputError(
            f"also names {', '.join(also)}, which stand beside the default estimators: put them "
            f"among estimators of your own"
        )


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


def _own_cut(name: str) -> Cut | None:
    """Of "decay_α", α a number in [0, 1), or "stop_k", k from 1; None: neither."""
    kind, _, number = name.partition("_") if isinstance(name, str) else ("", "", "")
    if kind == "stop" and number.isdecimal() and int(number) > 0:
        return Cut(stop=int(number))
    try:
        alpha = float(number)
    except ValueError:
        return None
    return Cut(decay=alpha) if kind == "decay" and 0 <= alpha < 1 else None


def check_densities(also: Sequence[str], policy: nn.Module | None) -> None:
    """
    Args:
        policy: the user's; None: one is fitted, which is deterministic.

    Raises:
        InputError: a name needs scores, which the policy has not.
    """
    for name in _DENSITIES:
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
        also: names of `ALSO`, each there as true_dynamics_NAME; as model_replayed with a prior, and
            in a world model's latent as model_score, model_ivw, …
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
        imagined = prior if isinstance(prior, Imagined) and name in _DENSITIES else None
        of_model = imagined is not None or (prior is not None and name == "replayed")
        label = f"{'model' if of_model else 'true_dynamics'}_{name}"
        chosen[label] = _beside(name, task, tail, imagined or simulator)
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


def _beside(name: str, task: Task, tail: Tail, system: System) -> Estimator:
    simulator = task.simulator
    cut = _CUTS.get(name) or _own_cut(name)
    if cut is not None:
        return Estimator(simulator, simulator, "all", tail, cut=cut)
    if name == "replayed":
        own = simulator if task.prior is None else task.prior
        return Estimator(own, own, "replayed", tail, replay=simulator)
    model = system if WAYS[name].differentiates else None
    return Estimator(system, model, cast(Name, name), tail)
