"""Values of a choice, frozen, in the order in which a reader needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gradlab.runs.identity import Cell, Identity
from gradlab.statistics.comparison import Number
from gradlab.statistics.mixing import Weights

Criterion = Literal["gain", "mse", "direction"]
CRITERIA: tuple[Criterion, ...] = ("gain", "mse", "direction")
QUANTITY: Mapping[str, str] = {"gain": "gain", "mse": "mse", "direction": "cosine_batch"}
Excluded = Literal["truth", "control", "states"]


@dataclass(frozen=True)
class Best:
    """The best estimator and horizon by one criterion, and all that may be best.

    Attributes:
        criterion: "gain" (largest gain of one small step along the mean gradient), "mse"
            (smallest), "direction" (largest expected cosine of one batch) or, without a truth,
            "return" (largest change of the return by a step).
        cell: the best one; number: what it has, with the 95% interval of the chosen one, wider than
            that of a cell fixed beforehand (`selection.chosen_level`).
        kept: the 95% set, jointly over estimators.
        more: starts to add until one of the set is excluded; 0: the others are alike, None: nobody
            knows.
        mixed: [K] gradients of every measured kind that can be mixed; weights: of the best mixture
            by this criterion, with intervals; None where inner products, or groups, are missing.
        held_out: what a batch of that mixture has beside one of the best single gradient, both
            chosen on one half of the starts and judged on the other: the ratio of their errors, or
            the difference of their cosines; None where it is lost in noise.
    """

    criterion: Literal["gain", "mse", "direction", "return"]
    cell: Cell
    number: Number
    kept: tuple[Cell, ...]
    more: int | None = None
    mixed: tuple[Cell, ...] = ()
    weights: Weights | None = None
    held_out: Number | None = None

    @property
    def value(self) -> float:
        return self.number.value

    def row(self) -> dict[str, object]:
        """Plain values, for machines."""
        value, low, high = self.number.estimate
        found: dict[str, object] = {
            "criterion": self.criterion, "estimator": self.cell[0], "horizon": self.cell[1],
            "value": value, "ci_low": low, "ci_high": high, "set": list(self.kept),
        }  # fmt: skip
        if self.weights is not None:
            ends = self.weights.share, self.weights.low, self.weights.high
            columns = (x.tolist() for x in ends)
            found["weights"] = list(zip(self.mixed, *columns, strict=True))
        if self.held_out is not None:
            found["held_out"] = list(self.held_out.estimate)
        return found


@dataclass(frozen=True, repr=False)
class Choice:
    """The decision that a measurement supports.

    Attributes:
        estimators: who competed; excluded: who did not, since they are measured against another
            "truth", are a "control" arm of the simulator, or need the simulator's "states".
        batch: N′; samples: N.
        truth: is there an admissible one? Without it there are no weights; what realised gains say
            is in `tried`, and `agreement` has cosines of pairs of mean gradients.
        gain, mse, direction: the best by each criterion; gain only where the truth is the gradient
            of the return.
        beyond: the gain of a better gradient that needs the simulator's states, by its cell; {}:
            none is shown, or they compete.
        carried: do few starts carry the truth, so that no number of starts is known to decide more?
        by: the criterion that decides; None: nothing does.
        raises, lowers: cells whose step is shown to raise the return, or to lower it, with 95% for
            all of them together: to first order, without a truth as realised.
        tried: the best by realised gains, where there is no truth.
        against: the error of measured weights as a ratio to that of the papers' best rule for J_0
            and the longest horizon, weights chosen on one half of the starts, both judged on the
            other at batch N′; None where one of them is lost in noise. rule: the name of that one.
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
    raises: tuple[Cell, ...] = ()
    lowers: tuple[Cell, ...] = ()
    tried: Best | None = None
    against: Number | None = None
    rule: str = ""
    agreement: tuple[tuple[Cell, Cell, Number], ...] = ()
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
