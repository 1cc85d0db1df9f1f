"""Comparison of gradients by their inner products, as rows of the table.

score   of every horizon n, with the critic's tail      model   pathwise, of the same returns
whole   of the T recorded steps, without a critic       score without baseline, at H alone
"""

from __future__ import annotations

import numpy as np

from gradlab.data.path import Path
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.jacobians.rows import Rows
from gradlab.logs.agreement import Entry, agreement, noise_of
from gradlab.logs.arguments import Arguments
from gradlab.logs.gradients import Cell, Source, model_source, products, score_source
from gradlab.logs.table import add_growth, add_numbers
from gradlab.logs.windows import Windows
from gradlab.progress import Progress
from gradlab.statistics.growth import variance_growth
from gradlab.systems.recorded import Recorded

SCORE, WHOLE, MODEL, PLAIN = "score", "whole", "model", "score without baseline"
OTHER = "model with critic "


def add_gradients(rows: Rows, what: Arguments, cut: Windows, progress: Progress) -> None:
    """Sections gradient and agreement."""
    sources = _sources(what, cut.path)
    if not sources:
        return
    size = sum(p.numel() for p in what.policy.parameters())
    inner = products(sources, _pairs(sources, what), cut.path, size, progress)
    n = cut.trajectories
    for name, source in sources.items():
        if name == MODEL or name.startswith(OTHER):
            continue
        for h in source.horizons:
            add_numbers(rows, "gradient", name, h, noise_of(inner, (name, h)), n)
    if MODEL not in sources:
        return
    others = [name for name in sources if name.startswith(OTHER)]
    every = []
    for h in what.horizons:
        noise = noise_of(inner, (MODEL, h), tuple((name, h) for name in others))
        add_numbers(rows, "gradient", MODEL, h, noise, n)
        every.append({entry.quantity: entry for entry in noise})
        if not inner.squares[MODEL, h].any():
            continue  # no action reaches a reward in so few steps: nothing to agree about
        for block, cell in _references(sources, what, h):
            add_numbers(rows, "agreement", block, h, agreement(inner, (MODEL, h), cell), n)
    _add_growth(rows, what.horizons, every, n)


def _sources(what: Arguments, path: Path) -> dict[str, Source]:
    states = Recorded(what.data.state.shape[1], what.data.action.shape[1])
    H, critic = what.horizons[-1], what.critics[0] if what.critics else None
    short, tail = path.cut(H), Tail(H, critic, what.discount)
    sources = {}
    if what.stochastic:
        score = Estimator(states, None, "score", tail)
        both = what.policy, short
        sources[SCORE] = score_source(score, *both, what.horizons, what.seed)
        sources[PLAIN] = score_source(score, *both, (H,), what.seed, baseline=False)
        if what.reach > H:
            long = Estimator(states, None, "score", Tail(what.reach, None, what.discount))
            sources[WHOLE] = score_source(long, what.policy, path, (what.reach,), what.seed)
    if what.model is not None:
        for k, tail_critic in enumerate(what.critics or (None,)):
            model = Estimator(states, what.model, "all", Tail(H, tail_critic, what.discount))
            name = f"{OTHER}{k + 1}" if k else MODEL
            sources[name] = model_source(model, what.policy, short, what.horizons, what.seed)
    return sources


def _references(sources: dict[str, Source], what: Arguments, h: int) -> list[tuple[str, Cell]]:
    """The references of the model's gradient of h steps."""
    references = [("same", (SCORE, h))] if SCORE in sources else []
    return references + ([(WHOLE, (WHOLE, what.reach))] if WHOLE in sources else [])


def _pairs(sources: dict[str, Source], what: Arguments) -> list[tuple[Cell, Cell]]:
    """The inner products that are needed."""
    pairs = [((name, h), (name, h)) for name in sources for h in sources[name].horizons]
    if MODEL not in sources:
        return pairs
    models = [name for name in sources if name == MODEL or name.startswith(OTHER)]
    for h in what.horizons:
        pairs += [((MODEL, h), cell) for _, cell in _references(sources, what, h)]
        pairs += [((a, h), (b, h)) for k, a in enumerate(models) for b in models[k + 1 :]]
    return pairs


def _add_growth(
    rows: Rows, horizons: tuple[int, ...], every: list[dict[str, Entry]], n: int
) -> None:
    """How the variance of the model's gradient grows from horizon 1 on."""
    kept = [k for k, h in enumerate(horizons) if h > 0]
    variance = [every[k]["variance"].estimate for k in kept]
    growth = variance_growth(
        np.array([float(horizons[k]) for k in kept]),
        np.array([estimate.value for estimate in variance]),
        np.stack([estimate.left_out for estimate in variance]),
    )
    add_growth(rows, growth, n)
