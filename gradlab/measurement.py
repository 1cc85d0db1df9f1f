"""`measure`: bias and variance of policy gradients over every horizon.

All estimators see the same starts and the same noise streams, on float64 copies of policy and
critic; a truth that checks itself is the reference of every bias.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from gradlab import provenance
from gradlab.assembly import assembled, configuration, truth_values
from gradlab.assumptions import theory
from gradlab.attributing import World, attributed, check_horizons
from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.consequence import Question
from gradlab.gradients.consequence import consequence as stepped
from gradlab.gradients.estimator import (
    TERMINATIONS,
    Estimator,
    Tail,
    augmenting,
    softened,
)
from gradlab.gradients.groups import group_count
from gradlab.gradients.inner_products import estimator_moments
from gradlab.gradients.objective import SAMPLES, objective_moments
from gradlab.gradients.oracles import effective_horizon
from gradlab.gradients.rivals import Critics, listed, with_other_critics
from gradlab.gradients.rollout import noise_mode
from gradlab.gradients.start_laws import check_alive, visitation
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.truth import matched_truth
from gradlab.hooks import Progress, silent
from gradlab.judgement import judged_cells
from gradlab.laws import Law, TruthKind, resolved
from gradlab.networks.entropy import WithLogProb
from gradlab.networks.interface import check_critic, check_policy, check_trainable
from gradlab.profile import Profile
from gradlab.realising import Stepping, check_judges, realised_gains
from gradlab.sanity import examine
from gradlab.stages import Stage, completed
from gradlab.systems.recorded import Recorded
from gradlab.tasks import Task

FEWEST = 4  # groups that a jackknife needs
MEMORY = 8e9  # bytes of Jacobians that are held at once


def measure(
    task: Task,
    policy: nn.Module,
    critic: Critics,
    estimators: Mapping[str, Estimator] | None = None,
    horizon: int | None = None,
    starts: int | Tensor | Path = 256,
    batch: int = 256,
    truth: TruthKind | None = None,
    termination: Literal["ignore", "mask"] = "ignore",
    law: Law | None = None,
    seed: int = 0,
    *,
    attribute: bool | Sequence[int] = False,
    consequence: bool = False,
    judges: int | None = None,
    progress: Progress = silent,
    command: str = "",
) -> Profile:
    """Bias, variance and mean squared error of policy gradients for every horizon 0 … H.

    Args:
        task: simulator, prior model (or None), start law and discount.
        policy: module, state [N, ds] → action [N, da]; measured as a float64 copy.
        critic: module, (state, action) → [N]; used where `estimators` is not given. A sequence
            adds `variance_critics`, across the mean gradients with each of them (truth="matched");
            all else is measured with the first, or with the estimators' own.
        estimators: named estimators; the horizon of each tail is replaced by 0 … H. By default
            data (J_0), model (prior × prior), mixed (simulator × prior) and true_dynamics with
            actions="first"; under the objective's truth also model_all, mixed_all and
            true_dynamics_all, the same with θ in every action.
        horizon: H; None for the task's own.
        starts: number of starts drawn from the task's law, or a tensor [N, ds], or a path.
        batch: N′ at which the mean squared error is stated.
        truth: "objective": ∇_θ E_ζ[V^π], the gradient of the return, is the one truth of all, with
            ζ the law of the starts; estimators with actions="first" are evaluated at states
            visited from these starts, times 1/(1 − γ) (see `gradlab.gradients.objective`).
            "matched": every kind of gradient has its own (see `gradlab.gradients.truth`). None:
            "objective" at visited states, else "matched".
        termination: "ignore" model rollouts run on, or "mask" rewards after a terminal state.
        law: "visited": gradients are judged at states that the policy visits from the starts, as
            an update takes them; "start": at the starts themselves. None: "visited" for a number
            of starts, "start" for a tensor or a path (see `gradlab.laws`).
        attribute: True, or at most 8 horizons: keep what `gradlab.attribute` needs to say which
            part made the error (see `gradlab.attributing`); takes several times as long.
        consequence: step along every gradient and keep what each step does to the return
            (see `gradlab.gradients.consequence`).
        judges: fresh starts from which steps along some of the mean gradients are rolled out,
            wherever the starts' law is the task's and the truth the return's gradient. None: what
            15% of the measurement buys (see `gradlab.realising`).
        progress: called as progress(stage, done, total).
        command: recorded in the file, so that a reader can repeat the run.

    Raises:
        InputError: names the argument, what it got and what to do.
        Interrupted: by Ctrl-C, once every estimator is measured; its profile is what there is.
    """
    begun = time.monotonic()
    H = task.horizon if horizon is None else horizon
    check_arguments(H, starts if isinstance(starts, int) else FEWEST, batch, termination)
    check_horizons(attribute, H)
    check_judges(judges)
    law, truth = resolved(starts, law, truth)
    given, policy = policy, copy.deepcopy(policy).double()
    critics = listed(critic)
    for each in critics or (None,):
        check_networks(task, policy, each)
    begin = judged_at(task, policy, starts, law, truth, termination, seed)
    first = critics[0] if critics else None
    chosen = estimators_at(task, first, estimators, H, every=truth == "objective")
    for name, estimator in chosen.items():
        _check_estimator(name, estimator, task, begin, truth)
    _check_memory(task, policy, chosen, H, len(begin.states), truth)
    alpha, original = _entropy(chosen), policy
    augment = augmenting(alpha) if alpha else lambda system: system
    own = {name: each.tail.critic for name, each in (estimators or {}).items()}
    rivals = {
        name: [softened(each, original, augment)[0] for each in several]
        for name, several in with_other_critics(
            chosen, own or dict.fromkeys(chosen, first), critics
        ).items()
    }
    chosen = {name: softened(each, original, augment)[0] for name, each in chosen.items()}
    policy = WithLogProb(original) if alpha else original
    simulator, kinds = augment(task.simulator), set(map(_kind, chosen.values()))
    reference = matched_truth(
        simulator, policy, begin, task.discount, H,
        kinds=["all"] if truth == "objective" else sorted(kinds, reverse=True),
        termination=termination, seed=seed, progress=progress,
    )  # fmt: skip
    if truth == "objective":
        measured = objective_moments(
            chosen, simulator, policy, begin, reference, H, termination, seed, progress
        )
    else:
        measured = estimator_moments(
            chosen, policy, begin, reference, H, termination, seed, progress, rivals
        )
    config = configuration(
        task, original, first, begin, H, batch, truth, termination, seed, command
    )
    config |= {
        "law": law,
        "critics": len(critics),
        "entropy": alpha,
        "actions": {name: each.actions for name, each in chosen.items()},
        "jacobian_noise": {
            name: noise_mode(each.states, each.jacobians) for name, each in chosen.items()
        },
    }
    environment = provenance.environment() | {"precision": "float64"}
    profile = assembled(
        measured.cells, H, batch, config, environment, truth_values(reference, truth)
    )
    profile = replace(profile, kernels=measured.kernels)

    def gains(profile: Profile) -> Profile:
        stepping = Stepping(
            task, simulator, policy, chosen, measured, reference, profile.table(),
            len(begin.states), H, termination, seed,
        )  # fmt: skip
        return replace(profile, realised=realised_gains(stepping, judges, progress))

    def checks(profile: Profile) -> Profile:
        progress("checks", 0, 1)
        examined = list(critics) if critics else _given_critics(estimators)
        sanity = examine(
            task, given, examined, chosen, policy, begin, measured.at, measured.cells,
            termination, seed,
        )  # fmt: skip
        steps = reference.horizon if reference.admissible and truth == "matched" else None
        bounds = theory(simulator, policy, chosen, begin, steps, H, termination, seed)
        progress("checks", 1, 1)
        return replace(profile, sanity=sanity, theory=bounds)

    def steps_made(profile: Profile) -> Profile:
        asked = Question(
            simulator, policy, begin, reference, task.discount, truth == "objective", termination,
            seed,
        )  # fmt: skip
        found = stepped(asked, chosen, judged_cells(profile), progress)
        return replace(profile, consequence=found)

    def attribution(profile: Profile) -> Profile:
        asked = None if isinstance(attribute, bool) else tuple(attribute)
        world = World(task, simulator, policy, begin, chosen, asked)
        return replace(profile, attribution=attributed(profile, world, progress))

    stages: dict[str, Stage] = {}
    if isinstance(starts, int) and truth == "objective":
        stages["realised gains"] = gains
    stages["checks"] = checks
    if consequence:
        stages["steps"] = steps_made
    if attribute is not False:
        stages["attribution"] = attribution
    return completed(profile, stages, begun)


def _given_critics(estimators: Mapping[str, Estimator] | None) -> list[nn.Module]:
    """The user's own critics, each once."""
    found = (each.tail.critic for each in (estimators or {}).values())
    return list({id(critic): critic for critic in found if critic is not None}.values())


