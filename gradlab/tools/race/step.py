"""`step`: did the last updates raise the return?

    J(θ₀), J(θ₁), J(2θ₀ − θ₁)      whole episodes without noise, from the same resets

Starts are doubled until the signs of both changes are known, or the stated number is reached. The
interval of each of K looks (Student's) is at 1 − 5%/K, so that all hold together. Needs reset and
step alone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from gradlab import validation
from gradlab.data.episodes import LONGEST, Actor, Episode, begin, made, play, takes_seed, width
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.probe.isolation import copied, undisturbed
from gradlab.progress import Progress, check_progress, silent
from gradlab.statistics.comparison import decide
from gradlab.statistics.over_groups import difference_of_means, level_of, student_mean
from gradlab.tools.race.branches import UNPAIRED
from gradlab.tools.race.result import POLICIES, Step
from gradlab.user_code import running


def step(
    before: nn.Module,
    after: nn.Module,
    env: Any,
    *,
    starts: int = 4,
    at_most: int = 64,
    updates: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Step:
    """Test whether the step from one policy to another raised the return.

    Args:
        before, after: of one architecture: policy(observation [n, …]) → action [n, …]; one with
            `noise_dim` acts at noise 0, a recurrent one is policy(observation, hidden) → (action,
            hidden). Copies of both, in eval mode, act without noise.
        env: a function that makes an environment, an environment with reset and step (with
            `num_envs`: that many episodes side by side), an id of Gymnasium, or "FILE.py:FUNCTION".
        starts: resets of the first comparison; at_most: of all. Four times as many where resets
            cannot be repeated, since the policies are then compared by means.
        updates: their number in the step, which the sentences name.
        seed: of the resets.
        progress: called as progress("step", episodes, of at most).

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    progress = check_progress(progress)
    validation.whole("starts", starts, 2)
    validation.whole("at_most", at_most, starts)
    validation.whole("seed", seed)
    if updates is not None:
        validation.whole("updates", updates, 1)
    own = _policies(before, after)
    with undisturbed():
        environment = made(env)
        try:
            return _found(environment, own, starts, at_most, updates, seed, progress)
        finally:
            if environment is not env:
                with suppress(Exception):
                    environment.close()


def _found(
    environment: Any, own: list[nn.Module], starts: int, at_most: int, updates: int | None,
    seed: int, progress: Progress,
) -> Step:  # fmt: skip
    actors = [Actor(policy, environment) for policy in own]
    seeded = takes_seed(environment)

    def episodes(actor: Actor, number: int) -> list[Episode]:
        own = child(seed, f"step {number}") % 2**31 if seeded else None
        with running("env"):
            return play(environment, actor, own)

    with running("env"):
        first = begin(environment, seed if seeded else None)
    for actor in actors:
        actor.check(first)
    reason = "" if episodes(actors[0], 0) == episodes(actors[0], 0) else "step_unsteady"
    reason = reason if seeded else "no_seed"
    side, more = width(environment), UNPAIRED if reason else 1
    # Batches of starts after which is decided: doubled up to the most.
    most = max(-(-at_most * more // side), 1)
    looks = [-(-starts * more // side)]
    while looks[-1] < most:
        looks.append(min(2 * looks[-1], most))
    level = level_of(len(looks))
    played: list[list[list[Episode]]] = [[] for _ in POLICIES]
    for look in looks:
        for k in range(len(played[0]), look):
            for policy, actor in enumerate(actors):
                played[policy].append(episodes(actor, k))
            progress("step", (k + 1) * side * len(POLICIES), looks[-1] * side * len(POLICIES))
        returns = np.array([[e.total for batch in each for e in batch] for each in played])
        after, opposite = (
            difference_of_means(returns[k], returns[0], level)
            if reason
            else student_mean(returns[k] - returns[0], level)  # of width 0 where all starts are one
            for k in (1, 2)
        )
        if all(decide(each, 0.0).decided for each in (after, opposite)):
            break
    findings = [Finding(reason, "skipped", n=returns.shape[1])] if reason else []
    cut = sum(not e.ended for policy in played for batch in policy for e in batch)
    if lost := int((~np.isfinite(returns)).any(axis=0).sum()):
        findings.append(Finding("step_lost", "fail", value=lost, n=returns.shape[1]))
    elif cut:
        findings.append(Finding("step_cut", "undecided", value=cut, threshold=LONGEST))
    return Step(returns, after, opposite, not reason, updates, tuple(findings))


def _policies(before: nn.Module, after: nn.Module) -> list[nn.Module]:
    """Copies at θ₀, θ₁ and 2θ₀ − θ₁."""
    for name, policy in (("before", before), ("after", after)):
        validation.instance(name, policy, nn.Module, "a torch.nn.Module")
    held = [dict(policy.named_parameters()) for policy in (before, after)]
    shapes = [{name: tuple(p.shape) for name, p in each.items()} for each in held]
    if shapes[0] != shapes[1]:
        every = shapes[0] | shapes[1]
        first = next(name for name in every if shapes[0].get(name) != shapes[1].get(name))
        one, other = (list(each[first]) if first in each else "none" for each in shapes)
        what = f"{first} is {one} before and {other} after"
        raise InputError(f"after is of another architecture than before: {what}")
    if not shapes[0]:
        raise InputError("before has no parameters: a step is one of parameters")
    for name, each in zip(("before", "after"), held, strict=True):
        lost = [key for key, p in each.items() if not bool(torch.isfinite(p).all())]
        if lost:
            raise InputError(f"{name} has parameters that are not finite, first {lost[0]}")
    if all(torch.equal(held[0][key], held[1][key].to(held[0][key])) for key in held[0]):
        raise InputError("before and after have equal parameters: no step was made")
    own = [copied(before), copied(after), copied(before)]
    with torch.no_grad():
        for opposite, moved in zip(own[2].parameters(), own[1].parameters(), strict=True):
            opposite.copy_(2 * opposite - moved.to(opposite))
    return own
