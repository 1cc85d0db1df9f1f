"""Whether step and derivatives depend on anything but the row of their arguments.

    stale              another call in between changes the result, or every call does
    random             another seed of torch, NumPy and Python changes it
    rows mix           other rows in the batch, or fewer, change it
    place              its own place among the same rows changes it
    arguments changed  the tensors that were passed are other ones afterwards
    result changed     the tensors that were returned are other ones after the next call

Results are equal up to sums in another order, or to a hundredth of the tolerated error: a solver
with one step size for a whole batch moves within its tolerance, which is a note and a noise of the
differences. A first call that leaves something behind is found by two processes that branch off.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradlab.errors import InputError, in_short
from gradlab.systems.system import System
from gradlab.tasks.task import Task
from gradlab.tools.certify.evaluation import (
    SMALL,
    Derivative,
    Points,
    at_once,
    evenly,
    outputs,
    precisions_inside,
    state_and_action,
)
from gradlab.tools.certify.result import (
    BLOCKS,
    SYMBOLS,
    Certification,
    Finding,
    Kind,
    Names,
    percentage,
)
from gradlab.tools.certify.sampling import labelled, law

_STATES, _FEWER = 64, 7
_EQUAL = 1e3  # units of ε, relative to the largest value of an output
# Of the tolerated error: of a value, from which a coupling of rows moves a derivative by it; of a
# derivative.
_OF_VALUES, _OF_DERIVATIVES = 0.01, 0.1

_SAME = 1e-12  # relative: nothing but rounding
LATER = _FEWER + 2  # rows, as no other call has
_CALLS, _SECONDS = 1000, 0.5  # with them, at the end

_Evaluated = Callable[[Points], Tensor]


class _Behaviour(NamedTuple):
    """What the results of a step depend on beside its row, and how much they move below that."""

    findings: list[Finding]
    noise: float


def step_findings(
    system: System, points: Points, y: Tensor, names: Names, epsilon: float, tolerance: float
) -> _Behaviour:
    """Of the step itself.

    Args:
        y: of all points, in large batches.
    """
    chosen = evenly(len(points), _STATES)
    few = points.at(chosen)
    calls = _calls(lambda given: at_once(system, given), few)
    lowest = getattr(torch, (*precisions_inside(system, points), "float64")[0])
    # Sums in an order that changes from call to call are no randomness.
    sums = _EQUAL * max(epsilon, torch.finfo(lowest).eps)
    kind, size, where = _dependence(
        calls, _EQUAL * epsilon, {"random": sums, "stale": sums, "rows mix": sums, "place": sums}
    )
    if kind is None and float((moves := _gaps(calls[0], y[chosen])).max()) > sums:
        turned = outputs(system, _turned(points)).flip(0)
        kind = "rows mix" if gap(turned[chosen], y[chosen]) <= sums else "stale"
        size, where = float(moves.max()), int(moves.argmax())
    if kind == "random":
        raise InputError(
            "step has hidden randomness: two calls with the same arguments differ by "
            f"{size:.2g}; pass its noise as the third argument (noise_dim)"
        )
    restless = kind == "stale" and gap(*calls[:2]) > sums
    found = [] if kind is None else [_finding(kind, None, size, "", names.rows[where], restless)]
    noise = size if kind in (None, "rows mix") else 0.0
    if kind == "rows mix" and size <= _OF_VALUES * tolerance:
        text = f"{found[0].sentence[:-1]}, as within a solver's tolerance."
        found = [replace(found[0], size=size, severity="note", sentence=text)]
    given = dict(zip(("state", "action"), state_and_action(system, few.z), strict=True))
    kept = {name: values.clone() for name, values in given.items()}
    with torch.no_grad():
        out = system.step(given["state"], given["action"], few.noise)
        changed = next((name for name in given if not torch.equal(given[name], kept[name])), None)
        found += [] if changed is None else [_finding("arguments changed", None, 1.0, changed)]
        before = out.state.clone(), out.reward.clone()
        system.step(*state_and_action(system, few.z.flip(0).roll(1)), few.noise)
    pairs = zip(("next state", "reward"), before, (out.state, out.reward), strict=True)
    over = next((name for name, was, now in pairs if gap(was, now)), None)
    found += [] if over is None else [_finding("result changed", None, 1.0, over)]
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
    calls = _calls(
        lambda given: derivative(system, given), few, lambda given: at_once(system, given)
    )
    chosen = evenly(len(points), SMALL)
    large, turned = J[chosen], None
    found = []
    least = max(_EQUAL * epsilon, _OF_DERIVATIVES * tolerance)
    most = tolerance if coupled else least
    allowed: dict[Kind, float] = {"rows mix": tolerance, "place": tolerance} if coupled else {}
    for block in BLOCKS:
        rows, columns = names.block(block)
        values = [J[:, rows, columns].flatten(1) for J in calls]
        kind, size, _ = _dependence(values, least, allowed)
        if kind is None:
            of_all = large[:, rows, columns].flatten(1)
            if (size := gap(of_all, values[0])) > most:
                turned = derivative(system, _turned(points)).flip(0) if turned is None else turned
                again = turned[chosen][:, rows, columns].flatten(1)
                kind = "rows mix" if gap(again, of_all) <= most else "stale"
        if kind is not None:
            found.append(_finding(kind, block, size, name))
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
    calls: Sequence[Tensor], least: float, allowed: Mapping[Kind, float]
) -> tuple[Kind | None, float, int]:
    """What else the values depend on by at least so much of their size, by how much, and in which
    column, the last one, which may follow from others, if in none of these; None with what they
    move by otherwise. `allowed`: by kind, in the place of `least`."""
    first, repeated, after_another, reseeded, among, moved, another, anew = calls
    pairs: tuple[tuple[Kind, Tensor, Tensor], ...] = (
        ("stale", first, repeated),
        ("stale", first, after_another),
        ("random", first, reseeded),
        ("rows mix", first, among),
        ("stale", another[: len(anew)], anew),
        ("place", first, moved),
    )
    sizes = [_gaps(one, two) for _, one, two in pairs]
    over = (
        kind for (kind, *_), each in zip(pairs, sizes, strict=True)
        if float(each.max()) > allowed.get(kind, least)
    )  # fmt: skip
    if (found := next(over, None)) is not None:
        # A call that follows another one may differ by far more than one that is made again.
        of = [each for (kind, *_), each in zip(pairs, sizes, strict=True) if kind == found]
        most, limit = torch.stack(of).amax(0), allowed.get(found, least)
        own = most[:-1] if bool((most[:-1] > limit).any()) else most
        return found, float(most.max()), int(own.argmax())
    return None, max(float(each.max()) for each in sizes), 0


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
    return float(_gaps(one, other).max())


def _gaps(one: Tensor, other: Tensor) -> Tensor:
    """The same of every output."""
    size = one.abs().nan_to_num(posinf=0.0).amax(0).clamp_min(1e-300)
    found = ((one - other).abs().nan_to_num(nan=0.0, posinf=0.0) / size).amax(0)
    lost = (torch.isfinite(one) != torch.isfinite(other)).any(0)
    return torch.where(lost, torch.ones_like(found), found)


def _kept_from_calls(size: float, epsilon: float) -> bool:
    """Is a gap more than sums in another order make?"""
    return size > _EQUAL * epsilon


def later_findings(
    system: System, few: Points, before: Tensor, names: Names, epsilon: float
) -> list[Finding]:
    """Of the step after all other calls and up to `_CALLS` more, for `_SECONDS` of the processor at
    most: a counter, or a cache that fills. `before`: y of the points before any other call."""
    until, sizes = time.process_time() + _SECONDS, list[Tensor]()
    while len(sizes) < _CALLS and (not sizes or time.process_time() < until):
        sizes.append(_gaps(before, at_once(system, few)))
    most = torch.stack(sizes).amax(0)
    size = float(most.max())
    if not _kept_from_calls(size, epsilon):
        return []
    # Where some of the last calls give what the first one gave, it comes and goes.
    again = any(not _kept_from_calls(float(each.max()), epsilon) for each in sizes)
    return [_finding("stale", None, size, "", names.rows[int(most.argmax())], again)]


def by_later_calls(finding: Finding) -> bool:
    """Whether a step that depends on earlier calls may have made it: its derivatives then seem to
    depend on rows and places, too."""
    return finding.block is not None and finding.kind in ("stale", "random", "rows mix", "place")


def _finding(
    kind: Kind, block: str | None, size: float, detail: str, where: str = "", restless: bool = False
) -> Finding:
    """A dependence, which fails whatever its size: J and D are then of other functions.

    Args:
        detail: source of a block's, or the argument or result; where: an output that moves;
            restless: two equal calls in a row differ.
    """
    subject = "The step" if block is None else SYMBOLS[block]
    by = f" (by {percentage(size)} of its size{f', in {where}' if where else ''})"
    earlier = f"depends on earlier calls{by}: a buffer keeps their values."
    if restless:
        earlier = (
            f"gives another result when it is called again with the same arguments{by}: a random "
            f"generator of its own, a clock, or what it keeps and updates (averages, a warm start)."
        )
    text = {
        "stale": f"{subject} {earlier}",
        "random": f"{subject} depends on a hidden random seed{by}.",
        "rows mix": f"{subject} of one row depends on the other rows of its batch{by}.",
        "place": (
            f"{subject} of one row depends on its place in the batch{by}: a mask by the row's "
            f"number, or parameters of each row."
        ),
        "arguments changed": f"The step writes into its argument {detail}.",
        "result changed": (
            f"The step returns the same buffer at every call: the next call overwrites the "
            f"{detail} of the one before. Return a copy."
        ),
    }[kind]
    source = detail if block is not None else ""
    return Finding(kind, "wrong", text, max(size, 1.0), block, source=source)


_LONGEST = 20.0  # s of a process
_THREADED = ("jax", "warp")  # whose threads a process that branches off would wait for
_Calls = tuple[Tensor, Tensor]


def _first_calls(made: System | Task, seed: int) -> _Calls | str:
    """y of the same points as a first call and after another one, or why that was not tried."""
    threaded = [name for name in _THREADED if name in sys.modules]
    if threaded or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return f"not tried: {(*threaded, 'CUDA')[0]} does not branch off"
    task = made if isinstance(made, Task) else None
    system = made.simulator if isinstance(made, Task) else made
    drawn = law(system, task, None, None, seed)
    action = drawn.action_size * drawn.draw("anew", len(drawn.starts), system.action_dim)
    points = labelled(system, torch.cat([drawn.starts, action], 1), "given", seed, None).points
    few = points.at(slice(0, len(points) // 2))
    other = Points(few.z.flip(0) * 1.1 + 0.1, few.noise)

    def after() -> Tensor:
        at_once(system, other)
        return at_once(system, points)

    try:
        return _apart(lambda: at_once(system, points)), _apart(after)
    except (OSError, ValueError, RuntimeError) as error:
        return f"not tried: {in_short(error)}"


def certified_anew(
    made: System | Task, seed: int, examine: Callable[[], Certification]
) -> Certification:
    """What `examine` finds, and whether a first call leaves something behind, which is tried
    before anything is called."""
    calls = _first_calls(made, seed)
    certificate = examine()
    size = 0.0 if isinstance(calls, str) else gap(*calls)
    findings = list(certificate.findings)
    known = any(each.kind == "stale" and each.block is None for each in findings)
    if not known and _kept_from_calls(size, certificate.facts["precision"]):
        text = f"The step depends on its first call (by {percentage(size)} of its size)."
        findings.insert(0, Finding("stale", "wrong", text, max(size, 1.0)))
    tried = calls if isinstance(calls, str) else "tried"
    return replace(
        certificate, findings=tuple(findings), facts={**certificate.facts, "first call": tried}
    )


def _apart(work: Callable[[], Tensor]) -> Tensor:
    """The result of work in a process that branches off here."""
    context: Any = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_sent, args=(send, work), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the other process does not use
        process.start()
    try:
        if not receive.poll(_LONGEST):
            raise RuntimeError(f"no answer after {_LONGEST:g} s")
        try:
            found = receive.recv()
        except EOFError:
            raise RuntimeError("the process ended without an answer") from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    return torch.from_numpy(found)


def _sent(send: Any, work: Callable[[], Tensor]) -> None:
    """Send the result's numbers, or the words of what failed."""
    torch.set_num_threads(1)  # threads do not branch off
    answer: np.ndarray[Any, Any] | str
    try:
        answer = work().double().cpu().numpy()
    except Exception as error:
        answer = str(error) or type(error).__name__
    send.send(answer)
