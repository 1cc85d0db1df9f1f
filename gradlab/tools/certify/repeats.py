"""Whether step and derivatives depend on anything but the row of their arguments.

    stale              another call in between changes the result
    restless           every call does
    random             another seed of torch, NumPy and Python changes it
    rows_mix           other rows in the batch, or fewer, change it
    place              its own place among the same rows changes it
    arguments_changed  the tensors that were passed are other ones afterwards
    result_changed     the tensors that were returned are other ones after the next call

Results are equal up to sums in another order, or to a hundredth of the tolerated error: a solver
with one step size for a whole batch moves within its tolerance, which is a note and a noise of the
differences.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import BLOCKS, System
from gradlab.tools.certify import evaluation
from gradlab.tools.certify.comparison import Examination
from gradlab.tools.certify.evaluation import SMALL, Derivative, Points, at_once, evenly
from gradlab.tools.certify.result import LOOSE, Deviation, Names

_STATES, _FEWER = 64, 7
_EQUAL = 1e3  # units of ε, relative to the largest value of an output
# Of the tolerated error: of a value, from which a coupling of rows moves a derivative by it; of a
# derivative.
_OF_VALUES, _OF_DERIVATIVES = 0.01, 0.1

_SAME = 1e-12  # relative: nothing but rounding
LATER = _FEWER + 2  # rows, as no other call has
_CALLS, _SECONDS = 1000, 0.5  # with them, at the end

_Evaluated = Callable[[Points], Tensor]


def of_step(
    system: System, points: Points, y: Tensor, names: Names, epsilon: float, tolerance: float
) -> tuple[list[Deviation], float]:
    """Of the step itself, and how much its values move below that.

    Args:
        y: of all points, in large batches.
    """
    chosen = evenly(len(points), _STATES)
    few = points.at(chosen)
    calls = _calls(lambda given: at_once(system, given), few)
    lowest = getattr(torch, (*evaluation.precisions_inside(system, points), "float64")[0])
    # Sums in an order that changes from call to call are no randomness.
    sums = _EQUAL * max(epsilon, torch.finfo(lowest).eps)
    code, size, where = _dependence(
        calls, _EQUAL * epsilon, dict.fromkeys(LOOSE, sums), y[chosen], sums,
        lambda: evaluation.outputs(system, _turned(points)).flip(0)[chosen],
    )  # fmt: skip
    if code == "random":
        raise InputError(
            f"step has hidden randomness: equal calls differ by {size:.2g}; pass its noise as the "
            "third argument (noise_dim)"
        )
    noise = size if code in ("", "rows_mix") else 0.0
    if code == "stale" and _gap(*calls[:2]) > sums:
        code = "restless"
    if code == "rows_mix" and size <= _OF_VALUES * tolerance:
        code = "coupled"
    found = [Deviation(code, size, detail=f"in {names.rows[where]}")] if code else []
    given = dict(zip(("state", "action"), evaluation.state_and_action(system, few.z), strict=True))
    kept = {name: values.clone() for name, values in given.items()}
    with torch.no_grad():
        out = system.step(given["state"], given["action"], few.noise)
        before = out.state.clone(), out.reward.clone()
        changed = [name for name in given if not torch.equal(given[name], kept[name])]
        system.step(*evaluation.state_and_action(system, few.z.flip(0).roll(1)), few.noise)
    pairs = zip(("next state", "reward"), before, (out.state, out.reward), strict=True)
    over = [name for name, was, now in pairs if _gap(was, now)]
    found += [Deviation("arguments_changed", detail=name) for name in changed[:1]]
    found += [Deviation("result_changed", detail=name) for name in over[:1]]
    return found, noise


def of_derivative(
    exam: Examination, source: str, derivative: Derivative, J: Tensor, coupled: bool
) -> list[Deviation]:
    """Of one source of derivatives, block by block.

    Args:
        J: of all points, in large batches: what is kept for a batch's size is that of other rows.
        coupled: rows of the step mix within a solver's tolerance; their derivatives may then mix
            up to the tolerated error.
    """
    system, points, tolerance = exam.system, exam.points, exam.tolerance
    chosen = evenly(len(points), SMALL)
    calls = _calls(
        lambda given: derivative(system, given), points.at(chosen),
        lambda given: at_once(system, given),
    )  # fmt: skip
    found = []
    least = max(_EQUAL * exam.epsilon, _OF_DERIVATIVES * tolerance)
    allowed = dict.fromkeys(("rows_mix", "place"), tolerance) if coupled else {}

    @cache
    def turned() -> Tensor:
        return derivative(system, _turned(points)).flip(0)[chosen]

    def of_block(rows: slice, columns: slice) -> Tensor:
        return turned()[:, rows, columns].flatten(1)

    for block in BLOCKS:
        rows, columns = exam.names.block(block)
        *of, large = (x[:, rows, columns].flatten(1) for x in (*calls, J[chosen]))
        code, size, _ = _dependence(
            of, least, allowed, large, tolerance if coupled else least,
            partial(of_block, rows, columns),
        )  # fmt: skip
        if code:
            found.append(Deviation(code, size, block=block, source=source))
    return found


def _turned(points: Points) -> Points:
    """The last one first: in a large batch what is kept is of another row then, and what depends on
    all rows of it the same."""
    return points.at(torch.arange(len(points)).flip(0))


def _calls(evaluate: _Evaluated, few: Points, step: _Evaluated | None = None) -> tuple[Tensor, ...]:
    """Values of the same points: at first, once more, after another call (and a `step` of as many
    rows, which may keep what derivatives read), with another seed, among other rows (the last half:
    the batch has another first row) and among fewer (the first ones: it has another last one), and
    each in the place of the one before; values of that other call, and of as few of its rows as no
    call has had."""
    other = few.at(torch.arange(len(few)).flip(0).roll(3))
    shifted = Points(other.z + 0.1 * other.z.std(0, correction=0), other.noise)
    half = len(few) // 2
    mixed = Points(torch.cat([shifted.z[:half], few.z[half:]]), few.noise)
    evaluate(few)
    with _seeded(0):
        first = evaluate(few)
    with _seeded(0):
        repeated = evaluate(few)
    another = evaluate(shifted)
    if step is not None:
        step(shifted)
    with _seeded(0):
        after_another = evaluate(few)
    with _seeded(1):
        reseeded = evaluate(few)
    fewer = evaluate(few.at(slice(0, _FEWER)))
    among = torch.cat([fewer, first[_FEWER:half], evaluate(mixed)[half:]])
    with _seeded(0):
        moved = torch.cat([first[:1], evaluate(few.at(slice(1, len(few))))])
    # A place that has the same value whatever is there keeps it: no dependence on the place.
    moved = torch.where(_gaps(first[:-1], moved[1:]) < _SAME, first, moved)
    return (
        first,
        repeated,
        after_another,
        reseeded,
        among,
        moved,
        another,
        evaluate(shifted.at(slice(0, _FEWER + 1))),
    )


def _dependence(
    calls: Sequence[Tensor], least: float, allowed: Mapping[str, float], large: Tensor,
    most: float, turned: Callable[[], Tensor],
) -> tuple[str, float, int]:  # fmt: skip
    """What else the values depend on by at least so much of their size, by how much, and in which
    column, the last one, which may follow from others, if in none of these; "" with what they
    move by otherwise.

    Args:
        allowed: by code, in the place of `least`.
        large: the same in a large batch, of which `most` is allowed; turned: in a large batch with
            the last row first.
    """
    first, repeated, after_another, reseeded, among, moved, another, anew = calls
    pairs = (
        ("stale", first, repeated), ("stale", first, after_another), ("random", first, reseeded),
        ("rows_mix", first, among), ("stale", another[: len(anew)], anew), ("place", first, moved),
    )  # fmt: skip
    sizes = [(code, _gaps(one, two)) for code, one, two in pairs]
    for found, each in sizes:
        limit = allowed.get(found, least)
        if float(each.max()) > limit:
            # A call that follows another one may differ by far more than one that is made again.
            moves = torch.stack([move for code, move in sizes if code == found]).amax(0)
            own = moves[:-1] if bool((moves[:-1] > limit).any()) else moves
            return found, float(moves.max()), int(own.argmax())
    if float((moves := _gaps(first, large)).max()) > most:
        code = "rows_mix" if _gap(turned(), large) <= most else "stale"
        return code, float(moves.max()), int(moves.argmax())
    return "", max(float(each.max()) for _, each in sizes), 0


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


def _gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value of that output; 1 where the one is not
    finite and the other is."""
    return float(_gaps(one, other).max())


