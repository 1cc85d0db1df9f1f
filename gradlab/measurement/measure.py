"""`measure`: bias and variance of policy gradients over every horizon.

All estimators see the same starts and the same noise streams, on float64 copies of policy and
critic; a truth that checks itself is the reference of every bias.

    problem     what is asked, refused before anything is computed   (`measurement.problem`)
    truth       the simulator's own gradient, where there is one and holds at an update's length
    moments     of every estimator and horizon                       → the profile
    stages      realised gains, rehearsal, checks, steps, attribution  (`runs.stages`)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

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
from gradlab.measurement.arguments import Law, TruthKind
from gradlab.measurement.assembly import assembled, configuration, predictions, truth_values
from gradlab.measurement.attribution import MeasuredWorld, attributed, check_horizons
from gradlab.measurement.inner_products import Measured, estimator_moments
from gradlab.measurement.jumps import AtLength, truth_at_length
from gradlab.measurement.problem import Given, Problem, problem
from gradlab.measurement.rare_starts import rare_starts
from gradlab.measurement.realised_gains import Stepping, check_judges, realised_gains
from gradlab.measurement.rehearsal import rehearsal
from gradlab.measurement.update import Update
from gradlab.measurement.visited import objective_moments
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.profile import Profile, Surface
from gradlab.runs.realised import PATHWISE, SCORE
from gradlab.runs.stages import Stage, completed
from gradlab.tasks import Task
from gradlab.truth.oracles import AT_MOST
from gradlab.truth.truth import Truth, matched_truth
from gradlab.user_code import differentiating

_TRIED = 100  # steps of the simulator, at least, before anything is differentiated


@differentiating
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
    judges: int | None = None,
    trim_starts: float = 0.0,
    also: Sequence[str] = (),
    update: Update | None = None,
    rehearse: bool = True,
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
            of starts, "start" for a tensor or a path (see `gradlab.measurement.arguments`).
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
        surface: model steps h for each of which a slice of the value estimate around the policy
            is kept, by the prior, else the simulator (see `gradlab.runs.profile.Surface`).
        progress: called as progress(stage, done, total).
        command: recorded in the file, so that a reader can repeat the run.

    Raises:
        InputError: names the argument, what it got and what to do.
        Interrupted: by Ctrl-C, once every estimator is measured; its profile is what there is.
    """
    begun = time.monotonic()
    progress = check_progress(progress)
    given = Given(
        task, policy, critic, estimators, horizon, starts, batch, truth, termination, law, seed,
        trim_starts, also,
    )  # fmt: skip
    posed = problem(given)
    check_horizons(attribute, posed.setting.horizon)
    check_judges(judges)
    unrolled = check_surface(surface)
    update = Update() if update is None else update
    validation.instance("update", update, Update, "a gradlab.measurement.update.Update, or None")
    update.check(posed.setting)
    steps = max(posed.setting.horizon, _TRIED)
    check_rollouts(posed.setting, steps)
    measured = _found(posed, update, progress)
    profile = _profile(posed, measured, command, also)
    stages: dict[str, Stage] = {"checks": measured.checks}
    if posed.drawn and posed.objective:
        tried: dict[str, Stage] = {
            "realised gains": lambda profile: measured.realised(profile, judges)
        }
        if rehearse:
            tried["rehearsal"] = lambda profile: measured.rehearsed(profile, judges)
        stages = tried | stages
    if attribute is not False:
        horizons = None if isinstance(attribute, bool) else tuple(attribute)
        stages["attribution"] = lambda profile: measured.attribution(profile, horizons)
    if unrolled:
        stages["surface"] = lambda profile: replace(
            profile, surface=_loss_surface(posed, unrolled, progress)
        )
    return completed(profile, stages, begun)


