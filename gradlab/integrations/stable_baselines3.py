"""The probe as a callback of Stable-Baselines3: the optional extra `sb3`.

    model.learn(100_000, callback=ProbeCallback(log="run.h5", task=task))

It finds θ, its optimiser, policy and critic by itself, marks every backward pass, and counts steps
as the model does. With a task, whose states must be what the policy observes, gradients are
measured on the task with the model's critic and discount.

    TD3, DDPG   a = scale(μ(s))                   θ: the actor, its own optimiser      Q: the first
    SAC         a = scale(tanh(μ(s) + σ(s) ε))    θ: the actor, its own optimiser      Q: the least
    PPO, A2C    a = clip(μ(s) + σ ε)              θ: what actions depend on            V: no tail

The modules hold the model's own, so that they follow training; they are called on copies only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gradlab.errors import InputError, not_installed
from gradlab.integrations.states import LoopParts, Watcher, check_widths
from gradlab.probe.log import Logs
from gradlab.probe.loop import MakeEnv
from gradlab.probe.passes import Watched, limits
from gradlab.probe.probe import Probe
from gradlab.tasks import Task

try:
    from stable_baselines3 import A2C, PPO, SAC, TD3
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
except ImportError as error:
    raise not_installed("stable-baselines3", "sb3") from error

_LOG_STD = (-20.0, 2.0)  # between which SAC keeps ln σ


@final
class _Features(nn.Module):
    """States → features, by VecNormalize's statistics of this moment and the model's extractor."""

    def __init__(self, extractor: nn.Module, normalizer: Any) -> None:
        super().__init__()
        self.extractor = extractor
        shown = normalizer is not None and normalizer.norm_obs
        self.statistics = normalizer.obs_rms if shown else None
        self.epsilon = float(normalizer.epsilon) if shown else 0.0
        self.clip = float(normalizer.clip_obs) if shown else 0.0

    def forward(self, state: Tensor) -> Tensor:
        if self.statistics is not None:
            mean, var = (torch.as_tensor(x).to(state) for x in
                         (self.statistics.mean, self.statistics.var))  # fmt: skip
            state = ((state - mean) / (var + self.epsilon).sqrt()).clamp(-self.clip, self.clip)
        features: Tensor = self.extractor(state)
        return features


@final
class _Box(nn.Module):
    """The action space: environment units ↔ [−1, 1]."""

    low: Tensor
    high: Tensor

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        bounded = isinstance(space, spaces.Box)
        for name in ("low", "high"):
            bound = torch.as_tensor(getattr(space, name)).flatten() if bounded else torch.zeros(0)
            self.register_buffer(name, bound)

    def scaled(self, action: Tensor) -> Tensor:
        return 2 * (action - self.low) / (self.high - self.low) - 1

    def unscaled(self, scaled: Tensor) -> Tensor:
        return self.low + (scaled + 1) / 2 * (self.high - self.low)

    def clipped(self, action: Tensor) -> Tensor:
        return action.clamp(self.low, self.high)


@final
class _Actor(nn.Module):
    """A model's actor as state → action.

    Args:
        act: of this module, the state and, where it has a `noise_dim`, the noise.
        parts: modules of the model, which follow training.
    """

    def __init__(self, act: Callable[..., Tensor], noise_dim: int, **parts: Any) -> None:
        super().__init__()
        self.act = act
        for name, part in parts.items():
            setattr(self, name, part)
        if noise_dim:
            self.noise_dim = noise_dim

    def forward(self, state: Tensor, *noise: Tensor) -> Tensor:
        return self.act(self, state, *noise)


def _deterministic(parts: Any, state: Tensor) -> Tensor:
    """TD3's and DDPG's action."""
    action: Tensor = parts.box.unscaled(parts.mu(parts.features(state)))
    return action


def _squashed(parts: Any, state: Tensor, noise: Tensor) -> Tensor:
    """SAC's, its noise an argument."""
    latent = parts.latent_pi(parts.features(state))
    sigma = parts.log_std(latent).clamp(*_LOG_STD).exp()
    action: Tensor = parts.box.unscaled((parts.mu(latent) + sigma * noise).tanh())
    return action


def _gaussian(parts: Any, state: Tensor, noise: Tensor) -> Tensor:
    """PPO's and A2C's."""
    mean = parts.action_net(parts.policy_net(parts.features(state)))
    action: Tensor = parts.box.clipped(mean + parts.log_std.exp() * noise)
    return action


@final
class _Q(nn.Module):
    """The critic of the actor's loss, in the environment's units of action and reward."""

    def __init__(
        self, critic: Any, count: int, features: _Features, box: _Box, normalizer: Any
    ) -> None:
        super().__init__()
        self.features, self.box = features, box
        self.networks = nn.ModuleList(critic.q_networks[:count])
        paid = normalizer is not None and normalizer.norm_reward
        self.statistics = normalizer.ret_rms if paid else None
        self.epsilon = normalizer.epsilon if paid else 0.0

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([self.features(state), self.box.scaled(action)], dim=1)
        value = torch.cat([network(inputs) for network in self.networks], dim=1).amin(dim=1)
        if self.statistics is None:
            return value
        return value * float((self.statistics.var + self.epsilon) ** 0.5)


