"""What decides what to do next, as plain values that every sentence, page and terminal reads.

    gain        of one small step along each gradient, to first order, with its interval
    realised    the same steps taken, on fresh starts
    own         the gradients that compete (`runs.identity`): the user's choice is among these
    beyond      better ones that need the simulator's states

Without a truth the realised changes of the return take the place of gains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import nan

from gradlab.choice.best import beyond, leading
from gradlab.choice.values import Best
from gradlab.findings import Finding
from gradlab.findings.checks import detached, failed_premises, other_derivative
from gradlab.runs.identity import Cell, Identity, competing, data_of
from gradlab.runs.jumps import Jumps
from gradlab.runs.profile import CLOSE, Profile, run_around
from gradlab.runs.realised import Disagreement, Realised
from gradlab.runs.rehearsal import Rehearsal
from gradlab.statistics.comparison import Number

_MUCH = 0.25  # of the best gain


@dataclass(frozen=True, eq=False)
class Facts:
    """See above.

    Attributes:
        samples: starts; seconds: what measuring them took; batch: N′ of one update.
        law, truth: of the measurement, and the status of its truth; why: its reason.
        own: names among which the choice is; identities: who they and all others are.
        gains: to first order, of every cell with a finite one; {} without a truth.
        leading: the own cell of largest gain, with an interval that holds in 95% although it was
            chosen for its estimate.
        batch_gains: the expected gain of one batch; errors: MSE over |truth|²; cosines: with the
            truth, whichever it is.
        beyond: of an own cell what gains notably more and needs the simulator's states.
        carried: share of the truth's square that 1% of the starts carry, where that is too much.
        wanted: further starts that would make an imprecise truth precise; 0: none, or not known.
        realised: None where no steps were taken; disagreements: steps whose realised gain is not
            what it is to first order.
        rehearsal: for how many updates gradients hold; jumps: what a trial at the length of an
            update says of the pathwise gradient; None where there was none.
        void: why nothing can be decided from gains; () where something can.
        detached: whose Jacobians are lost where they should not be, as identities say it.
    """

    samples: int
    batch: int
    law: str
    truth: str
    why: str
    own: tuple[str, ...]
    identities: Mapping[str, Identity]
    gains: Mapping[Cell, Number]
    leading: Best | None
    seconds: float = nan
    batch_gains: Mapping[Cell, Number] = field(default_factory=dict)
    errors: Mapping[Cell, Number] = field(default_factory=dict)
    cosines: Mapping[Cell, Number] = field(default_factory=dict)
    beyond: Callable[[Cell], Mapping[Cell, Number]] = lambda _: {}
    carried: float = 0.0
    wanted: int = 0
    realised: Realised | None = None
    disagreements: tuple[Disagreement, ...] = ()
    rehearsal: Rehearsal | None = None
    jumps: Jumps | None = None
    void: tuple[Finding, ...] = ()
    detached: frozenset[str] = frozenset()

    @property
    def best(self) -> Cell | None:
        """The own cell of largest gain."""
        return None if self.leading is None else self.leading.cell

    @property
    def chosen(self) -> Number | None:
        """Its gain, with an interval that holds in 95% although it was chosen for its estimate."""
        return None if self.leading is None else self.leading.number

    @property
    def uncertain(self) -> bool:
        """Is the true gradient so imprecise that it tells which of two gradients is nearer, and
        no gain?"""
        return self.truth == "imprecise" and not self.void

    @property
    def stepped(self) -> bool:
        """Were steps taken?"""
        return self.realised is not None and bool(self.realised.stepped)

    def lost(self, cell: Cell) -> bool:
        """Does a gradient rest on Jacobians that are lost?"""
        return cell[1] > 0 and self.identities[cell[0]].jacobians in self.detached

    def horizons(self, name: str) -> list[int]:
        """Horizons of an estimator with a gain; where none has one, those that were stepped."""
        stepped = () if self.gains or self.realised is None else self.own_steps.stepped
        return sorted(h for each, h in self.gains or stepped if each == name)

    @property
    def data(self) -> Cell | None:
        """The data gradient, where it was measured."""
        name = data_of(self.identities)
        return None if name is None else (name, 0)

    @property
    def data_gain(self) -> Number | None:
        """What the critic alone gains, where that is known."""
        return None if self.data is None else self.gains.get(self.data)

    def close(self, cell: Cell) -> list[int]:
        """The run of horizons around a cell that gain practically as much; itself alone where its
        gain is not known. Nobody backpropagates 0 steps: the critic alone is a gradient of its
        own."""
        name, at = cell
        if cell not in self.gains:
            return [at]
        enough = CLOSE * self.gains[cell].clipped
        gains = {h: self.gains[name, h] for h in self.horizons(name) if h or not at}
        good = {h for h, gain in gains.items() if gain.low > 0 and gain.clipped >= enough}
        return run_around(at, good)

    def harmful(self, name: str) -> list[int]:
        """Horizons whose step is shown to lower the return: to first order by a quarter of the best
        gain, since an update of Adam goes another way (of −16% one raised it), else as taken."""
        if not self.gains:
            return [h for h in self.horizons(name) if self.own_steps.harms((name, h))]
        return [h for h in self.horizons(name) if self.gains[name, h].high < -_MUCH]

    def lowering(self, name: str, updates: int | None) -> list[int]:
        """Horizons h ≥ 1 that lower the return, by as much evidence as an advised one raises it:
        by so many updates in every draw where these were rehearsed, else by one step."""
        told = self.rehearsal
        if told is None or updates is None:
            return sorted(set(self.harmful(name)) - {0})
        if not told.comparable:
            return []
        after = {h: told.after((each, h), updates) for each, h in told.cells if each == name and h}
        return sorted(h for h, change in after.items() if change.high < 0)

    @cached_property
    def own_steps(self) -> Realised:
        """Steps along the gradients that compete; there are such."""
        assert self.realised is not None
        return self.realised.of_competing(self.own)


def facts(profile: Profile) -> Facts:
    """What a measurement says about the next step; needs no torch."""
    truth, checked, own = profile.truth, profile.sanity, competing(profile.identities)
    gains = profile.numbers("gain") if truth["admissible"] else {}
    taken, jumps, status = profile.realised, profile.jumps, str(truth.get("status", "none"))
    try:
        seconds = float(profile.environment.get("measured_seconds", "nan"))
    except ValueError:
        seconds = nan
    # A truth that is precise or cut is carried by many.
    few = truth.get("carried_by_few", False) and status == "imprecise"
    return Facts(
        samples=int(profile.config["starts"]),
        batch=profile.batch,
        law=str(profile.config.get("law", "start")),
        truth=status,
        why=str(truth.get("reason", "")),
        own=own,
        identities=profile.identities,
        gains=gains,
        leading=leading(profile),
        seconds=seconds,
        batch_gains=profile.numbers("cosine_batch") if gains else {},
        errors=profile.numbers("relative_mse"),
        cosines=profile.numbers("cosine"),
        beyond=partial(beyond, profile, own),
        carried=float(truth.get("concentration", 0.0)) if few else 0.0,
        wanted=max(0, int(truth.get("missing", 0))),
        realised=taken,
        disagreements=() if taken is None else taken.disagreements(profile.table(), jumps),
        rehearsal=profile.rehearsal,
        # A return that is not what another derivative promises is not rough for it.
        jumps=None if other_derivative(checked) else jumps,
        void=failed_premises(checked),
        detached=detached(checked),
    )
