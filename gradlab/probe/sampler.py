"""The sampled tier: what is measured now and then, when the budget allows its price.

A burst of successive gradients first tries a short one to learn its price; a measurement on the
task is first priced from single steps of the simulator (`prices`), at once where there is a loan
for it, and made at once where the loan pays it, too. Afterwards each costs what it cost last time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from torch import Tensor, nn

from gradlab.probe.budget import HOUR, SIGNAL, Budget, Due
from gradlab.probe.update_statistics import FIRST, PAIRS, Burst

if TYPE_CHECKING:
    from gradlab.probe.arguments import Past, Question

UNTRIED = 1.5  # seconds, before anything is timed: what prices and measures is loaded then


def trial_price(question: Question, policy: nn.Module) -> float:
    from gradlab.probe.measured import trial_price

    return trial_price(question, policy)


def first_price(question: Question, policy: nn.Module) -> float:
    from gradlab.probe.measured import first_price

    return first_price(question, policy)


def measured(
    question: Question, policy: nn.Module, batch: int, update: int, past: Past
) -> tuple[dict[str, Any], Past]:
    from gradlab.probe.measured import measured

    return measured(question, policy, batch, update, past)


@final
class Bursts:
    """Successive gradients, `PAIRS` pairs at a time; `beside` a task that waits for its share."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        names: Sequence[str],
        budget: Budget,
        beside: bool = False,
    ) -> None:
        self.parameters, self.names, self.budget = list(parameters), tuple(names), budget
        self._part = SIGNAL if beside else 1.0
        self._rows = 0
        self._burst: Burst | None = None
        self._price: float | None = None  # seconds per pair

    @property
    def open(self) -> bool:
        """Is a burst under way? It needs every update."""
        return self._burst is not None

    def see(self, scale: Tensor | None, inputs: Sequence[Tensor]) -> None:
        """The gradient as the backward pass left it, and the policy's inputs."""
        if self._burst is not None:
            with self.budget.paying(burst=True) as price:
                self._burst.see(scale, inputs)
            self._burst.seconds += price[0]

    def commit(self) -> dict[str, Any] | None:
        """The update is over; a row, where a burst is."""
        if self._burst is None:
            if self._price is None:
                if self.budget.allows(0.0):
                    self._burst = self._of(FIRST)
            elif self.budget.allows_burst(self._price * PAIRS, self._part):
                self._burst = self._of(PAIRS)
            return None
        with self.budget.paying(burst=True) as price:
            self._burst.commit()
            row = self._burst.row() if self._burst.done else None
        self._burst.seconds += price[0]
        return None if row is None else self._ended(row | {"seconds": self._burst.seconds})

    def _ended(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The burst's price; the short one has served when that is known."""
        pairs, self._burst = row["pairs"], None
        self._price = row["seconds"] / pairs
        if pairs != PAIRS:
            return None
        self._rows += 1
        return row

    def next(self) -> Due | None:
        """When the first one is due; later ones come as they can."""
        if self._rows or self.open:
            return None
        price = 0.0 if self._price is None else self._price * PAIRS
        return Due("signal", "burst", True, price, self.budget.until(price), True)

    def _of(self, pairs: int) -> Burst | None:
        """A burst of what is trained now."""
        named = zip(self.names, self.parameters, strict=True)
        live = [(name, p) for name, p in named if p.requires_grad]
        return Burst([p for _, p in live], [name for name, _ in live], pairs) if live else None


@final
class _FirstPrice:
    """The price of a first measurement, found as soon as the budget and a loan allow finding it."""

    def __init__(self, budget: Budget, loan: float) -> None:
        self.budget, self.loan = budget, loan
        self._trial: float | None = None  # of finding it

    def found(self, question: Question, policy: nn.Module) -> float | None:
        if self._trial is None:
            if not self.budget.allows(UNTRIED, self.loan):
                return None
            with self.budget.paying():
                self._trial = trial_price(question, policy)
        if not self.budget.allows(self._trial, self.loan):
            return None
        with self.budget.paying():
            return first_price(question, policy)

    @property
    def tried(self) -> bool:
        return self._trial is not None

    @property
    def least(self) -> float:
        """Seconds that finding it and a measurement take at least."""
        return UNTRIED if self._trial is None else 2 * self._trial


@final
class Measurements:
    """Bias and variance on the task: what one costs, and what the earlier ones have seen.

    Args:
        loan: seconds beyond the share for the first one.
    """

    def __init__(
        self, question: Question, policy: nn.Module, budget: Budget, loan: float = 0.0
    ) -> None:
        self.question, self.policy, self.budget, self.loan = question, policy, budget, loan
        self._first = _FirstPrice(budget, loan)
        self._prices: dict[bool, float] = {}  # seconds, by whether the truth is checked
        self._past: Past | None = None
        self._ended = float("-inf")  # when the last one ended

    def due(self) -> bool:
        """May one be made now? Finds the price first, when the budget allows that."""
        if not self._prices:
            price = self._first.found(self.question, self.policy)
            if price is None:
                return False
            self._prices[True] = price
        price = self._price()
        loan = self.loan if self._past is None else 0.0
        return self.budget.rested(price, self._ended) and self.budget.allows(price, loan)

    @property
    def tried(self) -> bool:
        """Is it known what the first one costs at least?"""
        return bool(self._prices) or self._first.tried

    def next(self) -> Due:
        """When one is due, the first or another."""
        price = self._price() if self._prices else self._first.least
        wait = max(self.budget.until(price), self.budget.rest(price, self._ended))
        sure, hour = bool(self._prices), self.budget.needed(price, HOUR)
        return Due("task", "measurement", self._past is None, price, wait, sure, hour)

    def row(self, batch: int, update: int) -> dict[str, Any]:
        """Makes one."""
        checked = self._checked()
        past = self.question.nothing if self._past is None else self._past
        with self.budget.paying() as price:
            row, self._past = measured(self.question, self.policy, batch, update, past)
        self._ended, self._prices[checked] = self.budget.clock(), price[0]
        return row | {"seconds": price[0]}

    def _checked(self) -> bool:
        """Will the next truth be compared with finite differences? A first one always is."""
        return self._past is None or self._past.checks

    def _price(self) -> float:
        # The first one is checked, and no other costs more.
        return self._prices.get(self._checked(), max(self._prices.values()))
