"""First-action gradients at the checkpoints of MPG's training runs, sample by sample.

    x_kn = action gradient of J_n, n = 0 … 25, through the prior (model) and along the simulator's
           states with the prior's Jacobians (mixed); and the truth's         (MPG eq. 6, at s_n)

A gradient in θ is J(s)ᵀ x, so that the states, x and the policy's file give back every inner
product, and with it every bias, variance and mixture, without measuring again (`products`).

    python -m analyses.early_late.samples [--small] [--checkpoints FOLDER] [--length ITERATIONS]

Starts: "visited", the states that training kept of its replay, where MPG takes its gradients
(eq. 9); "starts", the task's own law; "return", the discounted visitation ν of the checkpoint's
own policy from the task's starts. At ν the mean of the truth is the gradient of the return times
1 − γ, so that errors over |truth|², weights and cosines are those of the step that training makes:
`gradlab.measure`'s law "visited". Before training "visited" and "starts" are the same. Policy and
critic of one seed are measured in full, those of the others as replicates with fewer starts. What
is there is not measured again; checkpoints that do not exist yet are named and left out. Those of
the published runs' first seed: `git restore --source 57789d45 reports/mpg-table-1/runs`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from analyses.mpg_table_1.runs import task_of
from gradlab.data.noise import stream
from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.start_laws import visitation
from gradlab.gradients.starts import Starts, as_starts
from gradlab.gradients.tail import Setting, Tail
from gradlab.measurement.moments.inner_products import first_action_gradients
from gradlab.networks import checkpoint
from gradlab.statistics.grams import ActionProducts
from gradlab.storage import records
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon, unroll_first_action
from gradlab.truth.truth import matched_truth

CHECKPOINTS = Path("reports/mpg-table-1/runs")
KEPT = Path("runs/early-late")
TASKS = ("path_tracking", "inverted_pendulum")
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)  # of a run's length
LENGTH = 20_000  # iterations of the runs in CHECKPOINTS
RAMPS = {"path_tracking": 9000, "inverted_pendulum": 4000}  # T of MPG's weights (Table VI)
HORIZON, BATCH = 25, 256
SEEDS = 5
RETURN = "return"
FULL = {"visited": 1024, "starts": 512, RETURN: 512}  # starts of the seed that is measured in full
MANY = 4096  # where a few starts carry most of the truth: path tracking before training
FEW = 256


@dataclass(frozen=True)
class Place:
    """One checkpoint and the law of its starts."""

    task: str
    iteration: int
    seed: int
    law: str

    @property
    def name(self) -> str:
        return f"{self.task}-{self.iteration:06d}-seed{self.seed}-{self.law}.h5"

    def file(self, kind: str, checkpoints: Path) -> Path:
        """The checkpoint's "policy" or "critic"."""
        return self.folder(checkpoints) / f"seed{self.seed}-{kind}.safetensors"

    def folder(self, checkpoints: Path) -> Path:
        return checkpoints / f"mpg-v2-{self.task}-checkpoints" / f"{self.iteration:06d}"


