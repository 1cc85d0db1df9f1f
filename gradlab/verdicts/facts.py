"""What decides what to do next, as plain values that every sentence, page and terminal reads.

    gain        of one small step along each gradient, to first order, with its interval
    realised    the same steps taken, on fresh starts
    own         the gradients that compete (`runs.identity`): the user's choice is among these
    beyond      better ones that need the simulator's states
    kept        their cells that may have the largest gain (`statistics.selection`)

Without a truth the realised changes of the return take the place of gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradlab.findings.checks import detached, failed_premises, other_derivative
from gradlab.runs.identity import Identity, competing, data_of, needs_states
from gradlab.runs.jumps import Jumps
from gradlab.runs.profile import (
    CLOSE,
    Profile,
    best_shown,
    better_beyond,
    run_around,
)
from gradlab.runs.realised import Disagreement, Realised
from gradlab.runs.rehearsal import Rehearsal
from gradlab.statistics.comparison import Number
from gradlab.statistics.selection import largest

Cell = tuple[str, int]
_FEWEST = 3  # groups of starts that a set of cells needs
_MUCH = 0.25  # of the best gain


@dataclass(frozen=True, eq=False)
class Facts:
    """See above.

    Attributes:
        samples: starts; seconds: what measuring them took; batch: N′ of one update.
        law, truth: of the measurement, and the status of its truth; why: its reason.
        own: names among which the choice is; identities: who they and all others are.
        gains: to first order, of every cell with a finite one; {} without a truth.
        batch_gains: the expected gain of one batch; errors: MSE over |truth|²; cosines: with the
            truth, whichever it is.
        best: the own cell of largest gain; kept: own cells that may be best, `best` among them.
        chosen: the gain of the best one, with an interval that holds in 95% although it was chosen
            for its estimate.
        beyond: of own cells the one of largest gain that needs the simulator's states, where it is
            shown to gain notably more than they.
        carried: share of the truth's square that 1% of the starts carry, where that is too much.
        wanted: further starts that would make an imprecise truth precise; 0: none, or not known.
        realised: None where no steps were taken; disagreements: steps whose realised gain is not
            what it is to first order.
        rehearsal: for how many updates gradients hold; jumps: what a trial at the length of an
            update says of the pathwise gradient; None where there was none.
        void: why nothing can be decided from gains, in sentences; () where something can;
            premise: what to do about the first of them.
        detached: whose Jacobians are lost where they should not be, as identities say it.
    """

    samples: int
    seconds: float
    batch: int
    law: str
    truth: str
    why: str
    own: tuple[str, ...]
    identities: Mapping[str, Identity]
    gains: Mapping[Cell, Number]
    batch_gains: Mapping[Cell, Number]
    errors: Mapping[Cell, Number]
    cosines: Mapping[Cell, Number]
    best: Cell | None
    chosen: Number | None
    kept: tuple[Cell, ...]
    realised: Realised | None
    disagreements: tuple[Disagreement, ...]
    void: tuple[str, ...] = ()
    beyond: Mapping[Cell, Cell] = field(default_factory=dict)
    carried: float = 0.0
    wanted: int = 0
    premise: str = ""
    rehearsal: Rehearsal | None = None
    jumps: Jumps | None = None
    detached: frozenset[str] = frozenset()

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

    @property
    def own_steps(self) -> Realised:
        """Steps along the gradients that compete; there are such."""
        assert self.realised is not None
        return self.realised.of_competing(self.own)


def facts(profile: Profile) -> Facts:
    """What a measurement says about the next step; needs no torch."""
    admissible = bool(profile.truth["admissible"])
    gains = profile.numbers("gain") if admissible else {}
    own = competing(profile.identities)
    cells = list(profile.competing_gains) if admissible else []
    estimates = [profile.estimate(name, "gain", h) for name, h in cells]
    enough = estimates and len(estimates[0].left_out) >= _FEWEST
    ranks = largest(estimates) if enough else None
    best = None if ranks is None else best_shown(gains, cells)
    beyond: dict[Cell, Cell] = {}
    if ranks is not None and best is not None:
        names = needs_states(profile.identities)
        others = [cell for cell in gains if cell[0] in names]
        better = {
            own: better_beyond(own, others, lambda each: profile.estimate(each[0], "gain", each[1]))
            for own in cells
        }
        beyond = {own: cell for own, cell in better.items() if cell is not None}
    void = failed_premises(profile.sanity)
    realised = profile.realised
    table = profile.table()
    # A truth that is precise or cut is carried by many.
    few = profile.truth.get("carried_by_few", False) and profile.truth.get("status") == "imprecise"
    return Facts(
        samples=int(profile.config["starts"]),
        seconds=seconds_of(profile),
        batch=profile.batch,
        law=str(profile.config.get("law", "start")),
        truth=str(profile.truth.get("status", "none")),
        why=str(profile.truth.get("reason", "")),
        own=own,
        identities=profile.identities,
        gains=gains,
        batch_gains=profile.numbers("cosine_batch") if gains else {},
        errors=profile.numbers("relative_mse"),
        cosines=profile.numbers("cosine"),
        best=best,
        chosen=None if best is None else gains[best],
        kept=() if ranks is None else tuple(c for c, k in zip(cells, ranks.kept, strict=True) if k),
        realised=realised,
        disagreements=() if realised is None else realised.disagreements(table, profile.jumps),
        void=tuple(each.said for each in void),
        premise=void[0].remedy if void else "",
        beyond=beyond,
        carried=float(profile.truth.get("concentration", 0.0)) if few else 0.0,
        wanted=max(0, int(profile.truth.get("missing", 0))),
        rehearsal=profile.rehearsal,
        # A return that is not what another derivative promises is not rough for it.
        jumps=None if other_derivative(profile.sanity) else profile.jumps,
        detached=detached(profile.sanity),
    )


def seconds_of(profile: Profile) -> float:
    """Of the measurement alone."""
    try:
        return float(profile.environment.get("measured_seconds", "nan"))
    except ValueError:
        return float("nan")
