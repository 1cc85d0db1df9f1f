"""`race`: which gradient, or loss, leads farthest in K updates, and for how long to follow it.

    branch      a copy of the policy, which follows one candidate by the user's rule; every `refit`
                updates its critic is fitted again from where it stands, and its states visited anew
    judged      at 1, 2, 5, 10, … updates, by returns from the same starts on the same noise
    rungs       K/8, K/4, K/2, K: branches whose paired interval excludes the best are dropped, at
                most half of those left (successive halving: Jamieson & Talwalkar 2016, AISTATS)

All noise belongs to (seed, update): every branch meets the same draws, and a race that is resumed
goes on bit for bit. What one step had promised stands beside the outcome.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import provenance, validation
from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.fitting.critics import refit_critic as fitted_again
from gradlab.gradients.estimator import TERMINATIONS
from gradlab.gradients.setting import Setting, as_starts
from gradlab.measurement.arguments import check_networks
from gradlab.measurement.rehearsal import LENGTHS
from gradlab.measurement.update import Update
from gradlab.networks import checkpoint
from gradlab.networks.interface import double_copy, on_cpu
from gradlab.networks.mlp import CriticLike, as_critic
from gradlab.progress import Progress, check_progress, silent
from gradlab.runs.rehearsal import LOST, Rule, judged
from gradlab.statistics.moments import sample_mean
from gradlab.statistics.selection import largest
from gradlab.storage import records
from gradlab.tasks import Task
from gradlab.tools.race.branches import (
    Branch,
    Candidate,
    Parsed,
    SharedNetworks,
    TaskWorld,
    World,
    candidates_of,
    environment_world,
    parsed,
)
from gradlab.tools.race.result import Race
from gradlab.truth.oracles import effective_horizon
from gradlab.user_code import differentiating
from gradlab.wording import updates as counted

_JUDGES = 64
_LONGEST = 1000  # steps of a judged episode, where none is given
_RUNGS = (8, 4, 2, 1)  # K over the updates after which branches may be dropped
_CURVE = 10  # evaluations along the way, beside the first ones
_BEST = "best policy"

_RefitCritic = Callable[[nn.Module, nn.Module, int], nn.Module]


class Stopped(KeyboardInterrupt):
    """A race was stopped; `race` is what it had found, and the state beside its file goes on."""

    def __init__(self, race: Race, words: str) -> None:
        super().__init__(words)
        self.race = race


@differentiating
def race(
    task: Task | Any,
    policy: nn.Module,
    critic: CriticLike | None = None,
    candidates: Mapping[str, Candidate] | Sequence[str] | None = None,
    updates: int = 200,
    *,
    update: Update | None = None,
    batch: int = 256,
    starts: int | None = None,
    horizon: int | None = None,
    length: int | None = None,
    discount: float = 1.0,
    termination: str = "ignore",
    refit_critic: bool | _RefitCritic = True,
    drop: bool = True,
    seed: int = 0,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    command: str = "",
) -> Race:
    """Follow every candidate for K updates from one policy, and compare the returns.

    Args:
        task: a Task, or an environment with reset and step as Gymnasium's, whose candidates are
            losses. Where its resets take no seed, more starts replace the pairing.
        critic: of the default candidates; also of estimators that have it as their tail's critic.
        candidates: by name: an Estimator at its horizon; pairs (weight, Estimator); a loss(policy,
            states [batch, ds]) → scalar to minimise; or (loss, optimizer(parameters)), for another
            rule than that of `update`. Names such as "model_all:5" choose default estimators at a
            horizon. None: the critic's own gradient, and the model's, θ in all actions, at 1, 5 and
            `horizon` steps.
        updates: K.
        update: optimiser, rate and the updates between two fits of the critic; None: Adam at 3e-4,
            or less where its first step along the first estimator moves actions by more than 4%,
            and a fit every 25.
        batch: states behind each update.
        starts: of the returns; None: 64 (of an environment 32, or 128 where resets take no seed).
        horizon: the longest of default estimators; None: the task's.
        length: steps of an evaluated episode; None: until γᵀ is 1%, at most 1,000.
        discount: of an environment's returns; a task has its own.
        termination: "mask" stops model roll-outs and returns at an end; "ignore" goes on.
        refit_critic: True: the critic is trained further on the candidate's own roll-outs
            (`fitting.critics.refit_critic`), unless it has no parameters; False: never; or a
            function (policy, critic, fit) → critic.
        drop: drop candidates that cannot be best; False: each makes all updates, and a single one
            is allowed.
        output: file of the race, written at every evaluation; its state is kept beside it.
        resume: go on from that state; overwrite: replace an earlier race.
        progress: called as progress("race", updates done, of all).

    Raises:
        InputError: names the argument, what it got and what to do.
        Stopped: by Ctrl-C; what was evaluated is in the file, and in its `race`.
    """
    check_sizes(updates, batch, starts, seed)
    validation.word("termination", termination, TERMINATIONS)
    progress = check_progress(progress)
    validation.instance("policy", policy, nn.Module, "a torch.nn.Module")
    if isinstance(task, Task):
        check_networks(task, policy, critic)
    for name, asked in (("horizon", horizon), ("length", length)):
        if asked is not None:
            validation.whole(name, asked, 1)
    if not (isinstance(refit_critic, bool) or callable(refit_critic)):
        shown = validation.shown(refit_critic)
        raise InputError(f"refit_critic is {shown}, expected True, False or a function")
    rule = Update() if update is None else update
    path = None if output is None else Path(output)
    if resume and path is None:
        raise InputError("resume is True without an output: name its file")
    if path is not None and not resume:
        records.check_output(path, overwrite)
    is_task = isinstance(task, Task)
    own = None if critic is None else double_copy("critic", as_critic(critic))
    given = candidates_of(task, critic, own, candidates, horizon, 2 if drop else 1)
    chosen = {name: parsed(name, each, critic, own) for name, each in given.items()}
    world: World
    if is_task:
        longest = effective_horizon(task.discount) if task.discount < 1 else _LONGEST
        steps = min(longest, _LONGEST) if length is None else length
        begin, policy = double_copy("policy", policy), on_cpu(copy.deepcopy(policy))
        drawn = task.starts(starts or _JUDGES, stream(seed, "race returns")).double()
        judging = Setting(
            task.simulator, begin, as_starts(drawn, task.simulator.state_dim), task.discount, steps,
            termination, child(seed, "race"),
        )  # fmt: skip
        world = TaskWorld(task, judging, max(batch // 2, 32))
    else:
        steps = _LONGEST if length is None else length
        world = environment_world(task, starts, steps, discount, seed)
        if any(each.parts for each in chosen.values()):
            raise InputError("candidates has estimators, which need a Task: give losses")
    parts = SharedNetworks(world, own, batch, seed, termination)
    rate = _rate(rule, world, parts, chosen, policy)
    optimizer = partial(rule.stepping, rate=rate)
    branches = [each.branch(name, policy, optimizer) for name, each in chosen.items()]
    for branch in branches:
        branch.critic = own
    before = world.returns([policy])[0]
    if not bool(torch.isfinite(before).all()):
        raise InputError("policy has returns that are not finite: give another one")
    notes, refit = _refits(task, own, refit_critic, termination, seed)
    if not world.paired:
        notes["pairing"] = "reset takes no seed"
    config = {
        "task": task.name if is_task else type(task).__name__,
        "candidates": list(chosen),
        "updates": updates,
        "batch": batch,
        "starts": len(before),
        "length": steps,
        "discount": task.discount if is_task else discount,
        "termination": termination,
        "optimizer": rule.name,
        "rate": None if rate != rate else rate,
        "refit": rule.refit,
        "seed": seed,
        "policy_hash": provenance.network_hash(policy),
        "command": command,
    }
    rungs = tuple(sorted({updates // part for part in _RUNGS if updates // part >= rule.refit}))
    spread = {round(updates * part / _CURVE) for part in range(1, _CURVE + 1)}
    early = {k for k in LENGTHS if k <= min(updates, 10)}
    # Updates after which returns are looked at.
    marks = tuple(sorted((early | spread) - {0} | {*rungs}))
    rungs = rungs if drop else ()
    change = torch.full((len(branches), len(marks), len(before)), torch.nan, dtype=torch.float64)
    contest = _Contest(
        world, parts, branches, marks, rungs, rule, rate, refit, before, change,
        config, notes, path,
    )  # fmt: skip
    done = contest.restore() if resume else 0
    return contest.run(done, progress)


def check_sizes(updates: int, batch: int, starts: int | None, seed: int) -> None:
    validation.whole("updates", updates, 1)
    validation.whole("batch", batch, 1)
    validation.whole("seed", seed)
    if starts is not None:
        validation.whole("starts", starts, 4)


@dataclass(eq=False)
class _Contest:
    """A race at work: its branches, where they stand, and what was found so far."""

    world: World
    parts: SharedNetworks
    branches: list[Branch]
    marks: tuple[int, ...]
    rungs: tuple[int, ...]
    rule: Update
    rate: float
    refit_critic: _RefitCritic | None
    before: Tensor
    change: Tensor
    config: dict[str, Any]
    notes: dict[str, Any]
    path: Path | None

    def run(self, done: int, progress: Progress) -> Race:
        """All updates that are left."""
        last = self.marks[-1]
        try:
            for k in range(done, last):
                live = [branch for branch in self.branches if not branch.dropped]
                for branch in live:
                    if k % self.rule.refit == 0 and (k or branch.states is None):
                        self._fit(branch, k)
                    if not branch.dropped:
                        self.parts.step(branch, k)
                if k + 1 in self.marks:
                    self._judge([branch for branch in live if not branch.dropped], k + 1)
                progress("race", k + 1, last)
        except KeyboardInterrupt as stop:
            found = self.found(f"after {k} of {last} updates")
            kept = ""
            if self.path is not None:
                found.save(self.path, overwrite=True)
                kept = f"; {self.path} is kept: go on with resume=True"
            raise Stopped(found, f"stopped after {k} of {last} updates{kept}") from stop
        return self.found()

    def _fit(self, branch: Branch, k: int) -> None:
        """Critic, model and visited states of the branch's policy as it is now; a policy of which
        there is none any more is dropped."""
        fit, of = k // self.rule.refit, self.parts
        try:
            if k and self.refit_critic and branch.critic and branch.has(of.critic):
                again = self.refit_critic(branch.policy, branch.critic, fit)
                branch.critic = double_copy("critic", again)
            branch.states = self.world.states(branch.policy, fit)
        except InputError:
            if not k:
                raise
            branch.dropped = k

    def _judge(self, live: Sequence[Branch], k: int) -> None:
        """Returns after k updates, and at a rung who is dropped; all of it is kept on disk."""
        returns = self.world.returns([branch.policy for branch in live])
        place = self.marks.index(k)
        for branch, own in zip(live, returns, strict=True):
            change = own - self.before
            lost = not bool((change.abs() < LOST).all())
            self.change[self.branches.index(branch), place] = torch.nan if lost else change
            if lost:
                branch.dropped = k
        if k in self.rungs:
            self._drop([branch for branch in live if not branch.dropped], k)
        if self.path is not None:
            self._keep_best(self.path, k)
            self.found("").save(self.path, overwrite=True)
            # The state beside the file is replaced in one step.
            beside = state_file(self.path)
            temporary = beside.with_name(f".{beside.name}.tmp")
            state = {
                "config": self._asked(),
                "done": k,
                "change": self.change,
                "branches": [branch.state() for branch in self.branches],
                "best": self.notes.get(_BEST, ""),
            }
            torch.save(state, temporary)
            os.replace(temporary, beside)

    def _keep_best(self, path: Path, k: int) -> None:
        """The policy where the return is highest so far, if that is after k updates; none while
        nothing is shown to be above the start."""
        results = self.found().results
        if results.best is None or results.hold:
            self.notes.pop(_BEST, None)
        elif results.best.updates == k:
            branch = self.branches[results.cells.index(results.best.cell)]
            file = path.with_name(f"{path.stem}.best.safetensors")
            try:
                checkpoint.save(branch.policy, file)
            except InputError:  # a network of the user's own
                file = file.with_suffix(".pt")
                torch.save(branch.policy.state_dict(), file)
            self.notes[_BEST] = f"after {counted(k)} along {branch.cell[0]}, in {file}"

    def _drop(self, live: Sequence[Branch], k: int) -> None:
        """Those whose interval excludes the best, the worst first, at most half of them."""
        if len(live) < 2 or k == self.marks[-1]:
            return
        rows = [self.branches.index(branch) for branch in live]
        place, size = self.marks.index(k), np.ones(len(self.before))
        means = [sample_mean(self.change[row, place].numpy(), size) for row in rows]
        kept = largest(means).kept
        order = np.argsort([each.value for each in means])
        for worst in order[: len(live) // 2]:
            if not kept[worst]:
                live[worst].dropped = k

    def found(self, interrupted: str = "") -> Race:
        """What is known so far."""
        size = np.ones(len(self.before))
        rule = Rule(
            self.rule.name, self.rate, self.rule.assumed, self.rule.refit,
            self.parts.batch, int(self.config["length"]), self.parts.termination, 0,
        )  # fmt: skip
        results = judged(
            [branch.cell for branch in self.branches], self.marks, self.change.numpy(),
            self.before.numpy(), size, rule,
        )  # fmt: skip
        config = self.config | ({"interrupted": interrupted} if interrupted else {})
        environment = provenance.environment() | {"precision": "float64"}
        dropped = tuple(branch.dropped for branch in self.branches)
        return Race(results, dropped, config, environment, self.notes)

    def restore(self) -> int:
        """Branches and what was found as they were kept; returns the updates that were made."""
        assert self.path is not None
        place = state_file(self.path)
        if not place.is_file():
            raise InputError(f"{place} is missing: start with resume=False")
        try:
            state = torch.load(place, weights_only=True)
            same = state["config"] == self._asked()
        except Exception as error:  # of a foreign file anything may be raised
            raise InputError(f"{place} is no state of a race ({error}): start anew") from error
        if not same:
            raise InputError(f"{place} is of another race: repeat its arguments")
        self.change = state["change"]
        if best := state.get("best"):
            self.notes[_BEST] = best
        for branch, own in zip(self.branches, state["branches"], strict=True):
            branch.load(own)
        return int(state["done"])

    def _asked(self) -> str:
        return json.dumps({k: v for k, v in self.config.items() if k != "command"}, sort_keys=True)


def state_file(path: Path) -> Path:
    """Where the state of a race is kept."""
    return path.with_name(f"{path.stem}.race.pt")


def _refits(
    task: Task | Any, critic: nn.Module | None, asked: bool | _RefitCritic, termination: str,
    seed: int,
) -> tuple[dict[str, Any], _RefitCritic | None]:  # fmt: skip
    """What a reader must know of the critic, and how it is fitted again."""
    if critic is None or not asked:
        return {"critic": "is never fitted again"} if critic is not None else {}, None
    if callable(asked):
        return {}, asked
    if not any(True for _ in critic.parameters()):
        return {"critic": "has no parameters"}, None

    def refit(policy: nn.Module, own: nn.Module, fit: int) -> nn.Module:
        return fitted_again(
            task, policy, own, termination=termination, seed=child(seed, f"race critic {fit}")
        )

    return {}, refit


def _rate(
    rule: Update, world: World, parts: SharedNetworks, chosen: Mapping[str, Parsed],
    policy: nn.Module,
) -> float:  # fmt: skip
    """The rate, or the assumed one, by the first step along the first estimator."""
    if not rule.assumed:
        return rule.rate or 1.0
    named = next(((name, each) for name, each in chosen.items() if each.parts), None)
    if named is None or not isinstance(world, TaskWorld):
        if all(each.optimizer for each in chosen.values()):
            return nan  # every loss has its own rule
        raise InputError("update has no rate: give Update(rate=…), or every loss an optimiser")
    name, first = named
    probe = first.branch(name, policy, lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    probe.critic = parts.critic
    probe.states = world.states(probe.policy, 0)
    return rule.rate_for(world.judging, parts.gradient(probe, 0))
