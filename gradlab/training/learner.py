"""One update of every seed at once: critic, and every `delay` updates policy and target networks.

The state of training, without environment or file: networks, targets and optimisers, all with a
leading axis [E] of seeds (critics [E · C], the C critics of a seed side by side).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.networks.checkpoint import architecture_of
from gradlab.networks.spectral import Which
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.first_networks import FRESH, check_fits, networks, usable_device
from gradlab.training.members import Acting, Network, Trained, stacked, under, unstacked
from gradlab.training.parts.context import (
    Context,
    Draws,
    Floats,
    Objective,
    Value,
    Values,
    no_values,
)
from gradlab.training.parts.critics import Critic, Valuing, nothing
from gradlab.training.parts.duals import AdaptiveHorizon, Automatic, Temperature
from gradlab.training.seed_models import Model, of_prior, simulator_slopes
from gradlab.training.settings import Settings


@dataclass(frozen=True)
class UpdateRecord:
    """What one update did, [E] each; critics' numbers are 0 where there are none.

    Attributes:
        critic_loss: the row's, mostly half the mean squared error, summed over the seed's critics,
            and like `value` and `critic_norm` the mean over the steps of their fit.
        value: mean critic value on the batch, in scaled rewards.
        critic_norm, policy_norm: gradient norms before clipping.
        policy_loss: −Σ w_n mean X_n, with the entropy term where there is one.
        weights: [terms], over seeds with weights of their own the mean; horizon: the longest
            rollout made.
        temperature: α, where it is automatic; adapted: the horizon, where it is adapted.
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
    temperature: Tensor | None = None
    adapted: Tensor | None = None