def _kind(estimator: Estimator) -> str:
    """Which true gradient an estimator aims at: scores and pathwise gradients share one."""
    return "first" if estimator.actions == "first" else "all"


def _entropy(chosen: Mapping[str, Estimator]) -> float:
    """The temperature that all estimators share."""
    found = {name: each.entropy for name, each in chosen.items()}
    if len(set(found.values())) > 1:
        raise InputError(f"estimators have different entropy, {found}: their truths differ")
    return next(iter(found.values()))


def _check_memory(
    task: Task,
    policy: nn.Module,
    chosen: Mapping[str, Estimator],
    horizon: int,
    starts: int,
    truth: str,
) -> None:
    """Refuse what would not fit: the Jacobians of three systems along H steps of N starts, and,
    where θ counts in every action, the truth's explicit gradients and its own longer path."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    objective = truth == "objective"
    sampled = starts * (SAMPLES if objective else 1)
    needed = 8 * 3 * (horizon + 1) * sampled * (ds + da + 2) ** 2
    if objective or any(_kind(each) == "all" for each in chosen.values()):
        needed += 8 * 2 * starts * sum(p.numel() for p in policy.parameters())
        needed += 8 * effective_horizon(task.discount) * starts * (ds + da) ** 2
    if needed > MEMORY:
        raise InputError(
            f"horizon {horizon} with {starts} starts needs about {needed / 1e9:.0f} GB, more than "
            f"{MEMORY / 1e9:.0f} GB: lower one of them"
        )


def check_arguments(horizon: int, starts: int, batch: int, termination: str) -> None:
    """What can be refused before anything is computed.

    Raises:
        InputError: names the argument, its value and what is expected.
    """
    if not isinstance(horizon, int) or horizon < 0:
        raise InputError(f"horizon is {horizon!r}, expected an integer ≥ 0")
    if starts < FEWEST:
        raise InputError(
            f"starts is {starts}, expected at least {FEWEST}: intervals leave starts out"
        )
    if not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}, expected an integer ≥ 1")
    if termination not in TERMINATIONS:
        raise InputError(f"termination is {termination!r}, expected one of {TERMINATIONS}")


def check_networks(task: Task, policy: nn.Module | None, critic: nn.Module | None) -> None:
    """Try networks on two starts of the task before anything expensive begins.

    Raises:
        InputError: names the network and what does not fit.
    """
    probe, da = task.starts(2, stream(0, "probe")), task.simulator.action_dim
    if policy is not None:
        check_policy(copy.deepcopy(policy).double(), probe, da)
        check_trainable(policy)
    if critic is not None:
        check_critic(copy.deepcopy(critic).double(), "Q", probe, da)


def judged_at(
    task: Task,
    policy: nn.Module,
    starts: int | Tensor | Path,
    law: Law,
    truth: TruthKind,
    termination: str,
    seed: int,
) -> Starts:
    """The starts; under a matched truth at visited states these states, each a start of its own."""
    if isinstance(starts, int) and law == "visited" and truth == "matched":
        starts = visitation(task, policy, starts, seed, termination=termination)
        if termination == "mask":
            check_alive(as_starts(starts, task.simulator.state_dim))
    return starts_of(task, starts, seed)


def starts_of(task: Task, starts: int | Tensor | Path, seed: int) -> Starts:
    """Float64 starts, drawn from the task's law where only their number is given."""
    if isinstance(starts, int):
        starts = task.starts(starts, stream(seed, "starts"))
    if isinstance(starts, Path):
        begin = as_starts(starts, task.simulator.state_dim)
    else:
        begin = as_starts(torch.as_tensor(starts).double(), task.simulator.state_dim)
    path = None if begin.path is None else begin.path.double()
    begin = Starts(begin.states.double(), begin.weight.double(), begin.group, path=path)
    groups = group_count(begin.group)
    if groups < FEWEST:
        raise InputError(f"starts has {groups} groups, expected at least {FEWEST} independent ones")
    return begin


