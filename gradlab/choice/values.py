"""Values of a choice, frozen, in the order in which a reader needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gradlab.runs.decision_rules import NeededBatch, UsableHorizons
from gradlab.runs.identity import Identity
from gradlab.statistics.comparison import Number
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.statistics.moments import Array
from gradlab.statistics.selection import RankSet

Cell = tuple[str, int]  # estimator and horizon
Criterion = Literal["gain", "mse", "direction"]
CRITERIA: tuple[Criterion, ...] = ("gain", "mse", "direction")
QUANTITY: Mapping[Criterion, str] = {"gain": "gain", "mse": "mse", "direction": "cosine_batch"}


@dataclass(frozen=True)
class Parting:
    """About `more` further samples would rule out `member` as worse than `contender`."""

    member: Cell
    contender: Cell
    more: int


@dataclass(frozen=True)
class Best:
    """The best estimator and horizon by one criterion, and all that may be best.

    Attributes:
        criterion: "gain" (largest gain of one small step along the mean gradient), "mse"
            (smallest) or "direction" (largest expected cosine of one batch).
        cell: the best one; value: what it has; interval: 95% of the chosen one, wider than that of
            a cell fixed beforehand (`selection.chosen_level`).
        candidates: everything that competed; ranks: their test, in the same order.
        kept: the 95% set, jointly over estimators.
        horizons: the 95% set of each estimator by itself.
        unknown: candidates without a finite value.
        partings: what more samples would tell apart, the nearest first.
    """

    criterion: Criterion
    cell: Cell
    value: float
    interval: Interval
    candidates: tuple[Cell, ...]
    ranks: RankSet
    kept: tuple[Cell, ...]
    horizons: Mapping[str, tuple[int, ...]]
    unknown: tuple[Cell, ...]
    partings: tuple[Parting, ...]

    def number(self, samples: int) -> Number:
        """The value with its interval."""
        return Number(self.value, self.interval.low, self.interval.high, samples)


@dataclass(frozen=True)
class Beyond:
    """A gradient that needs the simulator's states and is shown to gain more than the best one."""

    cell: Cell
    gain: Number


@dataclass(frozen=True)
class Steps:
    """Which steps raise the return and which lower it, with 95% for all of them together.

    Attributes:
        raises, lowers: cells whose gain is shown to be above, or below, 0; all others are
            undecided.
        realised: by the return before and after steps on fresh starts (`gradlab.runs.realised`);
        else
            to first order.
    """

    raises: tuple[Cell, ...]
    lowers: tuple[Cell, ...]
    realised: bool


@dataclass(frozen=True)
class Tried:
    """Without a truth: the cell whose steps gained most return, and all that may gain most.

    Attributes:
        cell: the best one; kept: the 95% set.
        value, interval: its gain by the shortest step, in units of the return.
    """

    cell: Cell
    kept: tuple[Cell, ...]
    value: float
    interval: Interval


@dataclass(frozen=True)
class Usable:
    """The usable horizons of one estimator."""

    estimator: str
    horizons: UsableHorizons


@dataclass(frozen=True)
class Contender:
    """Weights of some cells, scale included, and what starts that did not choose them say.

    Attributes:
        name: who chose them.
        weights: [K], of the cells of their `Mixing`.
        mse, cosine: on the unseen half of the starts, at batch N′ (cosine of one batch).
        against: log of its MSE over that of the best scaled single estimator, paired; None where
            that is not distinguishable from zero.
        gap: its cosine less that of the best scaled single estimator, paired.
        saved: log of the MSE of the weights chosen by "mse" over its own, paired; None where lost.
        gain: of its mean gradient; None where the truth is not the gradient of the return.
        ahead: its cosine of one batch, which is the gain of that batch's step, less that of the
            best single estimator by gain, paired; None likewise.
    """

    name: str
    weights: Array
    mse: float
    mse_interval: Interval
    cosine: float
    cosine_interval: Interval
    against: Interval | None
    gap: Interval
    saved: Interval | None = None
    gain: float | None = None
    gain_interval: Interval | None = None
    ahead: Interval | None = None