@dataclass(frozen=True, eq=False)
class Samples:
    """Action gradients at one place, float64.

    Attributes:
        states: [N, ds]; model, mixed: [26, N, da], horizons 0 … 25.
        truth: [N, da], of the return until its gradient converges, or until γᵗ is 1% where it does
            not; heavy tails may hide its size, and paired differences still decide.
        cut: [N, da], of the longest return whose gradient is precise (`gradients.truth`); the truth
            again where none is.
        about: status, steps and reason of the cut truth, its exponent; steps of the truth.
    """

    place: Place
    states: Tensor
    model: Tensor
    mixed: Tensor
    truth: Tensor
    cut: Tensor
    about: Mapping[str, records.Attribute]

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Estimator and horizon of each row of `stacked`; J_0 is the same along any path."""
        H = len(self.model)
        return [*(("model", n) for n in range(H)), *(("mixed", n) for n in range(1, H))]

    @property
    def stacked(self) -> Tensor:
        """[cells + 1, N, da], the truth last."""
        return torch.cat([self.model, self.mixed[1:], self.truth[None]])


def starts_of(place: Place, n: int, checkpoints: Path) -> Starts:
    """Up to n states of the law."""
    task = task_of(place.task)
    if place.law == RETURN:
        path = visitation(task, policy_at(place, checkpoints), n, place.seed)
        return as_starts(path, task.simulator.state_dim)
    drawn = task.starts(n, stream(place.seed, "starts"))
    if place.law == "visited" and place.iteration > 0:
        kept = records.read(place.folder(checkpoints) / "states.h5").groups["states"]
        row = kept["seed"].values.tolist().index(place.seed)
        drawn = torch.from_numpy(kept["state"].values[row][:n]).double()
    return as_starts(drawn, task.simulator.state_dim)


def policy_at(place: Place, checkpoints: Path) -> nn.Module:
    return checkpoint.load(place.file("policy", checkpoints)).double()


def estimators(task: Task, critic: nn.Module, horizon: int) -> dict[str, Estimator]:
    """J_n through the prior, and along the simulator's states."""
    assert task.prior is not None
    tail = Tail(horizon, critic, task.discount)
    return {
        "model": Estimator(task.prior, task.prior, "first", tail),
        "mixed": Estimator(task.simulator, task.prior, "first", tail),
    }


def measured(place: Place, n: int, checkpoints: Path, horizon: int = HORIZON) -> Samples:
    """Truth and estimators of one place, terminal states ignored as in training."""
    task, policy = task_of(place.task), policy_at(place, checkpoints)
    critic = checkpoint.load(place.file("critic", checkpoints)).double()
    begin = starts_of(place, n, checkpoints)
    setting = Setting(task.simulator, policy, begin, task.discount, horizon, seed=place.seed)
    truth = matched_truth(setting)
    found = first_action_gradients(estimators(task, critic, horizon), setting)
    cut = None if truth.first is None else truth.first.gradients
    if cut is None or truth.horizon < effective_horizon(task.discount):
        long, steps = long_truth(task, policy, begin, place.seed)
    else:
        long, steps = cut, truth.horizon
    cut = long if cut is None else cut
    about: dict[str, records.Attribute] = {
        "status": truth.status,
        "steps": steps,
        "cut_steps": steps if truth.first is None else truth.horizon,
        "lyapunov": truth.lyapunov,
        "reason": truth.reason,
    }
    return Samples(place, begin.states, found["model"], found["mixed"], long, cut, about)


def long_truth(task: Task, policy: nn.Module, begin: Starts, seed: int) -> tuple[Tensor, int]:
    """Action gradients of the longest return worth summing, [N, da], and its steps."""
    unrolled = unroll_first_action(
        Setting(task.simulator, policy, begin, task.discount, seed=seed), at_least=HORIZON
    )
    finite = int(torch.isfinite(unrolled.gradients).flatten(1).all(dim=1).sum())
    reach = finite if unrolled.converged else min(finite, effective_horizon(task.discount))
    return unrolled.gradients[reach - 1], reach


def save(samples: Samples, path: Path) -> None:
    """In float32: 1e-7 of a gradient is far below its error."""
    n, ds = samples.states.shape
    da = samples.truth.shape[1]

    def kept(values: Tensor, *dims: str) -> records.Array:
        return records.Array(values.float().numpy(), dims)

    arrays = {
        "sample": records.Array(np.arange(n), ("sample",)),
        "coordinate": records.Array(np.arange(ds), ("coordinate",)),
        "action": records.Array(np.arange(da), ("action",)),
        "horizon": records.Array(np.arange(len(samples.model)), ("horizon",)),
        # States decide J(s), which is compared with what was measured: kept exactly.
        "state": records.Array(samples.states.numpy(), ("sample", "coordinate")),
        "model": kept(samples.model, "horizon", "sample", "action"),
        "mixed": kept(samples.mixed, "horizon", "sample", "action"),
        "truth": kept(samples.truth, "sample", "action"),
        "cut": kept(samples.cut, "sample", "action"),
    }
    place: dict[str, records.Attribute] = {"kind": "action gradients", **vars(samples.place)}
    about = place | dict(samples.about)
    records.write(path, records.Record(about, {"gradients": arrays}), overwrite=True)


