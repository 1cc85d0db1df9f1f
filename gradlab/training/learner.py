"""One update of every seed at once: critic, and every `delay` updates policy and target networks.

The learner is the state of training: networks, targets and optimisers, all with a leading member
axis [E] for seeds (critics [E · C], the C critics of a seed side by side). It knows no environment
and no file. Gradients are clipped member by member, and their norms are taken before that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.noise import child
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import GaussianPolicy, log_normal, log_tanh_slope, split_normal
from gradlab.tasks import Task
from gradlab.training import targets
from gradlab.training.actors import Objective, mixture_loss
from gradlab.training.algorithms import Algorithm, OneStep, Soft
from gradlab.training.draws import Draws
from gradlab.training.members import Network, stacked, unstacked
from gradlab.training.settings import Settings
from gradlab.training.weights import Floats

NEGLIGIBLE = 1e-5  # weight below which a term's rollout is skipped
LOG_STD = (-5.0, 2.0)


@dataclass(frozen=True)
class Update:
    """What one update did, [E] each; NaN where the policy was not updated.

    Attributes:
        critic_loss: half the mean squared error, summed over the seed's critics.
        value: mean critic value on the batch, in scaled rewards.
        critic_norm, policy_norm: gradient norms before clipping.
        policy_loss: −Σ w_n mean X_n, with the entropy term where there is one.
        weights: [terms]; horizon: the longest rollout made.
        critic_seconds, policy_seconds: what either took, all seeds together (on a GPU: until it was
            queued).
    """

    critic_loss: Tensor
    value: Tensor
    critic_norm: Tensor
    policy_norm: Tensor | None
    policy_loss: Tensor | None
    weights: Floats
    horizon: int
    critic_seconds: float
    policy_seconds: float


@final
class Learner:
    """Networks and optimisers of E seeds."""

    def __init__(self, algorithm: Algorithm, task: Task, settings: Settings) -> None:
        check_fits(algorithm, task)
        self.algorithm, self.task, self.settings = algorithm, task, settings
        self.dtype = getattr(torch, settings.precision)
        self.device = usable_device(settings.device)
        self.seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
        self.draws = Draws(self.seeds, self.dtype, self.device)
        self.objective = Objective(
            task.discount, settings.reward_scale, settings.termination == "mask"
        )
        limit = task.action_limit
        self.limit = None if limit is None else torch.tensor(limit).to(self.device, self.dtype)
        made = [networks(algorithm, task, seed) for seed in self.seeds]
        self.policy_module, self.critic_module = made[0][0], made[0][1][0]
        self.policy = self._stacked([policy for policy, _ in made])
        self.critic = self._stacked([critic for _, critics in made for critic in critics])
        self.target_policy, self.target_critic = self.policy.copied(), self.critic.copied()
        self.policy_adam = _adam(self.policy.parameters, algorithm.policy_rate[0])
        self.critic_adam = _adam(self.critic.parameters, algorithm.value_rate[0])
        self._cached: Tensor | None = None

    def update(self, iteration: int, batch: Batch) -> Update:
        """One critic update, and one of the policy where it is due. Iterations count from 0."""
        begun = time.perf_counter()
        self._set_rates(iteration)
        fresh = iteration % self.algorithm.reuse == 0 or self._cached is None
        if fresh:
            self._cached = self._targets(iteration, batch)
        assert self._cached is not None
        critic_loss, value, critic_norm = self._update_critic(batch, self._cached)
        middle = time.perf_counter()
        weights = self.algorithm.weights(iteration, self.algorithm.horizons)
        policy_norm = policy_loss = None
        horizon = 0
        if iteration % self.algorithm.delay == 0:
            policy_loss, policy_norm, horizon = self._update_policy(iteration, batch, weights)
            _blend(self.target_policy, self.policy, self.algorithm.tau)
            _blend(self.target_critic, self.critic, self.algorithm.tau)
        return Update(
            critic_loss, value, critic_norm, policy_norm, policy_loss, weights, horizon,
            middle - begun, time.perf_counter() - middle,
        )  # fmt: skip

    def act(self, network: Network, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Action [E, N, da]; of a Gaussian policy at `noise`, or at its median without."""
        if self.algorithm.policy == "deterministic":
            return network(state)
        if noise is None:
            return self._squashed(split_normal(network(state), LOG_STD)[0])
        return self.draw(network, state, noise)[0]

    def draw(self, network: Network, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action [E, N, da] of a Gaussian, squashed where actions have limits; its log density."""
        mean, log_std = split_normal(network(state), LOG_STD)
        latent = mean + log_std.exp() * noise
        density = log_normal(noise, log_std)
        if self.limit is not None:
            density = density - log_tanh_slope(latent, self.limit)
        return self._squashed(latent), density.sum(dim=2)

    def values(self, critic: Network, state: Tensor, action: Tensor) -> Tensor:
        """Every critic's value, [E, C, N]."""
        both = torch.cat([state, action], dim=2)
        count = self.algorithm.critics
        if count > 1:
            both = both[:, None].expand(-1, count, -1, -1).flatten(0, 1)
        return critic(both).view(len(self.seeds), count, -1)

    def finite(self) -> NDArray[np.bool_]:
        """Has each seed nothing but finite parameters? [E]"""
        parameters = [*self.policy.parameters, *self.critic.parameters]
        sums = [p.detach().sum(dim=(1, 2)).view(len(self.seeds), -1) for p in parameters]
        return np.asarray(torch.cat(sums, dim=1).isfinite().all(dim=1).cpu().numpy())

    def policy_of(self, member: int, policy: Network | None = None) -> nn.Module:
        """The policy of one seed, of now or of then, as a network that `gradlab measure` takes."""
        return unstacked(policy or self.policy, member, self.policy_module)

    def critic_of(self, member: int, critics: Network | None = None) -> nn.Module:
        """The first critic of one seed, in the task's own rewards."""
        first = member * self.algorithm.critics
        critic = unstacked(critics or self.critic, first, self.critic_module)
        assert isinstance(critic, QCritic)
        last = critic.network[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.div_(self.settings.reward_scale)
            last.bias.div_(self.settings.reward_scale)
        return critic

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, for `load`."""
        found = {}
        for name in ("policy", "critic", "target_policy", "target_critic"):
            for k, tensor in enumerate(getattr(self, name).parameters):
                found[f"{name}.{k}"] = tensor.detach()
        for name in ("policy_adam", "critic_adam"):
            states = getattr(self, name).state
            for k, tensor in enumerate(getattr(self, name).param_groups[0]["params"]):
                for key, value in states.get(tensor, {}).items():
                    found[f"{name}.{k}.{key}"] = value
        if self._cached is not None:
            found["cached_targets"] = self._cached
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name in ("policy", "critic", "target_policy", "target_critic"):
            for k, tensor in enumerate(getattr(self, name).parameters):
                with torch.no_grad():
                    tensor.copy_(state[f"{name}.{k}"])
        for name in ("policy_adam", "critic_adam"):
            optimiser = getattr(self, name)
            for k, tensor in enumerate(optimiser.param_groups[0]["params"]):
                prefix = f"{name}.{k}."
                own = {
                    key[len(prefix) :]: v.clone()
                    for key, v in state.items()
                    if key.startswith(prefix)
                }
                if any(v.shape not in (tensor.shape, ()) for v in own.values()):
                    raise InputError(f"saved {name} does not fit its networks")
                if own:
                    optimiser.state[tensor] = {
                        key: value.to(tensor.device) if key == "step" else value.to(tensor)
                        for key, value in own.items()
                    }
        cached = state.get("cached_targets")
        size = len(self.seeds), self.algorithm.batch
        if cached is not None and cached.shape != size:
            raise InputError(f"saved targets are {tuple(cached.shape)}, expected {size}")
        self._cached = None if cached is None else cached.to(self.device, self.dtype)

    def _stacked(self, modules: list[nn.Module]) -> Network:
        parts = [module.network for module in modules]
        return stacked(parts, self.algorithm.activation, self.dtype, self.device)  # type: ignore[arg-type]

    def _squashed(self, latent: Tensor) -> Tensor:
        return latent if self.limit is None else self.limit * torch.tanh(latent)

    def _set_rates(self, iteration: int) -> None:
        done = min(iteration / self.settings.iterations, 1.0)
        for optimiser, (first, last) in (
            (self.policy_adam, self.algorithm.policy_rate),
            (self.critic_adam, self.algorithm.value_rate),
        ):
            optimiser.param_groups[0]["lr"] = first + (last - first) * done

    def _least(self, state: Tensor, action: Tensor) -> Tensor:
        return self.values(self.target_critic, state, action).amin(dim=1)

    @torch.no_grad()
    def _targets(self, iteration: int, batch: Batch) -> Tensor:
        target, shape = self.algorithm.target, batch.action.shape[1:]
        if isinstance(target, Soft):
            noise = self.draws.normal("target action", iteration, shape)
            action, log_prob = self.draw(self.policy, batch.next_state, noise)
            return targets.soft(
                target.temperature, batch, action, log_prob, self._least, self.objective
            )
        if isinstance(target, OneStep):
            smooth = self.draws.normal("smoothing", iteration, shape) if target.smoothing else None
            return targets.one_step(
                target, batch, self.target_policy, self._least, smooth, self.limit, self.objective
            )
        system = self.task.simulator if target.system == "simulator" else self.task.prior
        assert system is not None
        drawn = self._noise("target noise", iteration, system.noise_dim, target.steps, batch)
        return targets.n_step(
            target, batch, system, self.policy, self.target_policy, self._least, drawn,
            self.objective,
        )  # fmt: skip

    def _noise(
        self, name: str, iteration: int, width: int, steps: int, batch: Batch
    ) -> Tensor | None:
        if width == 0 or steps == 0:
            return None
        drawn = self.draws.normal(name, iteration, (steps, batch.state.shape[1], width))
        return drawn.transpose(0, 1)

    def _update_critic(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = self.values(self.critic, batch.state, batch.action)
        loss = 0.5 * (target[:, None] - value).square().mean(dim=2)
        norm = self._step(self.critic_adam, self.critic, loss.sum(), self.algorithm.critics)
        return loss.detach().sum(dim=1), value.detach().mean(dim=(1, 2)), norm

    def _update_policy(
        self, iteration: int, batch: Batch, weights: Floats
    ) -> tuple[Tensor, Tensor, int]:
        critic = self.critic.frozen()
        if isinstance(self.algorithm.target, Soft):
            loss, horizon = self._soft_loss(iteration, batch, critic), 0
        else:
            pairs = zip(self.algorithm.terms, weights, strict=True)
            kept = [(term, float(weight)) for term, weight in pairs if weight > NEGLIGIBLE]
            horizon = max(term.horizon for term, _ in kept)
            model, first = self.task.prior, critic.every(self.algorithm.critics)
            width = 0 if model is None else model.noise_dim
            noise = self._noise(
                "model noise", iteration, width, max(self.algorithm.horizons), batch
            )
            loss = mixture_loss(
                [term for term, _ in kept], [weight for _, weight in kept],
                self.policy, self.policy.frozen(),
                lambda state, action: first(torch.cat([state, action], dim=2)).squeeze(2),
                model, batch.state, noise, self.objective,
            )  # fmt: skip
        norm = self._step(self.policy_adam, self.policy, loss.sum(), 1)
        return loss.detach(), norm, horizon

    def _soft_loss(self, iteration: int, batch: Batch, critic: Network) -> Tensor:
        assert isinstance(self.algorithm.target, Soft)
        noise = self.draws.normal("action", iteration, batch.action.shape[1:])
        action, log_prob = self.draw(self.policy, batch.state, noise)
        value = self.values(critic, batch.state, action).amin(dim=1)
        return (self.algorithm.target.temperature * log_prob - value).mean(dim=1)

    def _step(self, adam: torch.optim.Adam, network: Network, loss: Tensor, each: int) -> Tensor:
        """One step down `loss`; the gradient norm of every seed before clipping, [E].

        Every network is clipped by itself, twin critics too, as in MPG's published code; the norm
        of a seed is that of its `each` networks together.
        """
        parameters = network.parameters
        gradients = torch.autograd.grad(loss, parameters)
        norms = torch.stack([torch.linalg.vector_norm(g, dim=(1, 2)) for g in gradients])
        norm = torch.linalg.vector_norm(norms, dim=0)
        if self.algorithm.clip is not None:
            factor = (self.algorithm.clip / norm.clamp_min(1e-12)).clamp(max=1.0)
            gradients = tuple(g * factor[:, None, None] for g in gradients)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        total: Tensor = norm.view(-1, each).square().sum(dim=1).sqrt()
        return total


def usable_device(name: str) -> torch.device:
    """
    Raises:
        InputError: no such device, or none on this machine.
    """
    if str(name).partition(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}, expected 'cpu' or 'cuda'")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used ({reason}): take 'cpu'") from error
    return device


def check_fits(algorithm: Algorithm, task: Task) -> None:
    """Raises InputError where the algorithm needs a model that the task has not."""
    if algorithm.needs_model and task.prior is None:
        raise InputError(
            f"{algorithm.name} needs a model, but {task.name} has no prior: give one in a task of "
            f"your own (file.py:function that returns dataclasses.replace(task, prior=…) or "
            f"gradlab.tasks.with_learned_prior), or take td3, sac, ddpg or n-step-dpg"
        )
    if max(algorithm.horizons) > 0 and task.prior is not None and not task.prior.differentiable:
        raise InputError(f"{algorithm.name} differentiates its model, but the prior cannot be")


def networks(
    algorithm: Algorithm, task: Task, seed: int
) -> tuple[Policy | GaussianPolicy, list[QCritic]]:
    """Freshly initialised policy and critics of one seed; the global random state is left alone."""
    ds, da = task.simulator.state_dim, task.simulator.action_dim
    scale, limit = task.observation_scale, task.action_limit
    shape: dict[str, Any] = {
        "hidden": algorithm.hidden, "activation": algorithm.activation, "scale": scale,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, "training networks"))
        policy: Policy | GaussianPolicy
        if algorithm.policy == "gaussian":
            policy = GaussianPolicy(
                ds, da, **shape, squash=limit is not None, limit=limit, log_std_bounds=LOG_STD
            )
        else:
            policy = Policy(ds, da, **shape, limit=limit)
        critics = [QCritic(ds, da, **shape) for _ in range(algorithm.critics)]
    return policy, critics


def _adam(parameters: list[Tensor], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.999), fused=True)


@torch.no_grad()
def _blend(target: Network, live: Network, tau: float) -> None:
    torch._foreach_lerp_(target.parameters, live.parameters, tau)
