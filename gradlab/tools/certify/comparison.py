"""J against D, entry by entry: which are wrong, in which block, where.

    off     |J − D| − 5 error(D)  >  tolerance · max(|D|, root mean square of the entry, or its
                                                   90% quantile where that is smaller)

A state is off where an entry is; a block is wrong in a stratum where a hundredth of the states that
can be judged there are off, or twenty of more than 2,000, and three at least, and stay off where
the state is moved a little: a Jacobian that is wrong is wrong in a neighbourhood, a kink that the
differences did not see is a point.

Its findings, by stratum: dead rows and columns, wrong and non-finite entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gradlab.tools.certify.evaluation import Reference
from gradlab.tools.certify.result import BLOCKS, SYMBOLS, Finding, Names, WrongEntry, percentage
from gradlab.tools.certify.sampling import STRATA
from gradlab.wording import below, listed

SAFETY = 5.0  # errors of D, that a difference is allowed
_SHARE, _FEW, _ENOUGH = 0.01, 3, 20  # of the judged states; at least, and at most so many of them
_MOST = 0.9  # of the states: a few that ran off do not make an entry large
_NEGLIGIBLE = 1e-7  # of the largest entry of a row in units of its inputs' spreads
_NOTHING = 1e-10  # spreads of the output by one of the input, which is no effect
_ROUNDED = 300.0  # times ε^{2/3}, spreads of the output by one of the input: rounding over h
_SMALL = 1e-3  # of a block's root mean square, below which an error is relative to that


@dataclass(frozen=True)
class Units:
    """Spread of outputs y [out] and inputs z [in], by which entries are compared."""

    y: Tensor
    z: Tensor

    def scaled(self, J: Tensor) -> Tensor:
        """∂y_i/∂z_j in spreads of both."""
        return J * self.z / self.y[:, None]


@dataclass(frozen=True)
class _DerivativeComparison:
    """Of one source of derivatives with the differences, at every point.

    Attributes:
        J, D: [N, out, in].
        judged: bool [N, out, in], entries that D decides.
        off: bool [N, out, in], judged entries that are wrong.
        lost: bool [N, out, in], entries of J that are not finite where f and D are.
        unseen: spreads of the output by one of the input that D may miss where J and D are both 0,
            [N, out, in], and this is more than rounding; 0 elsewhere.
        usual: size of every entry over the states, [out, in], to which errors are relative where
            the entry is smaller.
    """

    J: Tensor
    D: Tensor
    judged: Tensor
    off: Tensor
    lost: Tensor
    unseen: Tensor
    usual: Tensor


def compared(
    J: Tensor,
    found: Reference,
    units: Units,
    tolerance: float,
    epsilon: float,
    usual: Tensor | None = None,
) -> _DerivativeComparison:
    """Every entry judged. One that agrees within an error of D that is nothing in units of spread
    is sound, however small it is itself; so is one that is 0, as D is, within the tolerance.

    Args:
        tolerance: relative error that counts as wrong.
        epsilon: precision of the step's values.
        usual: as `_DerivativeComparison` has it, of a larger sample; None: of these points.
    """
    D, error = found.D, SAFETY * found.error
    finite = torch.isfinite(J)
    certain = torch.isfinite(D) & torch.isfinite(error) & ~found.kink[:, None, :]
    lost = ~finite & torch.isfinite(found.y)[:, :, None]
    if usual is None:  # root mean square over the states, at least what counts in the entry's row
        known = torch.where(certain, D.abs(), torch.nan)
        rms = known.square().nanmean(0).sqrt().nan_to_num()
        most = known.nanquantile(_MOST, dim=0).nan_to_num()
        rms = units.scaled(torch.where(most > 0, torch.minimum(rms, most), rms))
        least = (_NEGLIGIBLE * rms.amax(1, keepdim=True)).clamp_min(_NOTHING)
        usual = torch.maximum(rms, least) * units.y[:, None] / units.z
    size = torch.maximum(D.abs().nan_to_num(), usual)
    gap = (J - D).abs()
    decided = error <= torch.maximum(tolerance * size, 0.5 * gap)
    agrees = (gap <= error) & (units.scaled(error) <= _ROUNDED * epsilon ** (2 / 3))
    zero = certain & (J == 0) & (D == 0) & ~decided & ~agrees
    unseen = torch.where(zero, 2 * units.scaled(error), 0.0)  # a gap of twice the error is decided
    judged = certain & finite & (decided | agrees | (zero & (unseen <= tolerance)))
    off = judged & (gap - error > tolerance * size)
    return _DerivativeComparison(J, D, judged, off, lost, unseen, usual)


def _relative_errors(
    comparison: _DerivativeComparison, units: Units, rows: slice, columns: slice
) -> Tensor:
    """‖J − D‖ / ‖D‖ of one block at every point, [N], over its judged entries in units of spread;
    NaN where none is judged, 1 where D = 0 and J is not. Sizes are at least what counts in their
    rows."""
    judged = comparison.judged[:, rows, columns]
    scale = units.z[columns] / units.y[rows, None]
    gap, size, own = (
        torch.where(judged, x[:, rows, columns] * scale, 0.0).flatten(1).norm(dim=1)
        for x in (comparison.J - comparison.D, comparison.D, comparison.J)
    )
    usual = size.square().mean().sqrt()
    row = torch.where(comparison.judged, comparison.D, 0.0)[:, rows] * units.z / units.y[rows, None]
    whole = row.flatten(1).norm(dim=1).square().mean().sqrt()
    size = torch.maximum(size, torch.maximum(_SMALL * usual, _NEGLIGIBLE * whole))
    ratio = gap / torch.where(size > 0, size, torch.where(own > 0, own, 1.0))
    return torch.where(judged.flatten(1).any(1), ratio, torch.nan)


_EVERY = 0.9  # of the states of a stratum; where fewer are off, one of them is named
_FLIPPED = 0.05  # of an entry's states: where D is near 0 a sign says nothing
_OF_IT = 0.1  # of what a factor differs from 1 by: what varies more is none
_SAME = 0.01  # of what is wrong, within which all of it has one pattern
_NAMED = 8  # entries of a sentence; all of them are in the JSON
_DEVIATIONS = {
    "J": ("which is zero", "which are zero"), "D": ("which should be zero",) * 2,
}  # fmt: skip
_CAUSES = (
    "A derivative that is exactly zero is usually a term left out by hand, or cut off by a "
    "detach, a copy through numpy, or an integer or constant in its place."
)
_WHERE = {
    None: "", "free": " where the step is smooth", "contact": " in contact",
    "onset": " at a kink", "limit": " on a limit", "saturation": " in saturation",
}  # fmt: skip


def wrong_words(
    block: str,
    stratum: str | None,
    entries: Sequence[WrongEntry],
    whole: float,
    flipped: float | None,
    states: tuple[int, int],
    pattern: str = "",
) -> str:
    """Entries that differ from D, the largest absolute error first, beside the error of the `whole`
    block; `flipped`: the share of states in which the worst one has the other sign, None: it has
    none; `pattern`: what they are instead."""
    sign = "" if flipped is None else ", sign kept"
    if flipped is not None and flipped > _FLIPPED:
        some = f"the sign wrong in {percentage(flipped)} of its states"
        sign = ", with the wrong sign" if flipped > 1 - _FLIPPED else f", {some}"
    worst = max(each.error for each in entries)
    count = "One entry is off by"
    count = count if len(entries) == 1 else f"{len(entries)} entries are off by up to"
    cause = pattern or (f" {_CAUSES}" if any(each.zero == "J" for each in entries) else "")
    # Entries that share an input and a deviation together: s3′ and s0′ by s2, which are zero.
    shown: dict[tuple[str, str], list[str]] = {}
    for each in entries[:_NAMED]:
        deviation = each.zero or f"by {percentage(each.error)}"
        shown.setdefault((each.column, deviation), []).append(each.row)
    parts = [
        f"{listed(rows, _NAMED)} by {column}, {_DEVIATIONS.get(kind, (kind, kind))[len(rows) > 1]}"
        for (column, kind), rows in shown.items()
    ]
    rest = len(entries) - _NAMED
    more = f"; and {rest} more, which the certificate's JSON names" if rest > 0 else ""
    order = "Largest absolute error first: " if len(entries) > 1 else "It is "
    return (
        f"{SYMBOLS[block]} is wrong{_WHERE[stratum]}, in {states[0]} of {states[1]} states. "
        f"{count} {percentage(worst)} (rms){sign}, the whole block by {percentage(whole)} "
        f"(median). "
        f"{order}{'; '.join(parts)}{more}.{cause}"
    )


_COPIES = 16  # of few points, each moved apart
_JUDGED = 0.5  # of the states: a smaller share decides little
_Zero = Literal["J", "D", ""]
_Persistent = Callable[[Tensor, slice, slice], Tensor]


@dataclass(frozen=True)
class JudgedComparison:
    """What one source's comparison is judged by.

    Attributes:
        label: index into `STRATA` of every point.
        z: states and actions [N, ds + da]; step: of the rollout that a point is from, −1 where it
            is from none.
        persistent: (points, rows, columns) → bool, points that stay off where they are moved.
    """

    source: str
    comparison: _DerivativeComparison
    label: Tensor
    z: Tensor
    step: Tensor
    names: Names
    units: Units
    persistent: _Persistent


def numbers(judged: JudgedComparison) -> list[Mapping[str, Any]]:
    """Rows of the table: block × stratum."""
    table: list[Mapping[str, Any]] = []
    for block in BLOCKS:
        rows, columns = judged.names.block(block)
        errors = _relative_errors(judged.comparison, judged.units, rows, columns)
        off = judged.comparison.off[:, rows, columns].flatten(1).any(1)
        for k, stratum in enumerate(STRATA):
            here = judged.label == k
            if not bool(here.any()):
                continue
            states, kept = int(here.sum()), here & ~errors.isnan()
            known = errors[kept].numpy()
            quantiles = np.quantile(known, [0.5, 0.95, 1.0]) if len(known) else np.full(3, np.nan)
            flagged = float(off[kept].double().mean()) if len(known) else np.nan
            median, p95, largest = (float(value) for value in quantiles)
            table.append({
                "source": judged.source, "block": block, "stratum": stratum, "states": states,
                "judged": len(known) / states, "median": median, "p95": p95, "largest": largest,
                "flagged": flagged,
            })  # fmt: skip
    return table


def findings(judged: JudgedComparison) -> list[Finding]:
    """Of every block."""
    return [finding for block in BLOCKS for finding in _of_block(judged, block)]


def _of_block(judged: JudgedComparison, block: str) -> Iterator[Finding]:
    rows, columns = judged.names.block(block)
    off = judged.comparison.off[:, rows, columns].clone()
    # Columns and rows of J that are exactly 0 in a stratum are taken out of `off`.
    for axis, names in ((1, judged.names.columns[columns]), (2, judged.names.rows[rows])):
        for k, name in enumerate(names):
            yield from _dead_line(judged, block, off, (axis, k, name))
    yield from _lost(judged, block)
    every = torch.ones_like(judged.label, dtype=torch.bool)
    share = _judged_states(judged, block, every) / len(judged.label)
    if share < _JUDGED:
        text = (
            f"{SYMBOLS[block]} could be judged in {percentage(share)} of the states only: "
            f"elsewhere the step is too rough or too noisy for differences. {_zero(judged, block)}"
        ).rstrip()
        yield Finding("not judged", "rough", text, 1 - share, block, source=judged.source)
    elif text := _zero(judged, block):
        yield Finding("zero", "note", text, 0.0, block, source=judged.source)
    strata = [k for k in range(len(STRATA)) if _wrong(judged, block, off, judged.label == k)]
    onset = STRATA.index("onset")
    if len(strata) > 1 and onset in strata:  # the same fault, where it is hardest to see
        strata.remove(onset)
    if not strata:
        yield from _rare(judged, block, off)
        return
    smooth = [k for k, stratum in enumerate(STRATA) if stratum != "onset"]
    seen = [k for k in smooth if _judged_states(judged, block, judged.label == k) >= _FEW]
    if len(seen) > 1 and set(seen) <= set(strata):
        yield _finding(judged, block, off, every, None)
        return
    for k in strata:
        yield _finding(judged, block, off, judged.label == k, STRATA[k])


def _zero(judged: JudgedComparison, block: str) -> str:
    """Of a block that is 0 within what differences resolve, the entry that they see least of."""
    rows, columns = judged.names.block(block)
    unseen, J, D = (
        x[:, rows, columns].flatten(1)
        for x in (judged.comparison.unseen, judged.comparison.J, judged.comparison.D)
    )
    here = (J == 0).all(1) & (D == 0).all(1) & (unseen > 0).any(1)
    if not bool(here.double().mean() > _JUDGED):
        return ""
    least = unseen[here].quantile(0.95, dim=0)
    outputs, inputs = judged.names.rows[rows], judged.names.columns[columns]
    i, j = divmod(int(least.argmax()), len(inputs))
    size = least.max() * judged.units.y[rows][i] / judged.units.z[columns][j]
    return (
        f"{SYMBOLS[block]} is zero within the resolution of the differences: {outputs[i]} by "
        f"{inputs[j]} above {below(float(size))} would be seen."
    )


def _judged_states(judged: JudgedComparison, block: str, here: Tensor) -> int:
    rows, columns = judged.names.block(block)
    return int(judged.comparison.judged[here][:, rows, columns].flatten(1).any(1).sum())


def _wrong(judged: JudgedComparison, block: str, off: Tensor, here: Tensor) -> bool:
    """A share of the judged states here is off, and stays so nearby."""
    count = _judged_states(judged, block, here)
    states = here & off.flatten(1).any(1)
    if int(states.sum()) < _least(count):
        return False
    points = states.nonzero().flatten()
    stays = judged.persistent(points, *judged.names.block(block))
    return bool(stays.double().mean() > 0.5)


def _least(judged: int) -> float:
    """How many of so many states are off where a block is wrong: fewer may be unseen kinks."""
    return max(_FEW, min(_SHARE * judged, _ENOUGH))


def _rare(judged: JudgedComparison, block: str, off: Tensor) -> Iterator[Finding]:
    """Of states that are off and too few to fail a block, and stay so wherever they are moved a
    little: no unseen kink does."""
    points = off.flatten(1).any(1).nonzero().flatten()
    if not len(points):
        return
    moved = points.repeat(-(-_COPIES // len(points)))
    if float(judged.persistent(moved, *judged.names.block(block)).double().mean()) <= 0.5:
        return
    found = _finding(judged, block, off, torch.ones_like(judged.label, dtype=torch.bool), None)
    text = (
        f"{found.sentence.replace(' is wrong', ' may be wrong', 1)} So few do not fail it: certify "
        "it at `states` near that one."
    )
    yield replace(found, kind="rare", severity="rough", sentence=text)


def _finding(
    judged: JudgedComparison, block: str, off: Tensor, here: Tensor, stratum: str | None
) -> Finding:
    rows, columns = judged.names.block(block)
    states = here & off.flatten(1).any(1)
    J, D, bad = (
        x[states]
        for x in (judged.comparison.J[:, rows, columns], judged.comparison.D[:, rows, columns], off)
    )
    outputs, inputs = judged.names.rows[rows], judged.names.columns[columns]
    found = []
    for i, j in bad.any(0).nonzero().tolist():
        given, true = (x[bad[:, i, j], i, j] for x in (J, D))
        gap, size = (float(x.square().mean().sqrt()) for x in (given - true, true))
        zero: _Zero = "J" if not bool(given.any()) else "D" if size == 0 else ""
        error = gap / size if size > 0 else 1.0
        found.append(WrongEntry(outputs[i], inputs[j], error, gap, zero))
    entries = tuple(sorted(found, key=lambda each: -each.absolute))
    worst = max(entries, key=lambda each: each.error)
    flipped = None
    if not worst.zero:  # of the entry of largest relative error
        i, j = outputs.index(worst.row), inputs.index(worst.column)
        here_bad = bad[:, i, j]
        flipped = float((J[here_bad, i, j] * D[here_bad, i, j] < 0).double().mean())
    kept = None if flipped is None else flipped < 0.5
    whole = _relative_errors(judged.comparison, judged.units, rows, columns)[states]
    counted = len(J), int(here.sum())
    text = wrong_words(
        block,
        stratum,
        entries,
        float(whole.nanquantile(0.5)),
        flipped,
        counted,
        _pattern(J, D, bad),
    )
    if counted[0] < _EVERY * counted[1]:
        at = judged.z[states][int(whole.nan_to_num().argmax())].tolist()
        named = (f"{name} {x:.3g}" for name, x in zip(judged.names.columns, at, strict=True))
        text += f" One of these states: {', '.join(named)}."
    row, column = (entries[0].row, entries[0].column) if len(entries) == 1 else (None, None)
    return Finding(
        "wrong", "wrong", text, worst.error, block, stratum, row, column, kept, judged.source,
        entries,
    )  # fmt: skip


def _pattern(J: Tensor, D: Tensor, bad: Tensor) -> str:
    """What all the wrong entries are instead: those of the transpose, or a multiple."""
    wrong, given, true = (J - D)[bad], J[bad], D[bad]
    square = J.shape[1] == J.shape[2] and bool(given.any())
    if square and (J - D.mT)[bad].norm() < _SAME * wrong.norm():
        return " The wrong entries are those of the transposed block."
    ratio = given / true
    factor = float(ratio.median())
    spread = float((ratio - factor).abs().nan_to_num(nan=torch.inf).max())
    if (
        isfinite(factor)
        and factor != 0
        and spread <= min(_SAME * abs(factor), _OF_IT * abs(1 - factor))
    ):
        return f" Every wrong entry is {factor:.3g} times its difference."
    return ""


def _dead_line(
    judged: JudgedComparison, block: str, off: Tensor, line: tuple[int, int, str]
) -> Iterator[Finding]:
    rows, columns = judged.names.block(block)
    axis, k, name = line
    J = judged.comparison.J[:, rows, columns]
    zero = (J.select(3 - axis, k) == 0).all(1)
    bad = off.select(3 - axis, k).any(1)
    strata = [
        s for s in range(len(STRATA))
        if bool(bad[judged.label == s].any()) and bool(zero[(judged.label == s) & bad].all())
    ]  # fmt: skip
    affected = bad & torch.isin(judged.label, torch.tensor(strata, dtype=torch.long))
    points = affected.nonzero().flatten()
    if len(points) < _least(len(J)):
        return
    if float(judged.persistent(points, rows, columns).double().mean()) <= 0.5:
        return
    off.select(3 - axis, k)[affected] = False
    everywhere = bool(zero.all())
    where = None if everywhere or len(strata) != 1 else STRATA[strata[0]]
    kind = "column" if axis == 1 else "row"
    text = (
        f"{SYMBOLS[block]} {kind} {k} ({name}) is zero{_WHERE[where]} but should not be, in "
        f"{len(points)} of {len(J)} states. {_CAUSES}"
    )
    row, column = (name, None) if kind == "row" else (None, name)
    yield Finding("dead", "wrong", text, 1.0, block, where, row, column, source=judged.source)


def _lost(judged: JudgedComparison, block: str) -> Iterator[Finding]:
    """Entries that are not finite."""
    rows, columns = judged.names.block(block)
    lost = judged.comparison.lost[:, rows, columns]
    points = lost.flatten(1).any(1).nonzero().flatten()
    if not len(points):
        return
    points = points[judged.step[points].argsort(stable=True)]
    points = torch.cat([points[judged.step[points] >= 0], points[judged.step[points] < 0]])
    i, j = (int(k) for k in lost[points[0]].nonzero()[0])
    row, column = judged.names.rows[rows][i], judged.names.columns[columns][j]
    stratum = STRATA[int(judged.label[points].mode().values)]
    step = int(judged.step[points[0]])
    first = f"first at step {step}, {row} by {column}" if step >= 0 else f"first {row} by {column}"
    where = "" if stratum == "free" else _WHERE[stratum]  # a kink is not seen where it is NaN
    text = (
        f"{SYMBOLS[block]} is not finite{where}, though the step's values are "
        f"({len(points)} of {len(lost)} states; {first})."
    )
    yield Finding(
        "not finite", "wrong", text, 1.0, block, stratum, row, column, source=judged.source
    )
