"""`measure`: bias and variance of policy gradients over every horizon.

All estimators see the same starts and the same noise streams, on float64 copies of policy and
critic; a truth that checks itself is the reference of every bias.

    resolve     what is asked, refused before anything is computed   (`measurement.resolve`)
    truth       the simulator's own gradient, where there is one and holds at an update's length
    moments     of every estimator and horizon                       → the profile
    stages      realised gains, rehearsal, checks, steps, attribution  (`runs.stages`)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.checks import CheckContext, run_checks
from gradlab.choice.best import with_selected_gain
from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Critics, Estimator
from gradlab.gradients.rollout import check_rollouts, noise_mode, rollout
from gradlab.measurement.assembly import assembled, configuration, predictions, truth_values
from gradlab.measurement.attribution import attributed, check_horizons
from gradlab.measurement.concentration import concentration
from gradlab.measurement.config import FEWEST, Law, MeasureConfig, Termination, TruthKind
from gradlab.measurement.inner_products import Measured, estimator_moments
from gradlab.measurement.jumps import truth_at_length
from gradlab.measurement.realised_gains import realised_gains
from gradlab.measurement.rehearsal import rehearsal
from gradlab.measurement.resolve import Resolved, resolve
from gradlab.measurement.update import Update
from gradlab.measurement.visited import objective_moments
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.jumps import Jumps
from gradlab.runs.profile import Profile, Surface
from gradlab.runs.stages import Stage, completed
from gradlab.tasks import Task
from gradlab.truth.oracles import AT_MOST
from gradlab.truth.truth import Truth, matched_truth
from gradlab.user_code import differentiating

_TRIED = 100  # steps of the simulator, at least, before anything is differentiated


def measure(
    task: Task,
    policy: nn.Module,
    critic: Critics,
    estimators: Mapping[str, Estimator] | None = None,
    horizon: int | None = None,
    starts: int | Tensor | Path = 256,
    batch: int = 256,
    truth: TruthKind | None = None,
    termination: Termination = "ignore",
    law: Law | None = None,
    seed: int = 0,
    *,
    attribute: bool | Sequence[int] = False,
    judges: int | None = None,
    trim_starts: float = 0.0,
    also: Sequence[str] = (),
    update: Update | None = None,
    rehearse: bool = True,
    max_steps: int | None = None,
    surface: Sequence[int] = (),
    progress: Progress = silent,
    command: str = "",
) -> Profile:
    """Bias, variance and mean squared error of policy gradients for every horizon 0 … H.

    Args:
        task: simulator, prior model (or None), start law and discount.
        policy: module, state [N, ds] → action [N, da]; measured as a float64 copy.
        critic: module or function, (state, action) → [N] or [N, 1]; used where `estimators` is not
            given. A sequence adds `variance_critics`, across the mean gradients with each of them
            (truth="matched"); all else is measured with the first, or with the estimators' own.
        estimators: named estimators; the horizon of each tail is replaced by 0 … H. By default
            data (J_0), model (prior × prior), mixed (simulator × prior) and true_dynamics with
            actions="first"; under the objective's truth also model_all, mixed_all and
            true_dynamics_all, the same with θ in every action.
        horizon: H; None for the task's own.
        starts: number of starts drawn from the task's law, or a tensor [N, ds], whose equal rows
            count as one start, or a path. More than fit into memory are refused.
        batch: N′ at which the mean squared error is stated.
        truth: "objective": ∇_θ E_ζ[V^π], the gradient of the return, is the one truth of all, with
            ζ the law of the starts; estimators with actions="first" are evaluated at states
            visited from these starts, times 1/(1 − γ) (see `gradlab.measurement.visited`).
            "matched": every kind of gradient has its own (see `gradlab.truth.truth`). None:
            "objective" at visited states, else "matched".
        termination: "ignore" model rollouts run on, or "mask" rewards after a terminal state.
        law: "visited": gradients are judged at states that the policy visits from the starts, as
            an update takes them; "start": at the starts themselves. None: "visited" for a number
            of starts, "start" for a tensor or a path (see `gradlab.measurement.config`).
        attribute: True, or at most 8 horizons: keep what `gradlab.attribute` needs to say which
            part made the error (see `gradlab.measurement.attribution`); takes several
            times as long.
        judges: fresh starts that judge steps along some of the mean gradients, and rehearsals,
            where more of them make more draws; only where the starts' law is the task's and the
            truth the return's gradient. None: as many as the measurement has, and 256 for
            rehearsals, 128 of a simulator that is differenced (`gradlab.measurement.rehearsal`).
        trim_starts: leave out this share of the task's law of starts, the farthest from their
            mean: another law, for tails that no sample of N shows (see `gradlab.tasks.trimmed`).
            0: none.
        also: estimators of the simulator beside the default ones, each as true_dynamics_NAME:
            "score", "ivw", "ddcg", "total" (of stochastic policies), "cut_transition",
            "decay_0.9", "stop_5", …, or "decay" for seven of them; see
            `gradlab.measurement.arguments`. In a world model's latent those by density are the
            model's, and "score" and "ivw" are there where the policy has a density.
        update: your optimiser and rate; truth and gradients are tried at the length of its steps
            (see `gradlab.measurement.update`). None: a step that moves actions at the start states
            by 4% of their size, and rehearsals by Adam at 3e-4, or less if that is too long.
        rehearse: make the updates of competing gradients ahead, those between two fits of the
            critic, by two draws of states and batches, and confirm the highest by fresh ones;
            where `judges` judge (see `gradlab.measurement.rehearsal`).
        max_steps: steps that the truth is unrolled at most, at least H; None: as many as it needs
            (`gradlab.truth.truth`).
        surface: model steps h for each of which a slice of the value estimate around the policy
            is kept, by the prior, else the simulator (see `gradlab.runs.profile.Surface`).
        progress: called as progress(stage, done, total).
        command: recorded in the file, so that a reader can repeat the run.

    Raises:
        InputError: names the argument, what it got and what to do.
        Interrupted: by Ctrl-C, once every estimator is measured; its profile is what there is.
    """
    update = Update() if update is None else update
    validation.instance("update", update, Update, "a gradlab.measurement.update.Update, or None")
    given = None if isinstance(starts, int | np.integer) else starts
    horizons = None if isinstance(attribute, bool) else attribute or ()
    options: dict[str, Any] = {
        "horizon": horizon, "starts": starts if given is None else FEWEST, "batch": batch,
        "truth": truth, "termination": termination, "law": law, "seed": seed,
        "attribute": attribute if horizons is None else True,
        "judges": judges, "trim_starts": trim_starts, "also": also, "no_rehearsal": not rehearse,
        "max_steps": max_steps, "surface": surface, "lr": update.rate, "refit": update.refit,
    }  # fmt: skip
    if not callable(update.optimizer):
        options["optimizer"] = update.optimizer
    return conduct(
        MeasureConfig(**options), task, policy, critic, estimators, given=given,
        attributed_at=horizons, update=update, progress=progress, command=command,
    )  # fmt: skip


@differentiating
def conduct(
    config: MeasureConfig,
    task: Task,
    policy: nn.Module,
    critic: Critics,
    estimators: Mapping[str, Estimator] | None = None,
    *,
    given: Tensor | Path | None = None,
    attributed_at: Sequence[int] | None = None,
    update: Update | None = None,
    progress: Progress = silent,
    command: str = "",
) -> Profile:
    """`measure` as it is configured.

    Args:
        given: starts in the place of drawn ones.
        attributed_at: horizons of the attribution; None: by its own rule.
        update: an optimiser that no name stands for; None: the configured one.
    """
    begun, progress = time.monotonic(), check_progress(progress)
    asked = resolve(config, task, policy, critic, estimators, given)
    config, task, setting = asked.config, asked.task, asked.setting
    if attributed_at is not None:
        check_horizons(attributed_at, setting.horizon)
    if update is None:
        update = Update(config.optimizer, config.lr, config.refit)
    update.check(setting)
    check_rollouts(setting, max(setting.horizon, _TRIED))
    progress("truth", 0, AT_MOST)
    truth = matched_truth(setting, kinds=asked.kinds, progress=progress, max_steps=config.max_steps)
    if asked.objective:
        truth, jumps, beside = _tried(asked, update, truth, progress)
        measured = objective_moments(asked.chosen, setting, truth, progress, batch=config.batch)
    else:
        jumps, beside, others = None, {}, asked.other_critics
        measured = estimator_moments(asked.chosen, setting, truth, progress, others, config.batch)
    pathwise = truth.pathwise
    means = [] if pathwise is None else [pathwise.gradients.mean(dim=0)]
    means += measured.means.values()
    # The user's update is as long as it is along the pathwise gradient, else the first finite one.
    along = next((mean for mean in means if torch.isfinite(mean).all()), means[0])
    profile = replace(_profile(asked, measured, truth, update, along, command), jumps=jumps)

    def realised(profile: Profile) -> Profile:
        move = update.move(setting, along)
        found = realised_gains(asked, measured, truth, beside, profile.table(), move, progress)
        return replace(profile, realised=found)

    def rehearsed(profile: Profile) -> Profile:
        found = rehearsal(asked, measured, truth, profile.table(), update, progress)
        return replace(profile, rehearsal=found)

    def checked(profile: Profile) -> Profile:
        progress("checks", 0, 1)
        context = CheckContext(
            task, setting, setting.starts, asked.given, asked.critics, asked.chosen, truth,
            measured.at, measured.cells,
        )  # fmt: skip
        sanity = (*run_checks(context), *concentration(asked, measured, progress))
        progress("checks", 1, 1)
        return replace(profile, sanity=sanity)

    def causes(profile: Profile) -> Profile:
        found, optimum = attributed(profile, asked, attributed_at, progress)
        sanity = (*(profile.sanity or ()), *optimum) or None
        return replace(profile, attribution=found, sanity=sanity)

    def sliced(profile: Profile) -> Profile:
        return replace(profile, surface=_loss_surface(asked, progress))

    stepped = asked.drawn and asked.objective
    stages: dict[str, tuple[bool, Stage]] = {
        "realised gains": (stepped, realised),
        "rehearsal": (stepped and not config.no_rehearsal, rehearsed),
        "checks": (True, checked),
        "attribution": (config.attribute, causes),
        "surface": (bool(config.surface), sliced),
    }
    wanted = {name: stage for name, (due, stage) in stages.items() if due}
    return completed(profile, wanted, begun)


def _tried(
    asked: Resolved, update: Update, truth: Truth, progress: Progress
) -> tuple[Truth, Jumps | None, dict[str, Tensor]]:
    """`truth_at_length` of the user's update."""
    if truth.pathwise is None or not torch.isfinite(truth.pathwise.gradients).all():
        return truth, None, {}
    few = asked.setting.starts.block(slice(0, len(truth.pathwise.gradients)))
    setting = replace(asked.setting, starts=few)
    move = update.move(setting, truth.pathwise.gradients.mean(dim=0))
    plain = replace(asked.setting, simulator=asked.task.simulator, policy=asked.original)
    return truth_at_length(setting, truth, move, plain, asked.alpha, progress)