def load(path: Path) -> Samples:
    """
    Raises:
        InputError: no such file, or a damaged one.
    """
    record = records.read(path)
    about = dict(record.attributes)
    place = Place(*(about.pop(name) for name in ("task", "iteration", "seed", "law")))  # type: ignore[arg-type]
    arrays = record.groups["gradients"]
    parts = (
        torch.from_numpy(arrays[name].values).double()
        for name in ("state", "model", "mixed", "truth", "cut")
    )
    return Samples(place, *parts, about)


def products(
    samples: Samples, policy: nn.Module, folds: Sequence[np.ndarray] = (), groups: int | None = None
) -> list[ActionProducts]:
    """Inner products of all cells and the truth, one for each division of the groups of starts.

    Args:
        folds: [G] of 0 and 1 each; none: one division into even and odd groups.
        groups: how many groups the starts make in turn; None: each is one.
    """
    n, x = len(samples.states), samples.stacked
    group = np.arange(n) % (n if groups is None else groups)
    G = int(group.max()) + 1
    divisions = [np.asarray(fold, dtype=np.int64) for fold in folds] or [np.arange(G) % 2]
    noise = as_starts(samples.states, samples.states.shape[1]).policy_noise(policy, 0, 0)
    jacobian = policy_jacobian(policy, samples.states, noise)
    halves = [x * torch.from_numpy(fold[group] == 1)[:, None] for fold in divisions]
    total, within = gram.products(jacobian, torch.cat([x, *halves]), torch.from_numpy(group))
    whole, *second = torch.split(total, len(x))
    own = None if groups is None else within[: len(x)].numpy()
    unit = torch.eye(x.shape[2], dtype=x.dtype)[:, None].expand(-1, n, -1)
    diagonal = gram.products(jacobian, unit, torch.arange(n))[1].permute(1, 2, 0).numpy()
    return [
        ActionProducts(
            x.numpy(), torch.stack([whole - one, one]).numpy(), own, diagonal, group, fold
        )
        for one, fold in zip(second, divisions, strict=True)
    ]


def file(place: Place, length: int) -> Path:
    """Of the samples at a place of runs of so many iterations."""
    return KEPT / str(length) / place.name


def places(length: int = LENGTH) -> Iterator[tuple[Place, int]]:
    """Every place and its number of starts; the full seed first."""
    iterations = [round(length * share) for share in SHARES]
    for law, n in FULL.items():
        for iteration in iterations:
            for task in TASKS:
                if law != "starts" or iteration > 0:
                    yield _sized(Place(task, iteration, 0, law), n)
    for seed in range(1, SEEDS):
        for iteration in iterations:
            for task in TASKS:
                yield _sized(Place(task, iteration, seed, "visited"), FEW)


def _sized(place: Place, n: int) -> tuple[Place, int]:
    """With `MANY` starts where a few of them carry most of the truth."""
    tailed = place.task == "path_tracking" and place.iteration == 0 and place.law != RETURN
    return place, MANY if tailed else n


def main(
    small: bool = False,
    checkpoints: Path = CHECKPOINTS,
    laws: Sequence[str] = tuple(FULL),
    length: int = LENGTH,
) -> None:
    """Measure what is missing.

    Args:
        small: few starts of the first checkpoint alone, written nowhere.
        checkpoints: folder of the runs of `analyses.mpg_table_1 train`.
        laws: visited, starts, return.
        length: iterations of those runs.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if small:
        print(measured(Place(TASKS[0], 0, 0, "visited"), 8, checkpoints, 3).about["reason"])
        return
    for place, n in places(length):
        path = file(place, length)
        if place.law not in laws or path.exists():
            continue
        if not place.file("critic", checkpoints).exists():
            print(f"{place.name}: no checkpoint yet")
            continue
        begun = time.monotonic()
        samples = measured(place, n, checkpoints)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(samples, path)
        print(f"{place.name}: {time.monotonic() - begun:.0f} s, {samples.about['reason']}")


if __name__ == "__main__":
    tyro.cli(main)