@dataclass(frozen=True)
class Mixing:
    """Weights of one set of cells, from all starts, and contenders judged on unseen ones.

    Attributes:
        cells: [K] what is mixed.
        mse, direction: weights by either criterion, with intervals, from all starts.
        contenders: fitted on one half of the starts, judged on the other: "best single",
            "best scaled single", "mse", "direction", and the papers' rules at the times asked for;
            where the truth is the gradient of the return also "best single by gain" and "gain".
        unseen: samples of the half that judges.
        gain: weights of the largest gain of one batch's step; None as for `Contender`.
    """

    cells: tuple[Cell, ...]
    mse: Weights
    direction: Weights
    contenders: tuple[Contender, ...]
    unseen: int
    gain: Weights | None = None

    def contender(self, name: str) -> Contender:
        """The one of that name.

        Raises:
            KeyError: there is none.
        """
        for each in self.contenders:
            if each.name == name:
                return each
        raise KeyError(name)


@dataclass(frozen=True)
class DirectionCosine:
    """Cosine of the mean gradients of two cells, where no truth tells which of them is right."""

    first: Cell
    second: Cell
    cosine: float
    interval: Interval


@dataclass(frozen=True, repr=False)
class Choice:
    """The decision that a measurement supports.

    Attributes:
        estimators: who competed; excluded: who did not, and why.
        batch: N′; samples: N.
        truth: is there an admissible one? Without it there are no weights; what realised gains say
            is in `tried`, and there is `agreement` between estimators.
        gain, mse, direction: the best by each criterion; gain only where the truth is the gradient
            of the return.
        beyond: a better gain that needs the simulator's states; None: none is shown, or they
            compete.
        carried: do few starts carry the truth, so that no number of starts is known to decide more?
        by: the criterion that decides; None: nothing does.
        steps: which cells raise the return and which lower it; None where no gain is known.
        tried: the best by realised gains, where there is no truth.
        usable: the usable horizons of the judged estimator; None where the truth is imprecise.
        pair: data J_0 with the longest finite horizon of the judged estimator, MPG's two.
        several: a grid of horizons of everybody in the choice, with data.
        needed: N′ for a cosine of one batch of .9, at the cell that is best for large batches; None
            where it is not distinguishable from zero, or the truth is imprecise.
        notes: what a reader has to know, in whole sentences.
        identities: who every measured estimator is, by name.
        recommendation: what to use, how sure that is, and what it gains, in a few lines.
    """

    estimators: tuple[str, ...]
    excluded: Mapping[str, str]
    batch: int
    samples: int
    truth: bool
    by: Criterion | None = None
    gain: Best | None = None
    mse: Best | None = None
    direction: Best | None = None
    steps: Steps | None = None
    tried: Tried | None = None
    usable: Usable | None = None
    pair: Mixing | None = None
    several: Mixing | None = None
    needed: tuple[Cell, NeededBatch] | None = None
    agreement: tuple[DirectionCosine, ...] = ()
    beyond: Beyond | None = None
    carried: bool = False
    notes: tuple[str, ...] = ()
    identities: Mapping[str, Identity] = field(default_factory=dict)
    recommendation: str = ""

    def __str__(self) -> str:
        return self.recommendation or repr(self)

    def __repr__(self) -> str:
        best = self.best
        told = "nothing decides" if best is None else f"best by {self.by}: {best.cell}"
        return f"<Choice among {', '.join(self.estimators)}; {told}; print it for the words>"

    @property
    def best(self) -> Best | None:
        """By the criterion that decides."""
        return None if self.by is None else {
            "gain": self.gain, "mse": self.mse, "direction": self.direction
        }[self.by]  # fmt: skip

    @property
    def weights(self) -> Weights | None:
        """Of the pair, by the criterion that decides."""
        if self.pair is None or self.by is None:
            return None
        pair = self.pair
        return {"gain": pair.gain, "mse": pair.mse, "direction": pair.direction}[self.by]