def _profile(
    asked: Resolved, measured: Measured, truth: Truth, update: Update, along: Tensor,
    command: str,
) -> Profile:  # fmt: skip
    """Moments as labelled values, with what was asked for."""
    config, setting, chosen = asked.config, asked.setting, asked.chosen
    kind = str(config.truth)
    facts = {name: each for name, each in asdict(config).items() if each not in (None, ())}
    facts |= configuration(
        asked.task, setting, asked.original, asked.critic, config.batch, kind, command,
    )  # fmt: skip
    facts |= {
        "model": predictions(asked.task),
        "starts_used": measured.starts,
        "visits": measured.visits,
        "critics": 0 if asked.critic is None else len(asked.critics),
        "update": {
            "optimizer": update.name,
            "rate": update.rate_for(setting, along),
            "refit": update.refit,
            "move": update.move(setting, along),
            "assumed": update.assumed,
        },
        "entropy": asked.alpha,
        "actions": {name: estimator.actions for name, estimator in chosen.items()},
        "jacobian_noise": {
            name: noise_mode(estimator.states, estimator.jacobians)
            for name, estimator in chosen.items()
        },
    }
    if cuts := {name: str(one.cut) for name, one in chosen.items() if one.cut}:
        facts["cut"] = cuts
    if asked.rows != facts["starts"]:
        facts["rows"] = asked.rows
    environment = provenance.environment() | {"precision": "float64"}
    profile = assembled(
        measured.cells, setting.horizon, config.batch, facts, environment,
        truth_values(truth, kind),
    )  # fmt: skip
    return with_selected_gain(
        replace(profile, kernels=measured.kernels, identities=asked.identities)
    )


