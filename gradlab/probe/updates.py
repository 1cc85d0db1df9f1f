"""The events of an update, in their order, and what the probe does at each.

    enter → look → (clipping, by the user) → before_step → over

`look` finds the gradient as the backward pass left it; where the user marks nothing, the optimiser
is about to step and the gradient may have been clipped (column `marked`). Without an optimiser an
update is over when the next one is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, final

from torch import Tensor, nn

from gradlab.probe.alarms import Alarm
from gradlab.probe.budget import Budget
from gradlab.probe.desk import Desk
from gradlab.probe.leaks import ModelGradients
from gradlab.probe.origin import Finder, replayed
from gradlab.probe.quiet import warn
from gradlab.probe.sampler import Bursts, Measurements
from gradlab.probe.vitals import Vitals
from gradlab.probe.watch import Watch

ROW = 100  # updates between two rows
BATCH = 256  # N′ where the loop's own is not seen
STRIDE = 4  # updates to one whose step and actions are looked at, which cost most
WATCHED = 3  # marked passes whose operations are watched after a gradient was lost
WATCHES = 30  # such passes in a run: each takes several times as long

ORIGIN = "origin of a non-finite gradient"
OPERATION = "first non-finite operation"


@final
class Updates:
    """Counts updates, looks at them, and files rows. Its errors are the caller's to catch."""

    def __init__(
        self,
        policy: nn.Module,
        parameters: Sequence[nn.Parameter],
        desk: Desk,
        budget: Budget,
        watch: Watch,
        models: ModelGradients,
        measurements: Measurements | None,
        stepped: bool,
    ) -> None:
        self.policy, self.desk, self.budget = policy, desk, budget
        self.watch, self.models, self.measurements = watch, models, measurements
        self.stepped = stepped
        self.count, self.step = 0, 0
        self._vitals, self._bursts = Vitals(parameters), Bursts(parameters, desk.names, budget)
        self._open: Tensor | None = None  # |∂L/∂θ_l| of the update under way
        self._seen = False  # whether its gradient is there
        self._due = budget.look()  # whether it is looked at or passed over
        self._marked = False
        self._batch = BATCH
        self._watching = self._watches = 0

    def enter(self) -> Finder | None:
        """A marked pass begins; its operations are watched where a gradient was lost before."""
        self.models.before()
        if not self._watching or self._watches >= WATCHES:
            return None
        self._watching, self._watches = self._watching - 1, self._watches + 1
        return Finder()

    def look(
        self, step: int, scale: Tensor | None, marked: bool, finder: Finder | None = None
    ) -> None:
        """The gradient is there, `scale` times too large."""
        self.budget.begin()
        if not self.stepped and self._seen and step != self.step:
            self.over()
        begun = self.budget.clock()
        self.step, self._marked, self._seen = step, marked, True
        if self._due:
            self._open = self._vitals.gradient(scale)
            if scale is None:  # a scaler that searches its scale overflows now and then
                self._check_finite(self._open)
        if marked:
            self.models.after()
        if finder is not None and finder.found:
            self._tell(OPERATION, f"{finder.found}, in the pass that was marked")
        self.budget.pay(begun)
        self._bursts.see(scale)

    def before_step(self, optimizer: Any) -> None:
        """The optimiser is about to move θ."""
        if not self._seen:
            # A fused optimiser under a scaler divides by itself, and says by what.
            self.look(self.count, getattr(optimizer, "grad_scale", None), marked=False)
        begun = self.budget.clock()
        if self._open is not None and self.count % STRIDE == 0:
            self._vitals.before_step()
        self.budget.pay(begun)

    def over(self) -> None:
        """The update is over: count it, and ask for more if there is time."""
        self._count()
        self._sampled("successive", self._bursts.commit())
        if self.measurements is not None:
            self._sampled("measured", self._measurement(self.measurements))

    def _count(self) -> None:
        begun = self.budget.clock()
        if self._open is not None:
            self._vitals.after_step()
            self._vitals.add(self._open)
        self._open, self._seen = None, False
        self._batch = self.watch.batch or self._batch
        self.watch.release()
        self.count += 1
        if self.count % ROW == 0:
            self.file_vitals()
        self.budget.pay(begun)
        self._due = self.watch.on = self.budget.look()
        self.watch.counting = self.count % STRIDE == 0

    def file_vitals(self) -> None:
        """The window's row."""
        if self.watch.error is not None:
            raise self.watch.error
        row = self._vitals.row() | self.watch.row() | self.models.row()
        if not row["looked"]:
            return
        spent = {
            "marked": int(self._marked),
            "own_seconds": self.budget.own,
            "elapsed": self.budget.elapsed,
            "spent": self.budget.spent,
        }
        self._file("vitals", row | spent)

    def finish(self) -> None:
        """No more updates come."""
        if self._seen:
            self._count()
        self.file_vitals()

    def _measurement(self, measurements: Measurements) -> dict[str, Any] | None:
        """A row, when one is due; where measuring fails, all else goes on without it."""
        try:
            if not measurements.due(self.policy):
                return None
            return measurements.row(self.policy, self._batch, self.count)
        except Exception as error:
            self.measurements = None
            warn("measures no more on the task", error)
        return None

    def _sampled(self, table: str, row: dict[str, Any] | None) -> None:
        if row is not None:
            with self.budget.paying():
                self._file(table, row)

    def _file(self, table: str, row: dict[str, Any]) -> None:
        self.desk.file(table, {"update": self.count, "step": self.step} | row)

    def _check_finite(self, sizes: Tensor) -> None:
        """At once where looking costs no waiting; an accelerator is asked once per row."""
        if sizes.device.type != "cpu" or isfinite(sum(sizes.tolist())):
            return
        self._watching = WATCHED
        if not self.desk.due(ORIGIN, self.count):
            return
        try:
            words = replayed(self.watch.watched.module, self.watch.inputs, self.watch.arrived)
        except Exception as error:  # a policy that cannot be copied, or not called again
            words = f"the policy's passes could not be made again ({type(error).__name__}: {error})"
        self._tell(ORIGIN, words)

    def _tell(self, kind: str, words: str) -> None:
        message = f"{words}: mend that operation, or leave the sample out"
        self.desk.ring(Alarm(kind, message), self.count, self.step)
