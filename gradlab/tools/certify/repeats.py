"""Whether step and derivatives depend on anything but the row of their arguments.

    stale              another call in between changes the result
    random             another seed of torch, NumPy and Python changes it
    rows mix           other rows in the batch, or fewer, change it
    arguments changed  the tensors that were passed are other ones afterwards

The first is sought once more after all other calls, and after a thousand of its own. Each is found
by calling twice; results are equal up to the rounding of sums in another order, or
up to a hundredth of the tolerated error: a solver that chooses one step size for all rows of a
batch moves its results within its own tolerance. That is a note, and a noise by which differences
are judged (`Behaviour.noise`).
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import System
from gradlab.tools.certify import sentences
from gradlab.tools.certify.evaluation import (
    SMALL,
    Derivative,
    Points,
    at_once,
    evenly,
    precisions_inside,
)
from gradlab.tools.certify.result import BLOCKS, Finding, Kind, Names

_STATES, _FEWER = 64, 7
_EQUAL = 1e3  # units of ε, relative to the largest value of an output
# Of the tolerated error: of a value, from which a coupling of rows moves a derivative by it; of a
# derivative.
_OF_VALUES, _OF_DERIVATIVES = 0.01, 0.1

LATER = _FEWER + 2  # rows, as no other call has
_CALLS, _SECONDS = 1000, 0.5  # with them, at the end

_Evaluated = Callable[[Points], Tensor]


class _Behaviour(NamedTuple):
    """What the results of a step depend on beside its row, and how much they move below that."""

    findings: list[Finding]
    noise: float


def step_findings(system: System, points: Points, epsilon: float, tolerance: float) -> _Behaviour:
    """Of the step itself.

    Raises:
        InputError: it has randomness of its own.
    """
    few = points.at(evenly(len(points), _STATES))
    calls = _calls(lambda given: at_once(system, given), few)
    lowest = getattr(torch, (*precisions_inside(system, points), "float64")[0])
    # Sums in an order that changes from call to call are no randomness.
    sums = _EQUAL * max(epsilon, torch.finfo(lowest).eps)
    kind, size = _dependence(
        calls, _EQUAL * epsilon, {"random": sums, "stale": sums, "rows mix": sums}
    )
    if kind == "random":
        raise InputError(
            "step has hidden randomness: two calls with the same arguments differ by "
            f"{size:.2g}; pass its noise as the third argument (noise_dim)"
        )
    found = [] if kind is None else [_finding(kind, None, size, "")]
    noise = size if kind in (None, "rows mix") else 0.0
    if kind == "rows mix" and size <= _OF_VALUES * tolerance:
        text = f"{found[0].sentence[:-1]}, as within a solver's tolerance."
        found = [replace(found[0], size=size, severity="note", sentence=text)]
    ds = system.state_dim
    given = {"state": few.z[:, :ds].clone(), "action": few.z[:, ds:].clone()}
    kept = {name: values.clone() for name, values in given.items()}
    with torch.no_grad():
        system.step(given["state"], given["action"], few.noise)
    changed = next((name for name in given if not torch.equal(given[name], kept[name])), None)
    found += [] if changed is None else [_finding("arguments changed", None, 1.0, changed)]
    return _Behaviour(found, noise)


def derivative_findings(
    name: str,
    system: System,
    derivative: Derivative,
    points: Points,
    names: Names,
    epsilon: float,
    tolerance: float,
    J: Tensor,
    coupled: bool = False,
) -> list[Finding]:
    """Of one source of derivatives, block by block.

    Args:
        J: of all points, in large batches: what is kept for a batch's size is that of other rows.
        coupled: rows of the step mix within a solver's tolerance; their derivatives may then mix
            up to the tolerated error.
    """
    few = points.at(evenly(len(points), SMALL))
    calls = _calls(lambda given: derivative(system, given), few)
    large = J[evenly(len(points), SMALL)]
    found = []
    least = max(_EQUAL * epsilon, _OF_DERIVATIVES * tolerance)
    allowed: dict[Kind, float] = {"rows mix": tolerance} if coupled else {}
    for block in BLOCKS:
        rows, columns = names.block(block)
        values = [J[:, rows, columns].flatten(1) for J in calls]
        kind, size = _dependence(values, least, allowed)
        if kind is None:
            size = gap(large[:, rows, columns].flatten(1), values[0])
            kind = "stale" if size > (tolerance if coupled else least) else None
        if kind is not None:
            found.append(_finding(kind, block, size, name))
    return found


def _calls(evaluate: _Evaluated, few: Points) -> tuple[Tensor, ...]:
    """Values of the same points: at first, after another call, with another seed, among other
    rows (the first half) and among fewer (the first ones); values of that other call, and of as
    few of its rows as no call has had."""
    other = few.at(torch.arange(len(few)).flip(0).roll(3))
    shifted = Points(other.z + 0.1 * other.z.std(0, correction=0), other.noise)
    half = len(few) // 2
    mixed = Points(torch.cat([few.z[:half], shifted.z[half:]]), few.noise)
    evaluate(few)
    with _seeded(0):
        first = evaluate(few)
    another = evaluate(shifted)
    with _seeded(0):
        after_another = evaluate(few)
    with _seeded(1):
        reseeded = evaluate(few)
    among = evaluate(mixed)[:half], evaluate(few.at(slice(0, _FEWER)))
    return (
        first,
        after_another,
        reseeded,
        *among,
        another,
        evaluate(shifted.at(slice(0, _FEWER + 1))),
    )


def _dependence(
    calls: Sequence[Tensor], least: float, allowed: Mapping[Kind, float]
) -> tuple[Kind | None, float]:
    """What else the values depend on by at least so much of their size, and by how much; None with
    what they move by otherwise.

    Args:
        allowed: by kind, in the place of `least`.
    """
    first, after_another, reseeded, *among, another, anew = calls
    gaps: tuple[tuple[Kind, float], ...] = (
        ("stale", gap(first, after_another)),
        ("random", gap(first, reseeded)),
        ("rows mix", max(gap(first[: len(values)], values) for values in among)),
        ("stale", gap(another[: len(anew)], anew)),
    )
    for kind, size in gaps:
        if size > allowed.get(kind, least):
            return kind, size
    return None, max(size for _, size in gaps)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every global generator at one seed; as they were before at the end."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value of that output; 1 where the one is not
    finite and the other is."""
    if not torch.equal(torch.isfinite(one), torch.isfinite(other)):
        return 1.0
    size = one.abs().nan_to_num(posinf=0.0).amax(0).clamp_min(1e-300)
    return float(((one - other).abs().nan_to_num(nan=0.0, posinf=0.0) / size).max())


def kept_from_calls(size: float, epsilon: float) -> bool:
    """Is a gap more than sums in another order make?"""
    return size > _EQUAL * epsilon


def later_findings(system: System, few: Points, before: Tensor, epsilon: float) -> list[Finding]:
    """Of the step after all other calls and up to `_CALLS` more, for `_SECONDS` at most: a counter,
    or a cache that fills.

    Args:
        before: y of the points when nothing else had been called.
    """
    until, calls, size = time.monotonic() + _SECONDS, 0, 0.0
    while calls < _CALLS and (calls == 0 or time.monotonic() < until):
        size, calls = max(size, gap(before, at_once(system, few))), calls + 1
    return [_finding("stale", None, size, "")] if kept_from_calls(size, epsilon) else []


def _finding(kind: Kind, block: str | None, size: float, detail: str) -> Finding:
    text = sentences.dependence(kind, block, size, detail)
    source = detail if block is not None else ""
    # A dependence fails the certificate whatever its size: J and D are then of other functions.
    return Finding(kind, block, None, None, None, max(size, 1.0), None, "wrong", text, source)