@dataclass(frozen=True, eq=False)
class _Found:
    """Truth and moments of a problem, and the stages that rest on them.

    Attributes:
        tried: the truth, at the length of an update.
    """

    asked: Problem
    truth: Truth
    measured: Measured
    tried: AtLength
    update: Update
    progress: Progress

    @property
    def along(self) -> Tensor:
        """The mean gradient [P] along which the user's update is as long as it is: the pathwise
        one, else the first that is finite."""
        pathwise = self.tried.truth.pathwise
        means = [] if pathwise is None else [pathwise.gradients.mean(dim=0)]
        means += self.measured.means.values()
        return next((mean for mean in means if torch.isfinite(mean).all()), means[0])

    def realised(self, profile: Profile, judges: int | None) -> Profile:
        """Steps along some of the mean gradients, on fresh starts."""
        return replace(
            profile, realised=realised_gains(self._stepping(profile), judges, self.progress)
        )

    def rehearsed(self, profile: Profile, judges: int | None) -> Profile:
        """The updates of the gradients that compete, made ahead."""
        found = rehearsal(
            self._stepping(profile), self.update, self.asked.batch, self.progress, judges
        )
        return replace(profile, rehearsal=found)

    def _stepping(self, profile: Profile) -> Stepping:
        asked = self.asked
        return Stepping(
            asked.task, asked.setting, asked.chosen, self.measured, self.truth, profile.table(),
            profile.identities, self.update.move(asked.setting, self.along),
            {PATHWISE: self.tried.pathwise, SCORE: self.tried.score},
        )  # fmt: skip

    def checks(self, profile: Profile) -> Profile:
        """Soundness beside the numbers."""
        asked = self.asked
        self.progress("checks", 0, 1)
        context = CheckContext(
            asked.task, asked.setting, asked.setting.starts, asked.given, asked.critics,
            asked.chosen, self.truth, self.measured.at, self.measured.cells,
        )  # fmt: skip
        sanity = (
            *run_checks(context), *rare_starts(asked, self.truth, self.measured, self.progress),
        )  # fmt: skip
        self.progress("checks", 1, 1)
        return replace(profile, sanity=sanity)

    def attribution(self, profile: Profile, horizons: Sequence[int] | None) -> Profile:
        """What `gradlab.attribute` needs."""
        asked = self.asked
        world = MeasuredWorld(asked.task, asked.setting, asked.chosen, horizons)
        return replace(profile, attribution=attributed(profile, world, self.progress))


def _found(posed: Problem, update: Update, progress: Progress) -> _Found:
    progress("truth", 0, AT_MOST)
    truth = matched_truth(posed.setting, kinds=posed.kinds, progress=progress)
    if not posed.objective:
        measured = estimator_moments(
            posed.chosen, posed.setting, truth, progress, posed.other_critics
        )
        return _Found(posed, truth, measured, AtLength(truth), update, progress)
    tried = _tried(posed, update, truth, progress)
    measured = objective_moments(posed.chosen, posed.setting, tried.truth, progress)
    return _Found(posed, tried.truth, measured, tried, update, progress)


def _tried(posed: Problem, update: Update, truth: Truth, progress: Progress) -> AtLength:
    """The truth at the length of the user's update."""
    if truth.pathwise is None or not torch.isfinite(truth.pathwise.gradients).all():
        return AtLength(truth)
    few = posed.setting.starts.block(slice(0, len(truth.pathwise.gradients)))
    setting = replace(posed.setting, starts=few)
    move = update.move(setting, truth.pathwise.gradients.mean(dim=0))
    plain = replace(posed.setting, simulator=posed.task.simulator, policy=posed.original)
    return truth_at_length(setting, truth, move, plain, posed.alpha, progress)


def _profile(posed: Problem, found: _Found, command: str, also: Sequence[str]) -> Profile:
    """Moments as labelled values, with what was asked for."""
    config = configuration(
        posed.task, posed.setting, posed.original, posed.critic, posed.batch, posed.truth, command,
    )  # fmt: skip
    update, setting, along = found.update, posed.setting, found.along
    config |= {
        "model": predictions(posed.task),
        "law": posed.law,
        "starts_used": found.measured.starts,
        "visits": found.measured.visits,
        "critics": posed.several,
        "update": {
            "optimizer": update.name,
            "rate": update.rate_for(setting, along),
            "refit": update.refit,
            "move": update.move(setting, along),
            "assumed": update.assumed,
        },
        "entropy": posed.alpha,
        "actions": {name: estimator.actions for name, estimator in posed.chosen.items()},
        "jacobian_noise": {
            name: noise_mode(estimator.states, estimator.jacobians)
            for name, estimator in posed.chosen.items()
        },
    }
    if also:
        config["also"] = list(also)
    if cuts := {name: str(one.cut) for name, one in posed.chosen.items() if one.cut}:
        config["cut"] = cuts
    if posed.rows != config["starts"]:
        config["rows"] = posed.rows
    environment = provenance.environment() | {"precision": "float64"}
    truth = truth_values(found.truth, posed.truth)
    profile = assembled(
        found.measured.cells, posed.setting.horizon, posed.batch, config, environment, truth
    )
    return with_selected_gain(
        replace(
            profile,
            kernels=found.measured.kernels,
            identities=posed.identities,
            jumps=found.tried.jumps,
        )
    )


_POINTS, _STARTS, _STREAM = 21, 32, "surface"


def check_surface(unrolled: Sequence[int]) -> tuple[int, ...]:
    """The horizons, each once, from the shortest."""
    for each in unrolled:
        validation.whole("surface", each, 0)
    return tuple(sorted(set(unrolled)))


@torch.no_grad()
def _loss_surface(asked: Problem, unrolled: Sequence[int], progress: Progress) -> Surface:
    """At 21 × 21 points, from the first 32 starts; on the task's prior, or else its simulator."""
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