_POINTS, _STARTS, _STREAM = 21, 32, "surface"


@torch.no_grad()
def _loss_surface(asked: Resolved, progress: Progress) -> Surface:
    """At 21 × 21 points, from the first 32 starts; on the task's prior, or else its simulator."""
    unrolled = sorted(set(asked.config.surface))
    tail = next(iter(asked.chosen.values())).tail
    if tail.critic is None:
        raise InputError("surface needs a critic, which values where the model's steps end")
    task, critic = asked.task, tail.critic
    model = task.simulator if task.prior is None else task.prior
    starts = asked.setting.starts.block(slice(0, _STARTS))
    policy = copy.deepcopy(asked.original)
    parameters = list(policy.parameters())
    theta = [each.clone() for each in parameters]
    moves = []  # u and v, random, each tensor with the norm that it has in θ (1 where that is 0)
    for k in range(2):
        generator = stream(asked.setting.seed, _STREAM, k)
        drawn = [torch.randn(each.shape, generator=generator, dtype=each.dtype) for each in theta]
        norms = [float(each.norm()) or 1.0 for each in theta]
        moves.append([x / x.norm() * norm for x, norm in zip(drawn, norms, strict=True)])
    line = torch.linspace(-1, 1, _POINTS, dtype=torch.float64)
    loss = np.full((len(unrolled), _POINTS, _POINTS), np.nan)
    for i, alpha in enumerate(line):
        progress("surface", i, _POINTS)
        for j, beta in enumerate(line):
            for each, value, along, across in zip(parameters, theta, *moves, strict=True):
                each.copy_(value + alpha * along + beta * across)
            path = rollout(model, policy, starts, max(unrolled), asked.setting.seed)
            sums = [torch.zeros_like(path.weight)]
            for t, reward in enumerate(path.rewards):
                sums.append(sums[-1] + task.discount**t * reward)
            for k, h in enumerate(unrolled):
                valued = (
                    (path.states[h], path.actions[h]) if tail.value == "Q" else (path.states[h],)
                )
                total = sums[h] + task.discount**h * critic(*valued).reshape(-1)
                loss[k, i, j] = -float((path.weight * total).mean())
    progress("surface", _POINTS, _POINTS)
    points = line.numpy()
    return Surface(np.array(unrolled), points, points.copy(), loss)