def estimators_at(
    task: Task,
    critic: nn.Module | None,
    given: Mapping[str, Estimator] | None,
    horizon: int,
    every: bool = False,
) -> dict[str, Estimator]:
    """The estimators at horizon H, with float64 copies of their critics.

    Args:
        every: whether the default ones are there with θ in every action, too.
    """
    if given is not None:
        if not given:
            raise InputError("estimators is empty: name at least one, or leave it out")
        for name, each in given.items():
            if not isinstance(each, Estimator):
                kind = type(each).__name__
                raise InputError(f"estimator {name!r} is a {kind}: measure its parts, Estimators")
        return {name: _lengthened(each, horizon) for name, each in given.items()}
    if critic is None:
        raise InputError("critic is None: give a critic, or estimators with tails of their own")
    tail = Tail(horizon, copy.deepcopy(critic).double(), task.discount)
    simulator, prior = task.simulator, task.prior
    unrolled = {"true_dynamics": Estimator(simulator, simulator, "first", tail)}
    if prior is not None:
        model = Estimator(prior, prior, "first", tail)
        unrolled = {"model": model, "mixed": replace(model, states=simulator)} | unrolled
    chosen = {"data": Estimator(simulator, None, "first", replace(tail, horizon=0))} | unrolled
    if not every:
        return chosen
    return chosen | {f"{name}_all": replace(e, actions="all") for name, e in unrolled.items()}


def _lengthened(estimator: Estimator, horizon: int) -> Estimator:
    given = estimator.tail.critic
    critic = None if given is None else copy.deepcopy(given).double()
    longest = 0 if estimator.jacobians is None and estimator.actions != "score" else horizon
    return replace(estimator, tail=replace(estimator.tail, critic=critic, horizon=longest))


def _check_estimator(
    name: str, estimator: Estimator, task: Task, begin: Starts, truth: str
) -> None:
    if (
        truth == "objective"
        and _kind(estimator) == "first"
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
