"""ADVICE, continued: twelve worlds more (`unseen`), two stages, one seed; and what keeps are worth.

    python -m analyses.advice.continued [--most N] [--output reports/advice]

    followed    16 draws of the recommended updates, 4 of every other gradient's; own batches, own
                paired returns from 1,024 starts of as many steps as the promise
    keep        16 draws of 1, 5 and 25 updates along every measured gradient

    mean over D draws and n starts ± t_{D−1} √(S_D²/D + s²/n),  S_D: of draws, s: of starts

Criterion: reports/advice/criterion.md, "Continued". A cell is a line of continued.jsonl.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
import tyro
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from analyses.advice.follow import PER_TRAJECTORY, Candidate, moved
from analyses.advice.run import advice_of, candidates, measured, share_of_best
from analyses.advice.unseen import UNSEEN
from analyses.advice.worlds import WORLDS, Cell, make_cell
from analyses.harness.running import Row, grown
from gradlab.data.trajectories import child, stream
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Tail, as_starts
from gradlab.gradients.start_laws import visitation
from gradlab.networks.interface import double_copy, flat_parameters, noise_dim
from gradlab.runs.rehearsal import Rehearsal

DRAWS, RIVAL_DRAWS = 16, 4
LENGTHS = (1, 5, 25)  # updates along what a keep might have missed
STARTS = 1024
LEAST = 0.005  # of |return|, which a missed gain is above
MOST_JUDGES = 1024  # with which a keep is measured again
STAGES, SEED = ("early", "late"), 31
MORE = (
    ("pendulum", "late"),
    ("cart-pole", "late"),
    ("linear-stable", "late"),
    ("quadrotor", "late"),
)


def followed(
    cell: Cell, candidate: Candidate, lengths: Sequence[int], rate: float, seed: int
) -> list[nn.Module]:
    """The policies after some numbers of updates of Adam along one candidate: fresh batches, of
    states that the measured policy visits where θ is in the first action, else of starts."""
    task, batch, many = cell.task, cell.world.batch, max(lengths)
    estimator = _estimator(cell, *candidate)
    if estimator.actions == "all":
        states = task.starts(batch * many, stream(seed, "followed starts")).double()
    else:
        at = visitation(task, cell.policy, batch * many, seed, PER_TRAJECTORY)
        states = as_starts(at, task.simulator.state_dim).states
    policy, found = cell.policy, []
    theta = nn.Parameter(flat_parameters(policy))
    optimizer = torch.optim.Adam([theta], rate)
    for update, rows in enumerate(states.split(batch)):
        begin = as_starts(rows, task.simulator.state_dim)
        theta.grad = -mean_gradient(estimator, policy, begin, child(seed, str(update)))
        optimizer.step()
        policy = moved(cell.policy, theta.detach().clone())  # which would share θ's memory
        if update + 1 in lengths:
            found.append(policy)
    return found


def _estimator(cell: Cell, name: str, h: int) -> Estimator:
    """By the names that a measurement has by default."""
    simulator, prior = cell.task.simulator, cell.task.prior
    tail = Tail(h, double_copy("critic", cell.critic), cell.task.discount)
    if name == "data":
        return Estimator(simulator, None, "first", tail)
    assert name.removesuffix("_all") == "model" and prior is not None
    return Estimator(prior, prior, "all" if name.endswith("_all") else "first", tail)


def gains(cell: Cell, policies: Sequence[nn.Module], steps: int, seed: int) -> Tensor:
    """J(θ) of the cell's own policy [n] in the first row, then J(θ_k) − J(θ), the same starts and
    noise for all."""
    task, own = cell.task, [cell.policy, *policies]
    weights, buffers = stack_module_state(own)  # type: ignore[arg-type]

    def act(params: Any, buffers: Any, state: Tensor) -> Any:
        return functional_call(cell.policy, (params, buffers), (state,))

    assert noise_dim(cell.policy) == 0
    generator, K = stream(seed, "continued noise"), len(own)
    state = task.starts(STARTS, stream(seed, "continued starts")).double().repeat(K, 1, 1)
    total = state.new_zeros(K, STARTS)
    for t in range(steps):
        xi = task.simulator.sample_noise(STARTS, generator).repeat(K, 1)
        with torch.no_grad():
            action = vmap(act)(weights, buffers, state)
            out = task.simulator.step(state.flatten(0, 1), action.flatten(0, 1), xi)
        total += task.discount**t * out.reward.reshape(K, STARTS)
        state = out.state.reshape(state.shape)
    return torch.cat([total[:1], total[1:] - total[0]])


def over_draws(x: Tensor) -> list[float]:
    """Mean of changes [D, n] with its interval (module); [−∞] × 3 where one is lost."""
    if not bool(torch.isfinite(x).all()):
        return [-np.inf] * 3
    D, n = x.shape
    spread = float(x.mean(1).var()) / D + float(x.mean(0).var()) / n
    half = float(scipy.stats.t.ppf(0.975, D - 1)) * spread**0.5
    return [float(x.mean()), float(x.mean()) - half, float(x.mean()) + half]


def run_cell(name: str, stage: str, seed: int, folder: Path) -> Row:
    """Measure, read the advice, follow it, write what happened."""
    begun = time.monotonic()
    cell = make_cell(name, stage, seed, folder, UNSEEN | WORLDS)
    profile = measured(cell)
    asked = time.monotonic()
    advice, told = advice_of(profile), profile.rehearsal
    assert told is not None
    profile.save(folder / f"{name}-{stage}-{seed}.h5", overwrite=True)
    every = [(own, h) for own in advice.own for h in candidates(advice, own, cell.world.rivals)]
    every = list(dict.fromkeys([*every, *told.cells]))
    steps = told.horizon if told.chosen is None else told.again_horizon
    cell = replace(cell, seed=child(cell.seed, "continued"))
    row: Row = {
        "world": name, "kind": cell.world.kind, "stage": stage, "seed": seed,
        "recommended": advice.candidate, "updates": advice.updates, "light": advice.light,
        "headline": advice.headline, "judges": told.judges, "gradients": len(every),
    }  # fmt: skip
    row |= _kept(cell, told, every, steps)
    if advice.candidate is not None:
        row |= _recommended(cell, told, every, advice.candidate, advice.updates, steps)
    return row | {"measure": asked - begun, "follow": time.monotonic() - asked}


def _drawn(
    cell: Cell, candidate: Candidate, lengths: Sequence[int], rate: float, draws: int
) -> list[list[nn.Module]]:
    """[length][draw]"""
    found = [
        followed(cell, candidate, lengths, rate, child(cell.seed, f"draw {d}"))
        for d in range(draws)
    ]
    return [list(each) for each in zip(*found, strict=True)]


def _recommended(
    cell: Cell,
    told: Rehearsal,
    every: Sequence[Candidate],
    candidate: Candidate,
    updates: int,
    steps: int,
) -> Row:
    """What the recommended updates bring, beside those of all others."""
    judge = child(cell.seed, "judge")
    (own,) = _drawn(cell, candidate, (updates,), told.rate, DRAWS)
    brought = gains(cell, own, steps, judge)
    promise = told.promised(candidate, updates)
    means = {candidate: brought[1 : RIVAL_DRAWS + 1].mean(0)}
    for other in every:
        if other != candidate:
            (policies,) = _drawn(cell, other, (updates,), told.rate, RIVAL_DRAWS)
            means[other] = gains(cell, policies, steps, judge)[1:].mean(0)
    finite = {c: x for c, x in means.items() if bool(torch.isfinite(x).all())}
    return {
        "return": float(brought[0].mean()),
        "promised": [promise.value, promise.low, promise.high],
        "brought": over_draws(brought[1:]),
        "by_draw": brought[1:].mean(1).tolist(),
        "rivals": {f"{name} {h}": float(x.mean()) for (name, h), x in means.items()},
        "share": share_of_best(finite, candidate) if candidate in finite else [-np.inf] * 3,
    }


def _kept(cell: Cell, told: Rehearsal, every: Sequence[Candidate], steps: int) -> Row:
    """Every gradient's updates from a policy that is kept; nothing where one is recommended."""
    if told.chosen is not None:
        return {}
    judge, found = child(cell.seed, "judge"), {}
    for candidate in every:
        by_length = _drawn(cell, candidate, LENGTHS, told.rate, DRAWS)
        changed = gains(cell, [p for draws in by_length for p in draws], steps, judge)
        for k, x in zip(LENGTHS, changed[1:].chunk(len(LENGTHS)), strict=True):
            found[f"{candidate[0]} {candidate[1]} after {k}"] = over_draws(x)
    now = float(changed[0].mean())
    missed = [key for key, (_, low, _) in found.items() if low > LEAST * abs(now)]
    asked = told.missing(LEAST * abs(told.now))
    row: Row = {"return": now, "tried": found, "missed": missed, "wanted_judges": asked}
    if asked and asked <= MOST_JUDGES:  # with what it asks for it has to decide
        again = measured(cell, judges=asked).rehearsal
        assert again is not None
        left = again.missing(LEAST * abs(again.now))
        row |= {"again": again.chosen, "again_decided": again.chosen is not None or left == 0}
    return row


