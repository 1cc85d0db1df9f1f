"""Values of a choice, frozen, in the order in which a reader needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gradlab.runs.identity import Identity
from gradlab.statistics.comparison import Number
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights

Cell = tuple[str, int]  # estimator and horizon
Criterion = Literal["gain", "mse", "direction"]
CRITERIA: tuple[Criterion, ...] = ("gain", "mse", "direction")
QUANTITY: Mapping[str, str] = {"gain": "gain", "mse": "mse", "direction": "cosine_batch"}
Excluded = Literal["truth", "control", "states"]


@dataclass(frozen=True)
class Parting:
    """About `more` further samples would rule out `member`, worse by `gap`, beside `contender`."""

    member: Cell
    contender: Cell
    more: int
    gap: float


@dataclass(frozen=True)
class Best:
    """The best estimator and horizon by one criterion, and all that may be best.

    Attributes:
        criterion: "gain" (largest gain of one small step along the mean gradient), "mse"
            (smallest), "direction" (largest expected cosine of one batch) or, without a truth,
            "return" (largest change of the return by a step).
        cell: the best one; value: what it has; interval: 95% of the chosen one, wider than that of
            a cell fixed beforehand (`selection.chosen_level`).
        kept: the 95% set, jointly over estimators.
        partings: what more samples would tell apart, the nearest first.
    """

    criterion: Literal["gain", "mse", "direction", "return"]
    cell: Cell
    value: float
    interval: Interval
    kept: tuple[Cell, ...]
    partings: tuple[Parting, ...] = ()

    def number(self, samples: int) -> Number:
        """The value with its interval."""
        return Number(self.value, self.interval.low, self.interval.high, samples)

    def row(self) -> dict[str, object]:
        """Plain values, for machines."""
        return {
            "criterion": self.criterion, "estimator": self.cell[0], "horizon": self.cell[1],
            "value": self.value, "ci_low": self.interval.low, "ci_high": self.interval.high,
            "set": list(self.kept),
        }  # fmt: skip


@dataclass(frozen=True)
class Steps:
    """Which steps raise the return and which lower it, with 95% for all of them together.

    Attributes:
        raises, lowers: cells whose gain is shown to be above, or below, 0; all others are
            undecided.
        realised: by the return before and after steps on fresh starts (`gradlab.runs.realised`);
            else to first order.
    """

    raises: tuple[Cell, ...]
    lowers: tuple[Cell, ...]
    realised: bool


@dataclass(frozen=True)
class AgainstRule:
    """The error of weights chosen by "mse" on one half of the starts, as a share of that of the
    papers' best rule, both on the other half at batch N′.

    Attributes:
        rule: its name; ratio: of the two errors; interval: of the ratio's logarithm.
        unseen: starts of the half that judges.
    """

    rule: str
    ratio: float
    interval: Interval
    unseen: int


@dataclass(frozen=True)
class Mixing:
    """Weights of one set of cells, from all starts.

    Attributes:
        cells: [K] what is mixed.
        mse, direction: weights by either criterion, with intervals.
        gain: weights of the largest gain of one batch's step; None where the truth is not the
            gradient of the return.
        against: the measured weights against the rule's; None where one of the
            errors is lost in noise.
    """

    cells: tuple[Cell, ...]
    mse: Weights
    direction: Weights
    gain: Weights | None
    against: AgainstRule | None


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
        estimators: who competed; excluded: who did not, since they are measured against another
            "truth", are a "control" arm of the simulator, or need the simulator's "states".
        batch: N′; samples: N.
        truth: is there an admissible one? Without it there are no weights; what realised gains say
            is in `tried`, and there is `agreement` between estimators.
        gain, mse, direction: the best by each criterion; gain only where the truth is the gradient
            of the return.
        beyond: the gain of a better gradient that needs the simulator's states, by its cell; {}:
            none is shown, or they compete.
        carried: do few starts carry the truth, so that no number of starts is known to decide more?
        by: the criterion that decides; None: nothing does.
        steps: which cells raise the return and which lower it; None where no gain is known.
        tried: the best by realised gains, where there is no truth.
        pair: data J_0 with the longest finite horizon of the judged estimator, MPG's two; None
            where they, or enough groups of starts, are missing.
        identities: who every measured estimator is, by name.
        recommendation: what to use, how sure that is, and what it gains, in a few lines.
    """

    estimators: tuple[str, ...]
    excluded: Mapping[str, Excluded]
    batch: int
    samples: int
    truth: bool
    by: Criterion | None = None
    gain: Best | None = None
    mse: Best | None = None
    direction: Best | None = None
    steps: Steps | None = None
    tried: Best | None = None
    pair: Mixing | None = None
    agreement: tuple[DirectionCosine, ...] = ()
    beyond: Mapping[Cell, Number] = field(default_factory=dict)
    carried: bool = False
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
        return None if self.by is None else getattr(self, self.by)

    @property
    def leading(self) -> Best | None:
        """The same, or by whatever else is known."""
        return self.best or self.mse or self.direction or self.tried

    @property
    def weights(self) -> Weights | None:
        """Of the pair, by the criterion that decides."""
        return None if self.pair is None or self.by is None else getattr(self.pair, self.by)
