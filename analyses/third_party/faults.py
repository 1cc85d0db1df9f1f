"""Forty faults planted into loops of others, with the name by which each must be told.

A fault of CleanRL's is an edit of its text, one of Stable-Baselines3's a change of the model or of
the environment before it learns, one of the plain loop a flag. Names of variables are all that is
kept of anybody's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from torch import nn

from analyses.third_party import loops, plain, scripts
from analyses.third_party.outcome import Outcome

TASK = "Hopper-v5"
GROWTH = 1.03
SOON, AT_ONCE = 200, 10  # updates until it is told
STILL, PART, DEAD = "actor does not move", "actor moves in part", "dead path"
CRITIC_STILL, EXPLODES = "critic does not move", "exploding critic"
RATE, CRITIC_RATE = "learning rate too large", "critic's learning rate too large"
LOST, SATURATED, REFUSED = "non-finite", "saturated actor", "refused"
ROW = 17  # of the batch, planted with NaN
LATE = 420  # environment step of the planted NaN
Budgeted = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        run: with arguments of the probe, by seed; at: update of the policy where it begins.
        told: the kind of alarm expected, or the beginning of it; within: updates.
        row: what the sentence must hold, or "".
    """

    fault: str
    loop: str
    told: str
    run: Callable[[Budgeted, int], Outcome]
    at: int = 0
    within: int = SOON
    row: str = ""


def faults(folder: Path | None) -> Iterator[Fault]:
    """All that can be run: CleanRL's with the folder of a checkout only."""
    if folder is not None:
        yield from _scripts(folder)
    yield from _models()
    table = [
        ("actor's learning rate 0", STILL, plain.Flaws(actor_rate=0.0)),
        ("action detached", DEAD, plain.Flaws(detached=True)),
        ("reward × 1.03 per step", EXPLODES, plain.Flaws(growth=GROWTH)),
    ]
    for fault, told, flaws in table:
        yield Fault(fault, "plain", told, _plainly(flaws))
    lost = _plainly(plain.Flaws(lost=100))
    yield Fault("NaN in one observation", "plain", LOST, lost, 100, AT_ONCE, "rows 5 of 64")


def _scripts(folder: Path) -> Iterator[Fault]:
    actor, critic = r"(actor_optimizer = .*lr=)", r"(q_optimizer = .*lr=)"
    held = r"(actor_optimizer = .*)list\(actor\.parameters\(\)\)"
    valued = r"(q_optimizer = optim\.Adam\()list\(qf1\.parameters\(\)\)"
    large, nothing = r"\g<1>100 * ", r"\g<1>0 * "
    table: list[tuple[str, str, str, tuple[str, str]]] = [
        ("actor's learning rate 0", "td3", STILL, (actor, nothing)),
        ("actor's step never made", "ddpg", STILL, (r"^( +)actor_optimizer\.step\(\)", r"\1pass")),
        ("actor's step never made", "sac", STILL, (r"^( +)actor_optimizer\.step\(\)", r"\1pass")),
        ("gradient clipped to 0", "ppo", STILL, (r"(max_grad_norm: float = )0\.5", r"\g<1>0.0")),
        ("optimiser holds the target actor", "td3", REFUSED,
         (held, r"\1list(target_actor.parameters())")),
        ("optimiser holds one tensor", "ddpg", PART, (held, r"\1list(actor.parameters())[-2:-1]")),
        ("optimiser holds one tensor", "sac", PART, (held, r"\1list(actor.parameters())[-2:-1]")),
        ("action detached", "td3", DEAD,
         (r"(-qf1\(data\.observations, actor\(data\.observations\))\)", r"\1.detach())")),
        ("action detached", "ddpg", DEAD,
         (r"(-qf1\(data\.observations, actor\(data\.observations\))\)", r"\1.detach())")),
        ("critic's learning rate 0", "td3", CRITIC_STILL, (critic, nothing)),
        ("critic's optimiser holds the target", "ddpg", CRITIC_STILL,
         (valued, r"\1list(qf1_target.parameters())")),
        ("critic's optimiser holds the target", "sac", CRITIC_STILL,
         (valued + r" \+ list\(qf2\.parameters\(\)\)",
          r"\1list(qf1_target.parameters()) + list(qf2_target.parameters())")),
        ("actor's learning rate × 100", "td3", RATE, (actor, large)),
        ("actor's learning rate × 100", "sac", RATE, (actor, large)),
        ("actor's learning rate × 100", "ppo", RATE,
         (r"(learning_rate: float = )3e-4", r"\g<1>3e-2")),
        ("critic's learning rate × 100", "td3", CRITIC_RATE, (critic, large)),
        ("critic's learning rate × 100", "ddpg", CRITIC_RATE, (critic, large)),
    ]  # fmt: skip
    for fault, name, told, edit in table:
        yield _script(folder, fault, name, told, lambda text, e=edit: scripts.changed(text, *e))
    for name in ("td3", "ddpg", "sac"):
        yield _script(folder, "reward × 1.03 per step", name, EXPLODES, _growing)
    saturated = "actor.fc_mu.weight.data.mul_(100)"
    yield _script(folder, "last layer × 100", "td3", SATURATED,
                  lambda text: scripts.put_behind(text, "actor = ", saturated))  # fmt: skip
    yield from _lost(folder)


