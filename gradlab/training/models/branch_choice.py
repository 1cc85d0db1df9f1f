"""Schedule of the short rollouts from replayed states that fill a second replay (MBPO).

k(i) = ⌊first + (last − first) · (i − begin)/(end − begin)⌋, between first and last
"""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.errors import InputError


@dataclass(frozen=True)
class Branching:
    """A schedule of rollouts.

    Attributes:
        every: iterations between two fillings.
        rollouts: of every seed in each one.
        first, last: their length in model steps, at iteration `begin` and from `end` on.
        kept: fillings of the present length that batches are drawn from.
    """

    every: int = 250
    rollouts: int = 5000
    first: int = 1
    last: int = 1
    begin: int = 0
    end: int = 1
    kept: int = 4

    def __post_init__(self) -> None:
        for name in ("every", "rollouts", "first", "last", "kept"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"rollouts have {name} {value!r}, expected an integer from 1")
        if not 0 <= self.begin < self.end:
            raise InputError(
                f"rollouts have begin {self.begin} and end {self.end}: expected 0 ≤ begin < end"
            )

    def length(self, iteration: int) -> int:
        """k at an iteration."""
        share = (iteration - self.begin) / (self.end - self.begin)
        return int(self.first + (self.last - self.first) * min(max(share, 0.0), 1.0))

    def recent(self, iteration: int) -> int:
        """Rows of one seed that batches are drawn from."""
        return self.kept * self.rollouts * self.length(iteration - iteration % self.every)

    @property
    def longest(self) -> int:
        return max(self.first, self.last)

    @property
    def name(self) -> str:
        steps = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"model rollouts of length {steps}"