@final
class Learner:
    """Networks and optimisers of E seeds.

    Attributes:
        acting: how policies act.
        tuned: temperatures that follow the policy's entropy, or None.
        adapted: horizons that follow the simulator's stiffness, or None.
        model: what rollouts use: the task's prior, or what was learned last (None before).
        in_force: weights of each seed, [E, terms]; NaN in the rows of seeds that follow the rule.
        targets: of the critics at the present batch, [E, N], which its reuses share; None before.
    """

    def __init__(self, algorithm: Algorithm, task: Task, settings: Settings) -> None:
        check_fits(algorithm, task, masked=settings.termination == "mask")
        self.algorithm, self.task, self.settings = algorithm, task, settings
        self.dtype = getattr(torch, settings.precision)
        self.device = usable_device(settings.device)
        self.seeds = tuple(range(settings.first_seed, settings.first_seed + settings.seeds))
        self.draws = Draws(self.seeds, self.dtype, self.device)
        limit = task.action_limit
        self.limit = None if limit is None else torch.tensor(limit).to(self.device, self.dtype)
        gaussian = algorithm.policy == "gaussian"
        self.acting = Acting(gaussian, algorithm.exploration, self.limit, algorithm.log_std)
        temperature, width = algorithm.target.temperature, task.simulator.action_dim
        self.tuned, self.adapted = None, None
        if isinstance(temperature, Automatic):
            self.tuned = Temperature(
                temperature, len(self.seeds), width, self.limit, self.dtype, self.device
            )
        if algorithm.adaptive is not None:
            longest = max(algorithm.horizons)
            self.adapted = AdaptiveHorizon(
                algorithm.adaptive, longest, len(self.seeds), self.device
            )
        self.objective = Objective(
            task.discount,
            settings.reward_scale,
            settings.termination == "mask",
            algorithm.target.temperature if self.tuned is None else self.tuned.value,  # type: ignore[arg-type]
        )
        given, scale = settings.given or FRESH, settings.reward_scale
        made = [networks(algorithm, task, seed, given, scale) for seed in self.seeds]
        self.policy_module = made[0][0]
        critics = [critic for _, critics in made for critic in critics]
        self.critic_module = critics[0] if critics else None
        self.trained_policy = self._begun(
            "policy", [policy for policy, _ in made], algorithm.policy_spectral
        )
        self.trained_critic = (
            self._begun("critic", critics, algorithm.critic_spectral) if critics else None
        )
        self.valuing = Valuing(algorithm.target.kind, algorithm.critics, self.objective)
        self.target_policy = self.policy.copied()
        self.target_critic = None if self.critic is None else self.critic.copied()
        self.model: Model | None = None if algorithm.model else of_prior(task.prior)
        self.in_force = np.full((len(self.seeds), len(algorithm.terms)), np.nan)
        self.targets: Tensor | None = None

    @property
    def policy(self) -> Network:
        """As it acts, [E] members."""
        return self.trained_policy.network

    @property
    def critic(self) -> Network | None:
        """[E · C] members; None without critics."""
        return None if self.trained_critic is None else self.trained_critic.network

    def update(self, iteration: int, batch: Batch) -> UpdateRecord:
        """One critic update, and one of the policy where it is due. Iterations count from 0."""
        begun = time.perf_counter()
        self.set_rates(iteration)
        critic_loss, value, critic_norm = self._update_critic(iteration, batch)
        middle = time.perf_counter()
        weights = self.weights(iteration)
        policy_norm = policy_loss = None
        horizon = 0
        acted = iteration % self.algorithm.delay == 0
        adapted = None if self.adapted is None else self.adapted.value.clone()
        if acted:
            if self.algorithm.loss.of_simulator:
                batch = replace(batch, slopes=simulator_slopes(self.task.simulator, batch))
            loss, horizon = self.policy_loss(iteration, batch, weights, self.draws)
            policy_norm, policy_loss = self.trained_policy.step(loss.sum()), loss.detach()
            self.update_temperature(iteration, batch)
            if self.adapted is not None and batch.slopes is not None:
                self.adapted.step(batch.slopes)
        self.move_targets(iteration, acted)
        return UpdateRecord(
            critic_loss, value, critic_norm, policy_norm, policy_loss, common(weights), horizon,
            middle - begun, time.perf_counter() - middle,
            None if self.tuned is None else self.tuned.value[:, 0].clone(), adapted,
        )  # fmt: skip

    def set_rates(self, iteration: int) -> None:
        """Learning rates of the update of that number."""
        for name, trained in self._trained.items():
            trained.adam.rate = self._rate(name, iteration)

    def move_targets(self, iteration: int, acted: bool) -> None:
        """Let the target networks follow after an update; `acted`: the policy's, too."""
        follow = self.algorithm.following
        follow["policy"](self.target_policy, self.policy, iteration, acted)
        if self.critic is not None and self.target_critic is not None:
            follow["critic"](self.target_critic, self.critic, iteration, acted)

    @property
    def noises(self) -> tuple[int, int]:
        """Widths of the noise of a policy, 0 where it is deterministic, and of the simulator."""
        simulator = self.task.simulator
        return (simulator.action_dim if self.acting.gaussian else 0), simulator.noise_dim

    def weights(self, iteration: int) -> Floats:
        """What is in force, [E, terms]."""
        rule = self.algorithm.weights(iteration, self.algorithm.horizons)
        return np.where(np.isnan(self.in_force), rule, self.in_force)

    def explore(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Action [E, N, da] that is collected, and its log density [E, N] of a Gaussian policy."""
        return self.acting.explore(self.policy, state, noise)

    def value(self) -> Value:
        """The smallest of a seed's critics; 0 where there are none."""
        return nothing if self.critic is None else self.valuing.least(self.critic.frozen())

    def temperature_of(self, member: int) -> float:
        """α of one seed now, in scaled rewards per nat; 0 where the return is not soft."""
        alpha = self.objective.temperature
        return float(alpha[member, 0]) if isinstance(alpha, Tensor) else alpha

    def finite(self) -> NDArray[np.bool_]:
        """Seeds whose parameters are all finite, [E]."""
        parameters = [p for trained in self._trained.values() for p in trained.network.parameters]
        sums = [p.detach().sum(dim=(1, 2)).view(len(self.seeds), -1) for p in parameters]
        return np.asarray(torch.cat(sums, dim=1).isfinite().all(dim=1).cpu().numpy())

    def policy_of(self, member: int) -> nn.Module:
        """The policy of one seed as a network that `gradlab measure` takes."""
        return unstacked(self.policy, member, self.policy_module)

    def critic_of(self, member: int) -> nn.Module | None:
        """The first critic of one seed, in the task's own rewards; None without critics."""
        network = self.critic
        if network is None or self.critic_module is None:
            return None
        critic = unstacked(network, member * self.algorithm.critics, self.critic_module)
        assert isinstance(critic, Critic)
        last = critic.network[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.div_(self.settings.reward_scale)
            last.bias.div_(self.settings.reward_scale)
        return critic

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, for `load`."""
        tensors: dict[str, Tensor] = {}
        for name, trained in self._trained.items():
            tensors |= trained.state(name)
        for name, network in self._targets_named.items():
            tensors |= {f"{name}.{k}": tensor for k, tensor in enumerate(network.parameters)}
        if self.targets is not None:
            tensors["cached_targets"] = self.targets
        if self.tuned is not None:
            tensors |= {f"temperature.{name}": x for name, x in self.tuned.state().items()}
        if self.adapted is not None:
            tensors |= {f"adapted.{name}": x for name, x in self.adapted.state().items()}
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, trained in self._trained.items():
            trained.load(name, state)
        for name, network in self._targets_named.items():
            for k, tensor in enumerate(network.parameters):
                tensor.copy_(state[f"{name}.{k}"])
        if self.tuned is not None:
            self.tuned.load(under(state, "temperature."))
        if self.adapted is not None:
            self.adapted.load(under(state, "adapted."))
        cached = state.get("cached_targets")
        size = len(self.seeds), self.algorithm.batch
        if cached is not None and cached.shape != size:
            raise InputError(f"saved targets are {tuple(cached.shape)}, expected {size}")
        self.targets = None if cached is None else cached.to(self.device, self.dtype)

    def _begun(self, name: str, modules: Sequence[nn.Module], spectral: Which | None) -> Trained:
        """All seeds' networks of a role, and their optimiser."""
        parts = [module.network for module in modules]
        activation = str(architecture_of(modules[0])["activation"])
        network = stacked(parts, activation, self.dtype, self.device)  # type: ignore[arg-type]
        return Trained(network, self._rate(name, 0), self.algorithm.clip, spectral)

    @property
    def _trained(self) -> dict[str, Trained]:
        both = {"policy": self.trained_policy, "critic": self.trained_critic}
        return {name: trained for name, trained in both.items() if trained is not None}

    @property
    def _targets_named(self) -> dict[str, Network]:
        both = {"target_policy": self.target_policy, "target_critic": self.target_critic}
        return {name: network for name, network in both.items() if network is not None}

    def _rate(self, name: str, iteration: int) -> float:
        """Learning rate of policy or critic."""
        done = min(iteration / self.settings.iterations, 1.0)
        row = self.algorithm
        first, last = row.policy_rate if name == "policy" else row.value_rate
        return first + (last - first) * done

    def context(self, iteration: int, draws: Draws) -> Context:
        """What a target or a policy loss is computed from."""
        valuing, target = self.valuing, self.target_critic
        value: Value = nothing
        target_value: Value = nothing
        target_values: Values = no_values
        if self.critic is not None and target is not None:
            ascended = valuing.least if self.algorithm.target.least else valuing.first
            value = ascended(self.critic.frozen())
            target_value, target_values = valuing.least(target), valuing.all(target)
        return Context(
            objective=self.objective,
            act=self.acting.bound(self.policy),
            frozen=self.acting.bound(self.policy.frozen()),
            target_act=self.acting.bound(self.target_policy),
            noise_of=partial(self.acting.noise_of, self.policy.frozen()),
            value=value,
            target_value=target_value,
            target_values=target_values,
            start_law=self.task.starts,
            simulator=self.task.simulator,
            model=self.model,
            draws=draws,
            iteration=iteration,
            noise_dim=self.noises[0],
            limit=self.limit,
            agents=self.settings.agents,
            cut=None if self.adapted is None else self.adapted.steps,
        )

    def _update_critic(self, iteration: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        if self.critic is None or self.trained_critic is None:
            zeros = torch.zeros(len(self.seeds), device=self.device, dtype=self.dtype)
            return zeros, zeros, zeros
        steps = []
        for loss, value in self.critic_losses(iteration, batch):
            norm = self.trained_critic.step(loss.sum(), self.algorithm.critics)
            means = loss.detach().sum(dim=1), value.detach().mean(dim=(1, 2)), norm
            steps.append(torch.stack(means))
        critic_loss, mean_value, norm = torch.stack(steps).mean(dim=0)
        return critic_loss, mean_value, norm

    def critic_losses(self, iteration: int, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Losses [E, C] and values [E, C, N] of the critics now, one after another for each step of
        their fit; targets are those of the batch's first update."""
        assert self.critic is not None
        context = self.context(iteration, self.draws)
        if iteration % self.algorithm.reuse == 0 or self.targets is None:
            with torch.no_grad():
                self.targets = self.algorithm.target(context, batch)
        for rows, target in self.algorithm.fit(self.draws, iteration, batch, self.targets):
            critics = partial(self.valuing.every, self.critic)
            yield self.algorithm.critic_loss(context, rows, critics, target)

    @torch.no_grad()
    def update_temperature(self, iteration: int, batch: Batch) -> None:
        if self.tuned is None:
            return
        shape = (batch.state.shape[1], self.task.simulator.action_dim)
        noise = self.draws.normal("temperature", iteration, shape)
        self.tuned.step(self.acting.draw(self.policy, batch.state, noise)[1])

    def policy_loss(
        self, iteration: int, batch: Batch, weights: Floats, draws: Draws
    ) -> tuple[Tensor, int]:
        """−Σ w_n mean X_n of every seed [E], and the longest rollout made."""
        context = self.context(iteration, draws)
        return self.algorithm.loss(context, batch, self.algorithm.terms, weights)


def common(weights: Floats) -> Floats:
    """Of all seeds, [terms]: theirs where they are the same, else the mean."""
    return weights[0] if (weights == weights[0]).all() else np.asarray(weights.mean(axis=0))


def alone(learner: Learner, member: int, **changes: object) -> Learner:
    """A learner of one seed in the same state, without a model.

    Args:
        changes: settings that differ, such as precision="float64".
    """
    settings: Settings = replace(learner.settings, **changes)  # type: ignore[arg-type]
    settings = replace(settings, seeds=1, first_seed=learner.seeds[member])
    single = Learner(learner.algorithm, learner.task, settings)
    sliced = {}
    for name, value in learner.state().items():
        count = learner.algorithm.critics if name.startswith(("critic", "target_critic")) else 1
        sliced[name] = value[member * count : (member + 1) * count] if value.ndim else value
    single.load(sliced)
    single.in_force = learner.in_force[[member]]
    return single
