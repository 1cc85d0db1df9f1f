"""The models that a run learns beside its policies: one ensemble per seed and role, all at once.

Rows follow the environments in time, seed after seed; one piece in ten of every environment's time
is held out for as long as it is in replay. Rows and bootstraps are drawn by the seed's own streams;
a member that leaves the finite numbers is put back. Neighbours are exact and kept while replay
grows, in the metric of the first fit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from gradlab.data.replay import Replay
from gradlab.data.trajectories import Trajectories, child, from_rows, joined
from gradlab.errors import InputError
from gradlab.fitting.derivative_losses import DirectionalDerivative, Neighbours
from gradlab.fitting.fitted import of_members, set_constant_noise
from gradlab.fitting.losses import Bound, Loss, Prediction, StandardisedRows, outputs, standardised
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.progress import Progress, silent
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.training.algorithm import LearnedModel
from gradlab.training.members import Adam, under
from gradlab.training.parts.context import Draws
from gradlab.training.seed_models import Model, SeedModels, SeedTwoModels

PIECE = 10  # steps of one environment that are held out together
_ONE_IN = 10


@dataclass(frozen=True, eq=False)
class _Experience:
    """E seeds of m rows each, seed after seed.

    Attributes:
        rows: standardised seed by seed; its means and deviations are [E, width].
        numbers: [m], of a seed's rows in the order of their arrival since the run began.
        held: [m] bool, which of them are held out.
    """

    rows: StandardisedRows
    numbers: Tensor
    held: Tensor

    @property
    def seeds(self) -> int:
        return len(self.rows.inputs) // len(self.numbers)

    def part(self, held: bool) -> Tensor:
        """Training or held-out rows of every seed, in order."""
        part = (self.held == held).nonzero()[:, 0]
        begin = torch.arange(self.seeds)[:, None] * len(self.numbers)
        return (begin + part).flatten().to(self.rows.inputs.device)


def experience(replay: Replay, agents: int, latest: int | None = None) -> _Experience:
    """All of replay, or the latest rows.

    Args:
        agents: environments per seed, which fill replay in turn.
        latest: rows per seed.
    """
    kept = len(replay) if latest is None else min(latest, len(replay))
    numbers = torch.arange(replay.added - kept, replay.added)
    agent, step = numbers % agents, numbers // agents
    order = (agent * (int(step[-1]) + 1) + step).argsort()
    numbers, agent, step = numbers[order], agent[order], step[order]
    held = (step // PIECE + agent) % _ONE_IN == 0
    if held.all() or not held.any():
        raise InputError(f"replay has {kept} rows, too few to hold some out: raise warmup")
    next_to = (agent[1:] == agent[:-1]) & (step[1:] == step[:-1] + 1)
    at = (numbers % replay.rows.shape[1]).to(replay.rows.device)
    records = [_record(rows, replay.widths, next_to) for rows in replay.rows[:, at]]
    return _Experience(_standardised(records, (~held).nonzero()[:, 0], replay), numbers, held)


def _record(rows: Tensor, widths: tuple[int, ...], next_to: Tensor) -> Trajectories:
    """One seed's rows; `next_to` [m − 1]: whether two are successive steps of one environment."""
    state, action, reward, after, terminated = torch.split(rows.cpu(), list(widths), dim=1)[:5]
    ended = terminated[:, 0] > 0.5
    goes_on = next_to & (after[:-1] == state[1:]).all(dim=1) & ~ended[:-1]
    episode = torch.zeros(len(rows), dtype=torch.long)
    episode[1:] = (~goes_on).cumsum(0)
    return from_rows(state, action, reward[:, 0], after, ended, episode)


def _standardised(
    records: list[Trajectories], training: Tensor, replay: Replay
) -> StandardisedRows:
    device = str(replay.rows.device)
    by_seed = [
        standardised(
            record, training, residual=True, reward=True, dtype=replay.rows.dtype, device=device
        )[0]
        for record in records
    ]
    return StandardisedRows(
        record=joined([rows.record for rows in by_seed]),
        inputs=torch.cat([rows.inputs for rows in by_seed]),
        targets=torch.cat([rows.targets for rows in by_seed]),
        input_mean=torch.stack([rows.input_mean for rows in by_seed]),
        input_std=torch.stack([rows.input_std for rows in by_seed]),
        target_mean=torch.stack([rows.target_mean for rows in by_seed]),
        target_std=torch.stack([rows.target_std for rows in by_seed]),
        residual=True,
    )


_EVALUATED = 1024  # held-out rows per seed, evenly spread over all


