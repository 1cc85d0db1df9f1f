"""J against D, entry by entry: which are wrong, in which block, where.

    off     |J − D| − 5 error(D)  >  tolerance · max(|D|, root mean square of the entry, or its
                                                   90% quantile where that is smaller)

A state is off where an entry is; a block is wrong in a stratum where a hundredth of the states that
can be judged there are off, or twenty of more than 2,000, and three at least, and stay off where
the state is moved a little: a Jacobian that is wrong is wrong in a neighbourhood, a kink that the
differences did not see is a point.

Its deviations, by stratum: dead rows and columns, wrong and non-finite entries; blocks that float32
spoils.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, nan

import numpy as np
import torch
from torch import Tensor

from gradlab.data.trajectories import stream
from gradlab.errors import InputError, in_short
from gradlab.systems.system import BLOCKS, System
from gradlab.tools.certify.evaluation import Derivative, Points, Reference, evenly, reference
from gradlab.tools.certify.result import BlockErrors, Deviation, Entry, Names
from gradlab.tools.certify.sampling import STRATA, Samples

SAFETY = 5.0  # errors of D, that a difference is allowed
_SHARE, _FEW, _ENOUGH = 0.01, 3, 20  # of the judged states; at least, and at most so many of them
_MOST = 0.9  # of the states: a few that ran off do not make an entry large
_NEGLIGIBLE = 1e-7  # of the largest entry of a row in units of its inputs' spreads
_NOTHING = 1e-10  # spreads of the output by one of the input, which is no effect
_ROUNDED = 300.0  # times ε^{2/3}, spreads of the output by one of the input: rounding over h
_SMALL = 1e-3  # of a block's root mean square, below which an error is relative to that


_Block = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True)
class Units:
    """Spread of outputs y [out] and inputs z [in], by which entries are compared."""

    y: Tensor
    z: Tensor

    def scaled(self, J: Tensor) -> Tensor:
        """∂y_i/∂z_j in spreads of both."""
        return J * self.z / self.y[:, None]


@dataclass(frozen=True)
class Examination:
    """What every test of one certificate uses.

    Attributes:
        tolerance: relative error that counts as wrong.
        epsilon: precision of the step's values.
        size: of every coordinate, in which differences step, [in].
        found: differences at the points of `taken`; label: index into `STRATA` of each.
    """

    system: System
    names: Names
    taken: Samples
    tolerance: float
    epsilon: float
    size: Tensor
    found: Reference
    label: Tensor
    units: Units

    @property
    def points(self) -> Points:
        return self.taken.points

    def differences(self, points: Points, scale: float) -> Reference:
        """At other points, with steps of another size."""
        size = scale * self.size
        return reference(self.system, points, size, self.tolerance, self.epsilon)


@dataclass(frozen=True)
class _Comparison:
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
    exam: Examination, J: Tensor, found: Reference, usual: Tensor | None = None
) -> _Comparison:
    """Every entry judged. One that agrees within an error of D that is nothing in units of spread
    is sound, however small it is itself; so is one that is 0, as D is, within the tolerance.

    Args:
        usual: as `_Comparison` has it, of a larger sample; None: of these points.
    """
    units, tolerance = exam.units, exam.tolerance
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
    agrees = (gap <= error) & (units.scaled(error) <= _ROUNDED * exam.epsilon ** (2 / 3))
    zero = certain & (J == 0) & (D == 0) & ~decided & ~agrees
    unseen = torch.where(zero, 2 * units.scaled(error), 0.0)  # a gap of twice the error is decided
    judged = certain & finite & (decided | agrees | (zero & (unseen <= tolerance)))
    off = judged & (gap - error > tolerance * size)
    return _Comparison(J, D, judged, off, lost, unseen, usual)


def _relative_errors(comparison: _Comparison, units: Units, at: _Block) -> Tensor:
    """‖J − D‖ / ‖D‖ of one block at every point, [N], over its judged entries in units of spread;
    NaN where none is judged, 1 where D = 0 and J is not. Sizes are at least what counts in their
    rows."""
    rows, columns = at
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
_COPIES = 16  # of few points, each moved apart
_POINTS = 16  # that are moved
_NEAR = 1e-3  # of the coordinates' spread, by which they are
_FINE = 1e-4  # of the usual step: a function that oscillates within that one is seen here
_HALF = 0.5  # of the states: a smaller share decides little
_ONSET = STRATA.index("onset")


def numbers(exam: Examination, source: str, of: _Comparison) -> list[BlockErrors]:
    """Rows of the table: block × stratum."""
    table = []
    for block in BLOCKS:
        rows, columns = at = exam.names.block(block)
        errors = _relative_errors(of, exam.units, at)
        off = of.off[:, rows, columns].flatten(1).any(1)
        for k, stratum in enumerate(STRATA):
            here = exam.label == k
            if not bool(here.any()):
                continue
            states, kept = int(here.sum()), here & ~errors.isnan()
            known = errors[kept].numpy()
            quantiles = np.quantile(known, [0.5, 0.95, 1.0]) if len(known) else np.full(3, nan)
            median, p95, largest = quantiles.tolist()
            table.append(BlockErrors(
                source, block, stratum, states, len(known) / states, median, p95, largest,
                float(off[kept].double().mean()),
            ))  # fmt: skip
    return table


def deviations(
    exam: Examination, source: str, derivative: Derivative, of: _Comparison
) -> list[Deviation]:
    """Of every block."""
    return [
        replace(each, block=block, source=source)
        for block in BLOCKS
        for each in _BlockJudge(exam, derivative, of, exam.names.block(block)).deviations()
    ]


class _BlockJudge:
    """One block of a comparison: its names, and its part of J, D and what is off."""

    def __init__(
        self, exam: Examination, derivative: Derivative, of: _Comparison, at: _Block
    ) -> None:
        self.exam, self.derivative, self.of, self.at = exam, derivative, of, at
        rows, columns = at
        self.outputs, self.inputs = exam.names.rows[rows], exam.names.columns[columns]
        self.J, self.D, self.unseen, certain, self.lost, off = (
            x[:, rows, columns] for x in (of.J, of.D, of.unseen, of.judged, of.lost, of.off)
        )
        self.off, self.certain = off.clone(), certain.flatten(1).any(1)

    def deviations(self) -> Iterator[Deviation]:
        # Columns and rows of J that are exactly 0 in a stratum are taken out of `off`.
        for axis in (1, 2):
            for k in range(self.J.shape[3 - axis]):
                yield from self._dead(axis, k)
        yield from self._not_finite()
        yield from self._zero()
        if (share := float(self.certain.double().mean())) < _HALF:
            yield Deviation("not_judged", share, int(self.certain.sum()))
        label = self.exam.label
        strata = []
        for k in range(len(STRATA)):  # a share of the judged states is off, and stays so nearby
            points = ((label == k) & self.off.flatten(1).any(1)).nonzero().flatten()
            if len(points) >= _least(int(self.certain[label == k].sum())) and self._stay(points):
                strata.append(k)
        if len(strata) > 1 and _ONSET in strata:  # the same fault, where it is hardest to see
            strata.remove(_ONSET)
        if not strata:
            yield from self._rare()
            return
        smooth = (k for k in range(len(STRATA)) if k != _ONSET)
        seen = [k for k in smooth if int(self.certain[label == k].sum()) >= _FEW]
        if len(seen) > 1 and set(seen) <= set(strata):
            yield self._wrong(torch.ones_like(label, dtype=torch.bool), "")
            return
        for k in strata:
            yield self._wrong(label == k, STRATA[k])

    def _stay(self, points: Tensor) -> bool:
        """Most of them are off also where they are moved a little; an action on its limit, where a
        policy that is clipped stays, is not moved."""
        exam, taken = self.exam, points[evenly(len(points), _POINTS)]
        here, (rows, columns) = exam.points.at(taken), self.at
        draw = torch.randn(
            here.z.shape, generator=stream(0, "certify neighbours"), dtype=here.z.dtype
        )
        ds = exam.system.state_dim
        draw[:, ds:] *= ~exam.found.kink[taken, ds:]
        moved = Points(here.z + _NEAR * exam.units.z * draw, here.noise)
        J = self.derivative(exam.system, moved)
        coarse, fine = (
            compared(exam, J, exam.differences(moved, scale), self.of.usual)
            for scale in (1.0, _FINE)
        )
        off = coarse.off & ~(fine.judged & ~fine.off)
        return bool(off[:, rows, columns].flatten(1).any(1).double().mean() > 0.5)

    def _dead(self, axis: int, k: int) -> Iterator[Deviation]:
        label = self.exam.label
        zero = (self.J.select(3 - axis, k) == 0).all(1)
        bad = self.off.select(3 - axis, k).any(1)
        strata = [
            s for s in range(len(STRATA))
            if bool(bad[label == s].any()) and bool(zero[(label == s) & bad].all())
        ]  # fmt: skip
        affected = bad & torch.isin(label, torch.tensor(strata, dtype=torch.long))
        points = affected.nonzero().flatten()
        if len(points) < _least(len(self.J)) or not self._stay(points):
            return
        self.off.select(3 - axis, k)[affected] = False
        where = "" if bool(zero.all()) or len(strata) != 1 else STRATA[strata[0]]
        row, column = ("all", self.inputs[k]) if axis == 1 else (self.outputs[k], "all")
        entry = Entry(row, column, 1.0, ratio=0.0)
        yield Deviation("dead", 1.0, len(points), stratum=where, entries=(entry,))

    def _not_finite(self) -> Iterator[Deviation]:
        points = self.lost.flatten(1).any(1).nonzero().flatten()
        if not len(points):
            return
        step = self.exam.taken.step[points]
        first = points[torch.where(step >= 0, step, step.max() + 1).argsort(stable=True)][0]
        i, j = (int(k) for k in self.lost[first].nonzero()[0])
        stratum = STRATA[int(self.exam.label[points].mode().values)]
        at = int(self.exam.taken.step[first])
        yield Deviation(
            "not_finite", n=len(points), stratum=stratum,
            entries=(Entry(self.outputs[i], self.inputs[j]),),
            detail=f"first at step {at}" if at >= 0 else "",
        )  # fmt: skip

    def _zero(self) -> Iterator[Deviation]:
        """Of a block that is 0 within what differences resolve, the entry that they see least
        of."""
        unseen, J, D = (x.flatten(1) for x in (self.unseen, self.J, self.D))
        here = (J == 0).all(1) & (D == 0).all(1) & (unseen > 0).any(1)
        if not bool(here.double().mean() > _HALF):
            return
        least = unseen[here].quantile(0.95, dim=0)
        i, j = divmod(int(least.argmax()), len(self.inputs))
        (rows, columns), units = self.at, self.exam.units
        size = float(least.max() * units.y[rows][i] / units.z[columns][j])
        entry = Entry(self.outputs[i], self.inputs[j])
        yield Deviation("zero", size, int(here.sum()), entries=(entry,))

    def _rare(self) -> Iterator[Deviation]:
        """Of states that are off and too few to fail a block, and stay so wherever they are moved a
        little: no unseen kink does."""
        points = self.off.flatten(1).any(1).nonzero().flatten()
        if len(points) and self._stay(points.repeat(-(-_COPIES // len(points)))):
            every = torch.ones_like(self.exam.label, dtype=torch.bool)
            yield replace(self._wrong(every, ""), code="rare")

    def _wrong(self, here: Tensor, stratum: str) -> Deviation:
        states = here & self.off.flatten(1).any(1)
        J, D, bad = (x[states] for x in (self.J, self.D, self.off))
        found = []
        for i, j in bad.any(0).nonzero().tolist():
            given, true = (x[bad[:, i, j], i, j] for x in (J, D))
            gap, size = (float(x.square().mean().sqrt()) for x in (given - true, true))
            both = size > 0 and bool(given.any())
            ratio = float((given * true).sum() / true.square().sum()) if size > 0 else inf
            flipped = float((given * true < 0).double().mean()) if both else nan
            error = gap / size if size > 0 else 1.0
            found.append(Entry(self.outputs[i], self.inputs[j], error, gap, ratio, flipped))
        found.sort(key=lambda each: -each.absolute)
        at = ""
        if len(J) < _EVERY * int(here.sum()):
            errors = _relative_errors(self.of, self.exam.units, self.at)[states]
            worst = self.exam.points.z[states][int(errors.nan_to_num().argmax())].tolist()
            named = zip(self.exam.names.columns, worst, strict=True)
            at = f"one is {', '.join(f'{name} {x:.3g}' for name, x in named)}"
        error = max(each.error for each in found)
        return Deviation(
            "wrong", error, len(J), stratum=stratum, entries=tuple(found), detail=at
        )  # fmt: skip


def _least(judged: int) -> float:
    """How many of so many states are off where a block is wrong: fewer may be unseen kinks."""
    return max(_FEW, min(_SHARE * judged, _ENOUGH))


_LIMIT = 1e-2  # 95th percentile of the relative error
_STATES = 256


def in_single_precision(
    exam: Examination, derivative: Derivative
) -> tuple[list[Deviation], dict[str, float] | str]:
    """Blocks that float32 spoils, and the 95th percentile of the relative error of each; not at
    kinks and limits, whose side rounding may change."""
    sides = torch.tensor([_ONSET, STRATA.index("limit")])
    away = (~torch.isin(exam.label, sides)).nonzero().flatten()
    away = away if len(away) else torch.arange(len(exam.label))
    few, units = exam.points.at(away[evenly(len(away), _STATES)]), exam.units
    try:
        exact = derivative(exam.system, Points(few.z.float().to(few.z), few.noise))
        short = derivative(exam.system, few.float()).to(exact)
    except (RuntimeError, TypeError, InputError) as error:
        return [], f"not supported: {in_short(error)}"
    errors: dict[str, float] = {}
    for block in BLOCKS:
        i, j = exam.names.block(block)
        scale = units.z[j] / units.y[i, None]
        gap, size = ((x[:, i, j] * scale).flatten(1).norm(dim=1) for x in (short - exact, exact))
        known = torch.isfinite(size)  # a derivative that is not shows nothing of precision
        if not bool(known.any()):
            continue
        gap, size = gap[known], size[known]
        usual = size.square().mean().sqrt()
        relative = (gap / torch.maximum(size, 1e-3 * usual).clamp_min(1e-300)).nan_to_num(nan=1.0)
        errors[block] = float(np.quantile(relative.numpy(), 0.95))
    spoiled = (each for each in errors.items() if each[1] > _LIMIT)
    return [Deviation("single_precision", size, block=block) for block, size in spoiled], errors