def _gaps(one: Tensor, other: Tensor) -> Tensor:
    """The same of every output."""
    size = one.abs().nan_to_num(posinf=0.0).amax(0).clamp_min(1e-300)
    found = ((one - other).abs().nan_to_num(nan=0.0, posinf=0.0) / size).amax(0)
    lost = (torch.isfinite(one) != torch.isfinite(other)).any(0)
    return torch.where(lost, torch.ones_like(found), found)


def after_calls(exam: Examination, few: Points, before: Tensor) -> list[Deviation]:
    """Of the step after all other calls and up to `_CALLS` more, for `_SECONDS` of the processor at
    most: a counter, or a cache that fills. `before`: y of the points before any other call."""
    until, moves = time.process_time() + _SECONDS, list[Tensor]()
    while len(moves) < _CALLS and (not moves or time.process_time() < until):
        moves.append(_gaps(before, at_once(exam.system, few)))
    most = torch.stack(moves).amax(0)
    size = float(most.max())
    if size <= _EQUAL * exam.epsilon:
        return []
    # Where some of the last calls give what the first one gave, it comes and goes.
    again = any(float(each.max()) <= _EQUAL * exam.epsilon for each in moves)
    where = f"in {exam.names.rows[int(most.argmax())]}"
    return [Deviation("restless" if again else "stale", size, detail=where)]
