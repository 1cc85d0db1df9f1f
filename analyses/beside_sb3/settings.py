"""Settings of both sides of `beside_sb3`, read from the objects that train, beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from analyses.beside_sb3 import runs as beside_sb3
from analyses.beside_sb3.runs import NAMES, Name
from gradlab.systems.pendulum import TORQUE_LIMIT
from gradlab.training import trained as adam
from gradlab.training.algorithm import Algorithm
from gradlab.training.learner import Learner
from gradlab.training.parts.targets import OneStep
from gradlab.training.parts.temperature import Automatic
from gradlab.training.settings import Settings

Setting = tuple[str, object, object]  # what, there, here
# What no option makes equal, or what is equal in law and not in bits.
BY_HAND = (
    ("σ of SAC's policy", "log σ clamped to [−20, 2], about 1 at first",
     "log σ = −5 + 7 sigmoid, about 0.2 at first", "no"),
    ("order of SAC's update", "α, critics, policy, targets", "critics, policy, targets, α", "no"),
    ("TD3's policy is updated in", "updates 2, 4, …", "updates 1, 3, …", "no"),
    ("critic's loss", "SAC ½ Σ, TD3 Σ of mean squares", "½ Σ of mean squares",
     "but for a factor, which Adam divides out"),
    ("first weights and biases", "torch's Linear", "torch's Linear", "in law"),
    ("warm-up", "the untrained policy, by a first call without gradient steps",
     "the untrained policy", "yes"),
    ("truncated episodes", "valued beyond their end", "valued beyond their end", "yes"),
    ("observations", "cos θ, sin θ, θ̇ in float32", "the same, simulated in float64", "yes"),
    ("actions of critics", "in units of the limit", "in units of the limit", "yes"),
    ("products", "float32", "float32, torch's \"medium\" where it measures as accurate", "no"),
    ("random numbers", "numpy's and torch's global", "streams by seed, name and step", "in law"),
)  # fmt: skip


def read(name: Name) -> Iterator[Setting]:
    """Settings that are numbers, there and here."""
    model: Any = beside_sb3.learner(name, 0)
    row, task, settings = beside_sb3.row(name), beside_sb3.task(), beside_sb3.settings(name)
    environment = model.get_env().envs[0]
    yield "episode", environment.spec.max_episode_steps, settings.episode
    yield "largest torque, N m", float(model.action_space.high[0]), TORQUE_LIMIT
    yield "environments", model.n_envs, settings.agents
    yield "updates per step", model.gradient_steps / model.train_freq.frequency, _per_step(settings)
    yield "hidden layers", _hidden(model.critic.q_networks[0]), row.hidden
    yield "policy's hidden layers", _hidden(model.actor), row.hidden
    leaves = [layer for layer in model.actor.modules() if not list(layer.children())]
    kinds = {type(layer).__name__.lower() for layer in leaves}
    yield "activation", ", ".join(sorted(kinds - {"linear", "flatten", "tanh"})), row.activation
    yield "critics", model.critic.n_critics, row.critics
    trained = Learner(row, task, settings)
    yield from _of_adam("policy", model.actor.optimizer, trained.trained_policy.adam)
    assert trained.trained_critic is not None
    yield from _of_adam("critic", model.critic.optimizer, trained.trained_critic.adam)
    yield "a rate is the same to the end", True, _constant(row)
    yield "batch", model.batch_size, row.batch
    yield "replay holds all steps", model.buffer_size >= _steps(settings), _fits(row, settings)
    yield "τ", model.tau, row.tau
    yield "γ", model.gamma, task.discount
    yield "factor on rewards", environment.get_wrapper_attr("func")(1.0), settings.reward_scale
    yield from _of_sac(model, row) if name == "sac" else _of_td3(model, row)


def _of_adam(part: str, there: torch.optim.Adam, here: adam.Adam) -> Iterator[Setting]:
    one, other = there.param_groups[0], {"lr": here.rate, "betas": adam.BETAS, "eps": adam.EPS}
    for name in other:
        yield f"Adam's {name}, {part}", one[name], other[name]


def _constant(row: Algorithm) -> bool:
    return all(first == last for first, last in (row.policy_rate, row.value_rate))


def _of_sac(model: Any, row: Algorithm) -> Iterator[Setting]:
    alpha = row.target.temperature
    assert isinstance(alpha, Automatic)
    yield "α at first", float(model.log_ent_coef.detach().exp()), alpha.first
    yield "rate of α", model.ent_coef_optimizer.param_groups[0]["lr"], alpha.rate
    yield "entropy that α holds", model.target_entropy, -1.0 if alpha.entropy is None else None
    yield "targets follow each", model.target_update_interval, row.delay


def _of_td3(model: Any, row: Algorithm) -> Iterator[Setting]:
    assert isinstance(row.target, OneStep)
    noise = model.action_noise
    yield "exploration", float(noise._sigma[0]), row.exploration
    yield "smoothing", model.target_policy_noise, row.target.smoothing
    yield "smoothing is clipped at", model.target_noise_clip, row.target.limit
    yield "critic updates to one of policy and targets", model.policy_delay, row.delay


def _per_step(settings: Settings) -> float:
    return settings.interval / settings.agents


def _steps(settings: Settings) -> int:
    return settings.warmup + settings.iterations


def _fits(row: Algorithm, settings: Settings) -> bool:
    return row.replay >= _steps(settings)


def _hidden(network: nn.Module) -> tuple[int, ...]:
    """Widths of the layers between input and outputs; SAC's policy has two outputs side by side."""
    widths = [layer.in_features for layer in network.modules() if isinstance(layer, nn.Linear)]
    return tuple(widths[1 : 1 + len(beside_sb3.row("td3").hidden)])


def listed() -> str:
    """The table of the page."""
    lines = ["| setting | Stable-Baselines3 | here | same? |", "|---|---|---|---|"]
    rows: dict[Setting, list[str]] = {}
    for name in NAMES:
        for setting in read(name):
            rows.setdefault(setting, []).append(name)
    for (what, there, here), names in rows.items():
        label = what if len(names) == len(NAMES) else f"{what} ({', '.join(names)})"
        same = "yes" if there == here else "no"
        lines.append(f"| {label} | {_shown(there)} | {_shown(here)} | {same} |")
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in BY_HAND)])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