@dataclass(frozen=True, eq=False)
class _FitReport:
    """What a fit came to, means over a seed's members, float64.

    Attributes:
        held_out: prediction loss on held-out rows, [E].
        explained: 1 − squared error of one step over the variance, per output, [E, out].
        restored: members that left the finite numbers and were put back, [E].
    """

    held_out: Tensor
    explained: Tensor
    restored: Tensor


@final
class _Ensembles:
    """State: E · M networks, those of a seed side by side, their optimiser and the steps taken.

    Attributes:
        used: the networks of the last fit with plain weights, without gradients.
        elites: places of the members that rollouts use, [E, used], in order.
    """

    def __init__(self, role: str, choice: LearnedModel, task: Task, draws: Draws) -> None:
        self.role, self.choice, self.task, self.draws = role, choice, task, draws
        self.steps = 0
        self._begin()
        self.used = self._usable()
        self.elites = torch.arange(choice.used).repeat(len(draws.seeds), 1)

    def fit(
        self,
        bounds: tuple[Bound, Bound],
        data: _Experience,
        prediction: Prediction,
        progress: Progress,
    ) -> _FitReport:
        """Steps down the first loss; a report of the second on held-out rows."""
        if self.steps and not self.choice.warm_start:
            self._begin()
        again = self.steps and self.choice.warm_start
        rows, members = data.rows, self.choice.members
        given = (rows.input_mean, rows.input_std, rows.target_mean, rows.target_std)
        self.ensemble.set_normalisers(*(value.repeat_interleave(members, 0) for value in given))
        before = {name: value.clone() for name, value in self.ensemble.state_dict().items()}
        sample = self._sample(data) if self.choice.bootstrap else None
        self.ensemble.train()
        steps = self.choice.steps if again else self.choice.first_steps
        parameters = list(self.ensemble.parameters())
        for step in range(steps):
            # A batch of every member's own.
            shape = self.choice.members, self.choice.batch
            share = self.draws.uniform(f"{self.role} model rows", self.steps, shape)
            if sample is not None:
                share = sample.gather(2, (share * sample.shape[2]).long())
            at = _picked(bounds[0].rows, data, share)
            loss = bounds[0].value(self.ensemble, at, self.steps)
            self.adam.step(torch.autograd.grad(loss.sum(), parameters, materialize_grads=True))
            self.steps += 1
            progress(f"{self.role} model", step + 1, steps)
        restored = self._put_back(before)
        loss, square = self._evaluated(bounds[1], data)
        self.used = self._usable()
        if prediction == "mse":
            set_constant_noise(self.used, square)
        seeds = len(self.draws.seeds)
        best = loss.view(seeds, -1).argsort(dim=1, stable=True)
        self.elites = best[:, : self.choice.used].sort(dim=1).values
        return _FitReport(
            held_out=loss.view(seeds, -1).mean(dim=1),
            explained=1 - square.view(seeds, -1, square.shape[1]).mean(dim=1),
            restored=restored.view(seeds, -1).sum(dim=1),
        )

    def of(self, seed: int) -> GaussianEnsemble:
        """The last fit's members of one seed, by its position, that rollouts use."""
        return of_members(self.used, self.in_use[seed])

    @property
    def in_use(self) -> list[list[int]]:
        """Numbers of the members that rollouts use, of every seed."""
        first = self.choice.members * torch.arange(len(self.elites))
        numbers: list[list[int]] = (first[:, None] + self.elites).tolist()
        return numbers

    def state(self) -> dict[str, Tensor]:
        """Everything that the next fit and the next rollout depend on, for `load`."""
        tensors = {f"network.{name}": value for name, value in self.ensemble.state_dict().items()}
        tensors |= {f"used.{name}": value for name, value in self.used.state_dict().items()}
        tensors |= {f"adam.{name}": value for name, value in self.adam.state().items()}
        if self.choice.elites is not None:
            tensors["elites"] = self.elites
        return tensors | {"steps": torch.tensor(self.steps)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for start, network in (("network.", self.ensemble), ("used.", self.used)):
                for name, value in network.state_dict().items():
                    value.copy_(state[start + name])
        self.adam.load(under(state, "adam."))
        if self.choice.elites is not None:
            self.elites.copy_(state["elites"])
        self.steps = int(state["steps"])

    def _begin(self) -> None:
        """Fresh networks, every member's from its seed, role and number."""
        simulator, choice, seeds = self.task.simulator, self.choice, self.draws.seeds
        with torch.random.fork_rng(devices=[]):
            ensemble = GaussianEnsemble(
                simulator.state_dim, simulator.action_dim, len(seeds) * choice.members,
                choice.hidden, choice.activation, network=choice.network,
            )  # fmt: skip
            for number in range(ensemble.members):
                seed, member = seeds[number // choice.members], number % choice.members
                torch.manual_seed(child(seed, f"{self.role} model, member {member}, {self.steps}"))
                ensemble.network.draw_member(number)
        self.ensemble = ensemble.to(self.draws.device, self.draws.dtype)
        if choice.spectral is not None:
            spectral.normalise(self.ensemble, choice.spectral)
        self.adam = Adam(list(self.ensemble.parameters()), choice.learning_rate)

    def _sample(self, data: _Experience) -> Tensor:
        """Where every member's bootstrap sample lies among its seed's rows, [E, M, rows]."""
        shape = self.choice.members, int((~data.held).sum())
        generators = self.draws.generators(f"{self.role} model bootstrap", self.steps)
        drawn = [torch.rand(shape, generator=one, dtype=torch.float64) for one in generators]
        return torch.stack(drawn)

    @torch.no_grad()
    def _put_back(self, before: Mapping[str, Tensor]) -> Tensor:
        """Members that are not finite as they were, with nothing in Adam's memory; which."""
        sums = [p.flatten(1).sum(dim=1) for p in self.ensemble.parameters()]
        lost = ~torch.stack(sums).isfinite().all(dim=0)
        if lost.any():
            for name, value in self.ensemble.state_dict().items():
                value[lost] = before[name][lost]
            self.adam.forget(lost)
        return lost.cpu()

    @torch.no_grad()
    def _evaluated(self, held_out: Bound, data: _Experience) -> tuple[Tensor, Tensor]:
        """Loss [E · M] and mean squared standardised errors [E · M, out] on held-out rows."""
        self.ensemble.eval()
        rows = data.rows
        even = (torch.arange(_EVALUATED, dtype=torch.float64) + 0.5) / _EVALUATED
        even = even.expand(data.seeds, self.choice.members, -1)
        loss = held_out.value(self.ensemble, _picked(held_out.rows, data, even), 0)
        at = _picked(data.part(True), data, even)
        mean, _ = outputs(self.ensemble, rows.inputs[at])
        square = (mean - rows.targets[at]).double().square().mean(dim=1)
        return loss.double().cpu(), square.cpu()

    def _usable(self) -> GaussianEnsemble:
        plain = spectral.baked(self.ensemble.eval())
        assert isinstance(plain, GaussianEnsemble)
        return plain.requires_grad_(False)


def _picked(rows: Tensor, data: _Experience, share: Tensor) -> Tensor:
    """Rows of every seed's own, [E · M, batch]."""
    counts = torch.bincount(rows.cpu() // len(data.numbers), minlength=data.seeds)
    if not counts.all():
        raise InputError("a seed's replay has no row that the model's loss can use: raise warmup")
    begin = counts.cumsum(0) - counts
    at = begin[:, None, None] + (share * counts[:, None, None]).long()
    return rows[at.flatten(0, 1).to(rows.device)]


@final
class NearestRows:
    """State: one search per seed, and the numbers of the rows that it knows.

    Attributes:
        scale: [E, ds + da] float64, the metric; None before the first fit.
    """

    def __init__(self, loss: DirectionalDerivative) -> None:
        self.loss = loss
        self.scale: Tensor | None = None
        self._search: list[Neighbours] = []
        self._numbers = np.empty(0, dtype=np.int64)

    def near(self, experience: _Experience) -> tuple[Tensor, Tensor, int]:
        """Of every training row: its neighbours [R, n], their squared distances, how many repeat.

        Rows that are held out have none: zeros and ones.
        """
        rows, per_seed = experience.rows, len(experience.numbers)
        if self.scale is None:
            std = rows.input_std.double().cpu()
            self.scale = std if self.loss.metric == "standardised" else torch.ones_like(std)
        training = (~experience.held).nonzero()[:, 0]
        training = training[experience.numbers[training].argsort()]
        self._grow(experience, training)
        place, count = training.numpy(), self.loss.neighbours
        index = torch.zeros(len(rows.inputs), count, dtype=torch.long)
        square = torch.ones(len(rows.inputs), count, dtype=torch.float64)
        for seed, search in enumerate(self._search):
            at = seed * per_seed + training
            index[at] = torch.from_numpy(seed * per_seed + place[search.index])
            square[at] = torch.from_numpy(search.distance**2)
        repeated = sum(search.repeated for search in self._search)
        return index.to(rows.inputs.device), square.to(rows.inputs), repeated

    def _grow(self, experience: _Experience, training: Tensor) -> None:
        """Add what is new; `training`: positions within a seed, in the order of arrival."""
        numbers = experience.numbers[training].numpy()
        count = len(self._numbers)
        if not count or not np.array_equal(numbers[:count], self._numbers):
            assert self.scale is not None
            self._search = [
                Neighbours(self.loss.neighbours, scale.numpy(), torch.get_num_threads())
                for scale in self.scale
            ]
            count = 0
        record, per_seed = experience.rows.record, len(experience.numbers)
        points = torch.cat([record.state, record.action], dim=1).double().cpu().numpy()
        fresh = training[count:].numpy()
        for seed, search in enumerate(self._search if len(fresh) else ()):
            search.add(points[seed * per_seed + fresh])
        self._numbers = numbers


@dataclass(frozen=True, eq=False)
class Fitted:
    """One fit of every role.

    Attributes:
        reports: by role.
        rows: per seed, held out ones too; steps: of Adam so far; seconds: that the fit took.
    """

    reports: Mapping[str, _FitReport]
    rows: int
    steps: int
    seconds: float


@final
class Dynamics:
    """State: every role's ensembles, and the neighbours of their rows where a loss needs them.

    Args:
        agents: environments per seed, which fill replay in turn.
    """

    def __init__(self, choice: LearnedModel, task: Task, draws: Draws, agents: int) -> None:
        self.choice, self.task, self.draws, self.agents = choice, task, draws, agents
        self.roles = {role: _Ensembles(role, choice, task, draws) for role in choice.roles}
        loss = choice.loss
        self.nearest = NearestRows(loss) if isinstance(loss, DirectionalDerivative) else None

    @property
    def fitted(self) -> bool:
        return all(ensembles.steps for ensembles in self.roles.values())

    def fit(self, replay: Replay, progress: Progress = silent) -> Fitted:
        """Fit every role to what is in replay."""
        begun = time.perf_counter()
        data = experience(replay, self.agents, self.choice.rows)
        reports = {
            role: self.roles[role].fit(self._bounds(loss, data), data, loss.prediction, progress)
            for role, loss in self.choice.roles.items()
        }
        steps = sum(ensembles.steps for ensembles in self.roles.values())
        return Fitted(reports, len(data.numbers), steps, time.perf_counter() - begun)

    def rollout(self) -> Model:
        """All seeds' models in one, for states [E · N, ds]."""
        parts = []
        for ensembles in self.roles.values():
            like = torch.zeros((), dtype=self.draws.dtype, device=self.draws.device)
            members = [number for numbers in ensembles.in_use for number in numbers]
            numbers = ensembles.used.numbers(like, members)
            parts.append(SeedModels(numbers, len(self.draws.seeds), self.task.alive))
        return parts[0] if len(parts) == 1 else SeedTwoModels(*parts)

    def ensembles_of(self, seed: int) -> dict[str, GaussianEnsemble]:
        """By role, the members of one seed, by its position, that rollouts use."""
        return {role: ensembles.of(seed) for role, ensembles in self.roles.items()}

    def system_of(self, seed: int) -> System:
        """One seed's model on its own, for every instrument."""
        parts = [
            LearnedSystem(ensemble, alive=self.task.alive)
            for ensemble in self.ensembles_of(seed).values()
        ]
        return parts[0] if len(parts) == 1 else TwoModels(*parts)

    def state(self) -> dict[str, Tensor]:
        tensors = {
            f"{role}.{name}": value
            for role, ensembles in self.roles.items()
            for name, value in ensembles.state().items()
        }
        if self.nearest is not None and self.nearest.scale is not None:
            tensors["nearest.scale"] = self.nearest.scale
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        for role, ensembles in self.roles.items():
            ensembles.load(under(state, f"{role}."))
        if self.nearest is not None:
            self.nearest.scale = state.get("nearest.scale")

    def _bounds(self, loss: Loss, data: _Experience) -> tuple[Bound, Bound]:
        """The loss on training rows, and what is reported of held-out ones: its prediction part."""
        training, held_out = data.part(False), data.part(True)
        if not isinstance(loss, DirectionalDerivative):
            return loss.bind(data.rows, training, held_out)
        assert self.nearest is not None
        near = self.nearest.near(data)
        _, reported = loss.reported.bind(data.rows, training, held_out)
        return loss.bound(data.rows, training, near), reported