def parts_of(model: BaseAlgorithm) -> LoopParts:
    """The parts of a model that are watched.

    Raises:
        InputError: the model has no policy gradient, or one that is not known here.
    """
    normalizer = model.get_vec_normalize_env()
    box = _Box(model.action_space)
    if isinstance(model, TD3 | SAC):
        return _off_policy(model, normalizer, box)
    if isinstance(model, PPO | A2C):
        return _on_policy(model.policy, normalizer, box)
    raise InputError(
        f"model is a {type(model).__name__}, expected TD3, DDPG, SAC, PPO or A2C: only these "
        f"policy gradients are known; for another actor use gradlab.Probe(actor, its optimizer)"
    )


def _off_policy(model: Any, normalizer: Any, box: _Box) -> LoopParts:
    actor, critic = model.actor, model.critic
    seen, valued = (_Features(x.features_extractor, normalizer) for x in (actor, critic))
    unit = limits(0.0, 1.0)
    if isinstance(model, TD3):
        q = _Q(critic, 1, valued, box, normalizer)
        theta = _Actor(_deterministic, 0, features=seen, mu=actor.mu, box=box)
        networks = {
            "critic": critic, "target": model.critic_target, "target_actor": model.actor_target,
            "optimizers": {"critic": critic.optimizer},
        }  # fmt: skip
        watched = Watched(actor, unit)
        return LoopParts(theta, actor.optimizer, q, watched, networks, critic_alone=True)
    q = _Q(critic, len(critic.q_networks), valued, box, normalizer)
    first = _first(actor.latent_pi, actor.mu)
    watched = Watched(first, unit, partial(_mean_action, None if first is actor.mu else actor.mu))
    policy = _Actor(
        _squashed, len(box.low), features=seen, latent_pi=actor.latent_pi, mu=actor.mu,
        log_std=actor.log_std, box=box,
    )  # fmt: skip
    networks = {
        "critic": critic, "target": model.critic_target,
        "optimizers": {"critic": critic.optimizer},
    }  # fmt: skip
    return LoopParts(policy, actor.optimizer, q, watched, networks, critic_alone=True)


def _on_policy(policy: Any, normalizer: Any, box: _Box) -> LoopParts:
    hidden = getattr(policy.mlp_extractor, "policy_net", None)
    if not isinstance(hidden, nn.Sequential):
        kind = type(policy.mlp_extractor).__name__
        raise InputError(
            f"model's policy has a {kind} without an nn.Sequential called policy_net, where the "
            f"actor is sought: use gradlab.Probe(actor, model.policy.optimizer)"
        )
    features = _Features(policy.pi_features_extractor, normalizer)
    actor = _Actor(
        _gaussian, len(box.low), features=features, policy_net=hidden,
        action_net=policy.action_net, log_std=getattr(policy, "log_std", None), box=box,
    )  # fmt: skip
    watched = Watched(_first(hidden, policy.action_net))
    return LoopParts(actor, policy.optimizer, None, watched, {"critic": policy.value_net})


def _first(hidden: nn.Sequential, last: nn.Module) -> nn.Module:
    """The part of the policy that sees the features."""
    return hidden if len(hidden) else last


@torch.no_grad()
def _mean_action(mu: nn.Module | None, answer: Tensor) -> Tensor:
    """In [−1, 1], of SAC's hidden layers or of what μ has made of them."""
    return torch.tanh(answer if mu is None else mu(answer))


def check_measurable(model: BaseAlgorithm) -> None:
    """Raises InputError where a task cannot be measured by this model's policy."""
    for what, space in (("observations", model.observation_space), ("actions", model.action_space)):
        if not isinstance(space, spaces.Box):
            kind = type(space).__name__
            raise InputError(f"task is given, but {what} are {kind}: leave the task out")
    if getattr(model, "use_sde", False):
        raise InputError(
            "task is given, but the policy explores with gSDE, whose noise lasts over several "
            "steps: use use_sde=False, or leave the task out"
        )


class ProbeCallback(BaseCallback):
    """Watches a model's policy gradients while it learns: TD3, DDPG, SAC, PPO and A2C.

    Args:
        log: path of a run file, a function of one dict per row, several of these, or None.
        task: adds bias and variance by horizon; its discount is replaced by the model's.
        every: updates between two looks.
        seed: of the probe's own starts and noise.
        env: a function that makes an environment as the model's, without normalisers: whole
            episodes without noise are played in it, and show whether the return rises.
        verbose: as in every callback.

    Returns of episodes are logged, too. Another `learn` goes on in the same log.
    `probe` is the `gradlab.Probe`, once training has begun.
    """

    def __init__(
        self,
        log: Logs = None,
        task: Task | None = None,
        every: int = 50,
        seed: int = 0,
        verbose: int = 0,
        *,
        env: MakeEnv | None = None,
    ) -> None:
        super().__init__(verbose)
        self._watcher = Watcher(log, task, self._steps, every=every, seed=seed, env=env)

    @property
    def probe(self) -> Probe | None:
        return self._watcher.probe

    def _steps(self) -> int:
        return int(self.model.num_timesteps)

    def _on_training_start(self) -> None:
        model, task = self.model, self._watcher.task
        if task is not None and self.probe is None:
            check_measurable(model)
            check_widths(task, model.observation_space.shape, model.action_space.shape)
        self._watcher.begin(parts_of(model), getattr(model, "gamma", None))

    def _on_step(self) -> bool:
        self._watcher.attempt(self._note)
        return True

    def _note(self) -> None:
        """Returns of episodes that ended."""
        probe: Any = self.probe
        for info in self.locals.get("infos", ()):
            if "episode" in info:
                probe.note(episode_return=info["episode"]["r"])

    def _on_training_end(self) -> None:
        self._watcher.end()
