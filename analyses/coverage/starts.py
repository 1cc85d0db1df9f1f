"""Coverage under starts with tails, drawn directly and through `gradlab.measure`.

starts     gradients of `quadratic_gradients`, quadratic in Student's t starts, every moment known;
           "flagged" is what the check "starts rarer than the sample" finds of the sample alone,
           without its pilot: 1 start in 100 carries too much
measured   `gradlab.measure` as a user calls it, on a linear-quadratic task and on path tracking;
           gains of the first are known in closed form; variances, errors and SNR are held against
           the mean of all repetitions' unbiased estimates. "headline" is the gain of the cell that
           the first screen recommends. Flagged is a measurement whose check fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

import gradlab
from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.cells import UNSTABLE, Hits, covered, growth_cells, lq_known
from analyses.coverage.gain_coverage import known_gains, networks, turning
from analyses.coverage.synthetic import moments
from gradlab.measurement.rare_starts import HEAVY, largest_share
from gradlab.networks import checkpoint
from gradlab.runs.check_results import rare_starts
from gradlab.runs.profile import Profile
from gradlab.statistics.moments import Moments
from gradlab.tasks import Task, path_tracking
from gradlab.verdicts.facts import facts

LAWS = {"Gaussian": np.inf, "t9": 9.0, "t4.5": 4.5}
WORLDS = (lq.WORLDS[0], lq.WORLDS[2], lq.WORLDS[3])
CHECKED = 60  # repetitions of which the check is made
NETWORKS = "reports/path-tracking/path_tracking"
HORIZON = 4
CELLS = (("data", 0), ("model", HORIZON), ("mixed", HORIZON), ("model_all", HORIZON))
Law = Callable[[int, torch.Generator], Tensor]


def starts_cells(law: str, n: int, repetitions: int) -> Iterator[pd.DataFrame]:
    for k, plain in enumerate(WORLDS):
        world = replace(plain, freedom=LAWS[law])
        M = lq.action_gradients(world, (5,))
        truth = M.pop("truth")
        for name, m in M.items():
            rng = np.random.default_rng([3, n, k, list(LAWS).index(law)])

            def sample(world=world, m=m, truth=truth, rng=rng) -> Moments:
                data = lq.drawn(world, {"G": m, "T": truth}, n, rng)
                return moments(data["G"], data["T"])

            flags = flagged(world, m, n, min(CHECKED, repetitions))
            found = covered(sample, lq_known(world, m, truth, n), n, repetitions, flags)
            yield found.assign(family="starts", tails=law, n=n, cell=f"{world.name}, {name}")


def tailed_growth(law: str, n: int, repetitions: int) -> Iterator[pd.DataFrame]:
    world = replace(UNSTABLE, freedom=LAWS[law])
    last = lq.action_gradients(world, (25,))["model 25"]
    flags = flagged(world, last, n, min(CHECKED, repetitions))
    found = growth_cells(n, repetitions, world, flags)
    yield found.assign(family="starts", tails=law, cell="growing, model 1 … 25")


def flagged(world: lq.World, m: lq.Array, n: int, repetitions: int) -> float:
    """Share of samples in which 1 start in 100 carries too much of the squared gradients."""
    rng = np.random.default_rng([4, n])
    samples = (lq.drawn(world, {"G": m}, n, rng)["G"] for _ in range(repetitions))
    return float(np.mean([largest_share((G**2).sum(axis=1)) > HEAVY for G in samples]))


def measured_cells(task: str, law: str, n: int, repetitions: int) -> Iterator[pd.DataFrame]:
    """Through the public call; the law of the starts is the task's with other tails."""
    plain, policy, critic = _problem(task)
    tailed = replace(plain, starts=_tailed(plain, LAWS[law]))
    profiles = [
        gradlab.measure(tailed, policy, critic, horizon=HORIZON, starts=n, seed=seed, judges=4)
        for seed in range(repetitions)
    ]
    flags = [(check := rare_starts(p.sanity)) is not None and not check.passed for p in profiles]
    rows = [row for name, h in CELLS for row in _rows(profiles, name, h, float(np.mean(flags)))]
    if task == "turning":
        rows += list(_gains(profiles, known_gains(plain, policy.weight.detach(), critic)))
    yield pd.DataFrame(rows).assign(family="measured", tails=law, n=n, task=task)


def _rows(profiles: list[Profile], name: str, h: int, flags: float) -> Iterator[dict[str, object]]:
    """Against means over all repetitions, whose error is a fraction of one interval's."""

    def mean(*quantities: str) -> float:
        values = [[p.estimate(name, q, h).value for q in quantities] for p in profiles]
        return float(np.nanmean(np.prod(values, axis=1)))

    variance, mse = mean("variance"), mean("mse")
    truth2 = float(np.nanmean([
        p.estimate(name, "mse", h).value / p.estimate(name, "relative_mse", h).value
        for p in profiles
    ]))  # fmt: skip
    known = {
        "variance": variance, "mse": mse, "relative_mse": mse / truth2,
        "snr": mean("snr", "variance") / variance,
    }  # fmt: skip
    for quantity, value in known.items():
        hits = Hits(quantity, value)
        for profile in profiles:
            ends = profile.interval(name, quantity, h)
            hits.add(ends.low, ends.high)
        yield hits.row(flags) | {"cell": f"{name} {h}"}


def _gains(
    profiles: list[Profile], known: dict[tuple[str, int], float]
) -> Iterator[dict[str, object]]:
    """Of every cell, and of the recommended one; directions are not what the check is about."""
    for (name, h), gain in known.items():
        hits = Hits("gain", gain)
        for profile in profiles:
            ends = profile.interval(name, "gain", h)
            hits.add(ends.low, ends.high)
        yield hits.row() | {"cell": f"{name} {h}"}
    headline = Hits("headline gain", 0.0)
    for profile in profiles:
        read = facts(profile)
        if read.best is not None and read.chosen is not None and read.best in known:
            gain = known[read.best]
            headline.add(read.chosen.low - gain, read.chosen.high - gain)
    yield headline.row() | {"cell": "recommended"}


def _problem(task: str) -> tuple[Task, nn.Module, nn.Module]:
    if task == "turning":
        plain = turning()
        return plain, *networks(plain)
    loaded = (checkpoint.load(f"{NETWORKS}.{part}.safetensors") for part in ("policy", "critic"))
    policy, critic = loaded
    return path_tracking(), policy, critic


def _tailed(task: Task, freedom: float) -> Law:
    """The task's law; its deviations from the mean are Student's t of the same covariance.

    Of path tracking the place on the path stays uniform.
    """

    def law(n: int, generator: torch.Generator) -> Tensor:
        states = task.starts(n, generator)
        if np.isinf(freedom):
            return states
        seed = int(torch.randint(2**31, (1,), generator=generator))
        chi2 = stats.chi2.rvs(freedom, size=(n, 1), random_state=seed)
        larger = torch.from_numpy(((freedom - 2) / chi2) ** 0.5)
        if task.name != "path_tracking":
            mean = torch.tensor([0.6, -0.3], dtype=torch.float64)
            return mean + (states - mean) * larger
        return torch.cat([states[:, :1], states[:, 1:5] * larger, states[:, 5:]], dim=1)

    return law
