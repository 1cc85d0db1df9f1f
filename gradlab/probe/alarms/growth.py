"""The alarm of a gradient that explodes: its size by stretches of 20 updates, measured or skipped.

    g_i > 4 max(g_1 … g_{i−3})   in four stretches in a row for a critic, in eight for a policy

The size of an update is one tensor's norm, a few microseconds. A single leap, as of the first
reward, holds for three stretches only; a gradient that comes back from next to nothing, as a
saturated actor's does, is not beyond all earlier ones. An actor that saturates in its first updates
comes back through several orders of magnitude within five stretches, hence eight
(`reports/robustness/third-party`). The sizes are exact, and there is no rate.
"""

from __future__ import annotations

from math import exp, isfinite, log
from typing import final

from gradlab.probe.alarms.evidence import Alarm

STRETCH = 20  # updates of the policy
LAG, FOURFOLD, IN_A_ROW, OF_A_POLICY = 3, 4.0, 4, 8
KEPT = 12  # stretches; of older ones the largest is enough


@final
class Growth:
    """Sizes of one gradient.

    Args:
        kind: of the alarm; whose: gradient it is.
        young: first stretches, left out: a critic begins with errors that it soon loses.
        in_a_row: stretches that must have grown.
    """

    def __init__(self, kind: str, whose: str, young: int = 0, in_a_row: int = IN_A_ROW) -> None:
        self.kind, self.whose, self._young, self._in_a_row = kind, whose, young, in_a_row
        self._logs: list[float] = []
        self._steps = 0
        self._sizes: list[float] = []  # geometric means of the last stretches
        self._largest = 0.0  # of all that are older

    def add(self, size: float, steps: int = 1) -> None:
        """The size in one of so many more steps."""
        self._steps += steps
        if size > 0 and isfinite(size):
            self._logs.append(log(size))

    def stretch(self) -> Alarm | None:
        """The alarm at the end of a stretch, if any."""
        steps, self._steps = self._steps, 0
        if self._young > 0 or not self._logs:
            self._young, self._logs = self._young - 1, []
            return None
        self._sizes.append(exp(sum(self._logs) / len(self._logs)))
        self._logs = []
        if len(self._sizes) > KEPT:
            self._largest = max(self._largest, self._sizes.pop(0))
        last = range(len(self._sizes) - self._in_a_row, len(self._sizes))
        if last[0] < LAG or not all(self._grown(i) for i in last):
            return None
        return self._alarm(steps)

    def _grown(self, i: int) -> bool:
        before = max([self._largest, *self._sizes[: i - LAG + 1]])
        return self._sizes[i] > FOURFOLD * before

    def _alarm(self, steps: int) -> Alarm:
        grown = self._sizes[-1] / self._sizes[-IN_A_ROW]
        made = steps * (IN_A_ROW - 1)
        return Alarm(
            self.kind,
            f"the {self.whose} gradient grows without an end, {grown:.2g} times over the last "
            f"{made} steps: its targets explode; look at the scale of the rewards and at the "
            f"discount",
        )