def _script(
    folder: Path, fault: str, name: str, told: str, edit: Callable[[str], str], **when: Any
) -> Fault:
    def run(probed: Budgeted, seed: int) -> Outcome:
        text = edit(scripts.text_of(folder, name))
        text = scripts.with_probe(text, name, ", **options")
        warm = name != "ppo"
        steps = (scripts.STARTS if warm else 0) + scripts.LENGTH[name]
        return scripts.run(text, TASK, seed, steps, probed, folder, warm)

    return Fault(fault, f"CleanRL {name.upper()}", told, run, **when)


def _growing(text: str) -> str:
    line = f"rewards = rewards * {GROWTH} ** max(global_step - args.learning_starts, 0)"
    return scripts.put_behind(text, r"next_obs, rewards, .*envs\.step", line)


def _lost(folder: Path) -> Iterator[Fault]:
    batch = r"data = rb\.sample"
    reward = f"data.rewards[{ROW} if global_step == {LATE} else slice(0, 0)] = float('nan')"
    seen = f"data.observations[{ROW} if global_step == {LATE} else slice(0, 0)] = float('nan')"
    updates, row = LATE - scripts.STARTS, f"rows {ROW} of 256"
    within: dict[str, Any] = {"within": AT_ONCE, "row": row}
    yield _script(folder, "NaN reward in one sample", "td3", LOST,
                  lambda text: scripts.put_behind(text, batch, reward),
                  at=updates // 2, **within)  # fmt: skip
    yield _script(folder, "NaN in one observation", "sac", LOST,
                  lambda text: scripts.put_behind(text, batch, seen),
                  at=updates, **within)  # fmt: skip
    # The last reward of the second rollout is in the returns of its whole episode.
    line = "rewards[-1] = float('nan') if iteration == 2 else rewards[-1]"
    yield _script(folder, "NaN reward in one sample", "ppo", LOST,
                  lambda text: scripts.put_before(text, r"# bootstrap value", line),
                  at=320, within=AT_ONCE, row="rows ")  # fmt: skip


class Grown(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Rewards × 1.03 per step, over episodes."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.steps = 0

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        state, reward, ended, cut, told = super().step(action)
        self.steps += 1
        return state, float(reward) * GROWTH**self.steps, ended, cut, told


def _models() -> Iterator[Fault]:
    def rate(which: str, factor: float) -> Callable[[Any], None]:
        def plant(model: Any) -> None:
            found = getattr(model, which).optimizer
            schedule = model.lr_schedule
            model._update_learning_rate = lambda optimizers: _set_rates(
                optimizers, schedule(1), found, factor
            )

        return plant

    yield _model("actor's learning rate 0", "sac", STILL, planted=rate("actor", 0.0))
    yield _model("gradient clipped to 0", "a2c", STILL, max_grad_norm=0.0)
    yield _model("optimiser holds one tensor", "td3", PART, planted=_one_tensor)
    for name in ("ddpg", "sac"):
        yield _model("critic's learning rate 0", name, CRITIC_STILL, planted=rate("critic", 0.0))
    for name in ("td3", "a2c"):
        yield _model("reward × 1.03 per step", name, EXPLODES, wrapped=Grown)
    yield _model("actor's learning rate × 100", "ddpg", RATE, planted=rate("actor", 100.0))
    yield _model("actor's learning rate × 100", "ppo", RATE, learning_rate=3e-2)
    yield _model("critic's learning rate × 100", "sac", CRITIC_RATE, planted=rate("critic", 100.0))
    yield _model("last layer × 100", "td3", SATURATED, planted=_saturated)
    yield _model("NaN reward in one sample", "sac", LOST, planted=_lost_reward,
                 at=LATE - loops.WARM["learning_starts"], within=AT_ONCE,
                 row=f"rows {ROW} of 256")  # fmt: skip


def _model(
    fault: str, name: str, told: str, at: int = 0, within: int = SOON, row: str = "",
    **planted: Any,
) -> Fault:  # fmt: skip
    def run(probed: Budgeted, seed: int) -> Outcome:
        return loops.run(name, TASK, seed, loops.LENGTH[name], probed, **planted)

    return Fault(fault, f"SB3 {name.upper()}", told, run, at, within, row)


def _set_rates(optimizers: Any, usual: float, one: Any, factor: float) -> None:
    for each in optimizers if isinstance(optimizers, list) else [optimizers]:
        for group in each.param_groups:
            group["lr"] = usual * (factor if each is one else 1.0)


def _one_tensor(model: Any) -> None:
    last = list(model.actor.parameters())[-2]
    model.actor.optimizer = torch.optim.Adam([last], lr=1e-3)


@torch.no_grad()
def _saturated(model: Any) -> None:
    layers = [x for x in model.actor.mu if isinstance(x, nn.Linear)]
    layers[-1].weight.mul_(100)


def _lost_reward(model: Any) -> None:
    buffer, usual = model.replay_buffer, model.replay_buffer.sample

    def sample(*given: Any, **named: Any) -> Any:
        found = usual(*given, **named)
        if model.num_timesteps == LATE:
            found.rewards[ROW] = np.nan
        return found

    buffer.sample = sample


def _plainly(flaws: plain.Flaws) -> Callable[[Budgeted, int], Outcome]:
    return lambda probed, seed: plain.run(TASK, seed, 400, probed, flaws)