def verdict(rows: Sequence[Row]) -> str:
    """Each criterion with its count and threshold."""
    followed = [row for row in rows if row["recommended"]]
    kept = [row for row in rows if not row["recommended"]]
    greens = [row for row in followed if row["light"] == "act"]
    wrong = [row for row in greens if not row["brought"][0] > 0]
    counts = {
        "recommended updates raise the return (95%)": [r["brought"][0] > 0 for r in followed],
        "… shown by their whole interval": [r["brought"][1] > 0 for r in followed],
        "keep is right (70%)": [not row["missed"] for row in kept],
        "within 10% of the best followed (75%)": [r["share"][0] >= 0.9 for r in followed],
        "promised interval holds the mean of 16 draws (85%)": [
            r["promised"][1] <= r["brought"][0] <= r["promised"][2] for r in followed
        ],
    }
    lines = [f"{sum(met)} of {len(met)}  {what}" for what, met in counts.items()]
    again = [row["again_decided"] for row in kept if "again_decided" in row]
    lines.append(f"{sum(again)} of {len(again)}  keeps decided with the judges that they ask for")
    return "\n".join([*lines, f"{len(wrong)} of {len(greens)}  greens wrong (none)"])


def main(
    only: tuple[str, ...] = (),
    most: int | None = None,
    seed: int = SEED,
    more: bool = False,
    folder: Path = Path("runs/advice-continued"),
    output: Path = Path("reports/advice"),
) -> None:
    """
    Args:
        only: worlds; all without any.
        most: new cells, at the most; 0: judge what is there.
        seed: of the policies and of everything after them.
        more: cells of older worlds, too, where keeps are fewer than ten.
        folder: of networks and measurements.
        output: of continued.jsonl.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = [*itertools.product(only or UNSEEN, STAGES), *(MORE if more else ())]
    rows = grown(
        output / "continued.jsonl",
        ((name, stage, seed) for name, stage in asked),
        ("world", "stage", "seed"),
        lambda *cell: run_cell(*cell, folder),
        lambda row: (
            f"{row['recommended'] or 'keep'} {row['light']} {row.get('brought') or row['missed']}"
        ),
        most,
    )
    print(verdict(rows))


if __name__ == "__main__":
    tyro.cli(main)
