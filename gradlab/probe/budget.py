"""The probe's budget: a share of the time that passes, measured on the probe itself.

    own ≤ share · elapsed            own: seconds inside the probe, import and set-up included
    made when own + price ≤ share · (elapsed + price), price: what the last one cost

What a measurement waits for, when it is foretold and the share that would do follow from this one
rule. A first one may be made on a loan. Episodes have a part of the share of their own, of which
`KEPT` is theirs whatever all else has taken; bursts and looks at updates have parts of the rest.
What is tested at every update takes at most half of the share from these. A clock inside an update
does not see hooks being called: a second counts `UNSEEN` times, as seventeen pairs of loops lost
(`reports/loops`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import final

from gradlab import validation

Clock = Callable[[], float]

GRACE = 10  # looks that are made before there is a price
ALWAYS = 0.4  # of the share: 2% of the time by default
SIGNAL = 0.3  # of the share: successive gradients beside a task
EPISODES = 0.6  # of the share: whole episodes, where there is an environment; at most
KEPT = 0.25  # of the share: the same at least, whatever tests and the start have taken
GUARDED = 0.5  # of the share: numbers that are tested at every update
LEAVES = 0.8  # of the share: what later looks at the loop's parts fill, for measurements to begin
LOAN = 3.0  # seconds beyond the share, once
_PACE = 0.5  # of the time that a measurement is worth, which passes before the next one
UNSEEN = 1.7  # what a loop loses to looks, over what their own clock says


@final
class Budget:
    """Seconds spent and seconds allowed.

    Args:
        share: of the elapsed time that the probe may take, in (0, 1].
        clock: seconds, increasing; another one in tests.
        episodes: part of the share that is kept for whole episodes.
    """

    def __init__(self, share: float, clock: Clock, episodes: float = 0.0) -> None:
        validation.function("clock", clock, "nothing, in seconds")
        self.share, self.clock = share, clock
        self.for_episodes, self.rest_share = episodes * share, (1 - episodes) * share
        self.kept = min(KEPT, episodes) * share
        self.begun: float | None = None
        self.own = 0.0
        self._before = 0.0  # seconds of the log's earlier probes
        self._always = self._bursts = self._episodes = self._guarded = self._filed = 0.0
        self.lent = 0.0  # seconds that first looks at the loop's parts will still take, on a loan
        self.later = 0.0  # the part of the time that later ones take where there is room
        self.closest = inf  # the part that episodes take as close as they come
        self._looks = 0

    @property
    def elapsed(self) -> float:
        return self._before + (0.0 if self.begun is None else self.clock() - self.begun)

    def go_on(self, own: float, elapsed: float, episodes: float = 0.0) -> None:
        """With what earlier probes of this log have spent, on episodes and in all."""
        self.own, self._before = self.own + own, elapsed
        self._episodes += episodes

    @property
    def spent(self) -> float:
        """The share taken so far."""
        return self.of_time(self.own)

    def of_time(self, seconds: float) -> float:
        """The part of the time that so many seconds are."""
        return seconds / self.elapsed if self.elapsed > 0 else 0.0

    def begin(self) -> float:
        """Called at every update: the first one starts the time that counts. What time it is."""
        now = self.clock()
        if self.begun is None:
            self.begun = now
        return now

    def look(self) -> bool:
        """Whether this update may be measured; counts it where it may."""
        if self._looks >= GRACE:
            price = self._always / self._looks
            if self._always + price > ALWAYS * self.rest_share * (self.elapsed + price):
                return False
        self._looks += 1
        return True

    @property
    def wait(self) -> float:
        """Seconds that must pass before another update may be measured."""
        price = self._always / max(self._looks, 1)
        return (self._always + price) / (ALWAYS * self.rest_share) - price - self.elapsed

    def pay(self, since: float) -> None:
        """The always-on part was at work since `since`."""
        seconds = UNSEEN * (self.clock() - since)
        self.own += seconds
        self._always += seconds

    def guard(self, since: float) -> None:
        """What is done at every update, whatever it costs, was at work since `since`."""
        seconds = UNSEEN * (self.clock() - since)
        self.own += seconds
        self._guarded += seconds

    @property
    def tested(self) -> float:
        """The share that what goes on takes: tests at every update, looks and their rows."""
        return self.of_time(self._guarded + self._always + self._filed)

    @property
    def holds(self) -> float:
        """Seconds of the loop after which the share will hold, beside what goes on; it may never.
        Measurements wait until then, and episodes beyond what is kept for them."""
        goes_on = self.tested + self.kept
        once = self.own - goes_on * self.elapsed + self.lent
        return once / (self.share - goes_on) if goes_on < self.share else inf

    @property
    def governed(self) -> float:
        """Seconds that are held against the share."""
        return self.own - max(self._guarded - GUARDED * self.share * self.elapsed, 0.0)

    @contextmanager
    def paying(
        self, burst: bool = False, episode: bool = False, row: bool = False
    ) -> Iterator[list[float]]:
        """Counts what is done inside; the list then holds its seconds."""
        begun, price = self.clock(), [0.0]
        try:
            yield price
        finally:
            price[0] = self.clock() - begun
            self.own += price[0]
            self._bursts += price[0] if burst else 0.0
            self._episodes += price[0] if episode else 0.0
            self._filed += price[0] if row else 0.0

    def allows(self, price: float, loan: float = 0.0) -> bool:
        """Would the share still hold after something that takes `price` seconds, or be exceeded
        by no more than the loan? What costs more than that has none."""
        spare = loan if price <= loan else 0.0
        return self.governed + price <= self.share * (self.elapsed + price) + spare

    def episode_wait(self, price: float) -> float:
        """Seconds until a whole episode keeps to its own part, and all that the probe has done to
        the share; or the episodes to what is kept for them."""
        episodes = self._episodes + price
        spare = max(episodes / self.for_episodes, (self.own + price) / self.share)
        return min(spare, episodes / self.kept) - price - self.elapsed

    def allows_burst(self, price: float, part: float) -> bool:
        """The same for successive gradients, whose own `part` of the share must hold as well."""
        due = self._bursts + price <= part * self.rest_share * (self.elapsed + price)
        return due and self.allows(price)

    def until(self, price: float) -> float:
        """Seconds until something of `price` will be allowed, at the present pace of all else."""
        lacking = self.governed + price - self.share * (self.elapsed + price)
        if lacking <= 0:
            return 0.0
        taken = self._regular(self.rest_share, GUARDED * self.share) + self._of_episodes
        taken += min(self.later, max(LEAVES * self.share - taken, 0.0))
        return (lacking + self.lent) / (self.share - taken) if taken < self.share else inf

    @property
    def episode_share(self) -> float:
        """The part of the time that episodes take once the share holds."""
        spare = self.share - self._regular(self.rest_share, self.share)
        return max(min(self.for_episodes, spare), self.kept)

    @property
    def _of_episodes(self) -> float:
        return min(self.episode_share, self.closest)

    def _regular(self, share: float, most: float) -> float:
        """The part of the time that goes on being taken of a share, by looks, bursts and, `most`,
        what is tested at every update."""
        if not self.elapsed > 0:
            return 0.0
        sampled, filed, tested = (
            x / self.elapsed for x in (self._always + self._bursts, self._filed, self._guarded)
        )
        return min(sampled, (ALWAYS + SIGNAL) * share) + filed + min(tested, most)

    def needed(self, price: float, later: float = 0.0) -> float:
        """The share at which something of `price` would be allowed so many seconds from now, or
        could have been by now; above 1: none.

        own = once + paced · own + episodes, own / (own + time of the loop) = share: looks and
        bursts take a part of any share, episodes one or, as close as they come, their seconds.
        """
        elapsed, rest = self.elapsed + later, self.rest_share / self.share
        loop, episodes = elapsed - self.own, self.closest * elapsed
        if loop <= 0:
            return inf
        paced = min(self.of_time(self._always) / self.share, ALWAYS * rest) + SIGNAL * rest
        once = self.own - self._always - self._bursts - self._episodes
        once += self.lent + self.of_time(self._guarded) * later + price
        own = min(once / (rest - paced), (once + episodes) / (1 - paced))
        if self.later:
            filled = max(LEAVES, paced + min(1 - rest, episodes / own))
            own = max(own, price / (1 - filled))
        return own / (own + loop)

    def rested(self, price: float, since: float) -> bool:
        """Has enough time passed `since` the last measurement?

        Where prices were feared too high there are savings: spent at once, they would buy a dozen
        measurements of one and the same policy.
        """
        return self.rest(price, since) <= 0

    def rest(self, price: float, since: float) -> float:
        """Seconds that are still to pass."""
        return _PACE * price / self.rest_share - (self.clock() - since)


HOUR = 3600.0
_FARTHEST = 10  # times as long as the loop has run, to which anything is foretold


@dataclass(frozen=True)
class Due:
    """Something that waits until there is time for it.

    Attributes:
        what: "task" or "signal"; which: of them.
        first: is it the first of its kind?
        price: seconds that it takes; wait: seconds until there is time, 0 at the next update.
        sure: the price is known; else it takes as much at least.
        hour: the share at which it would be made within an hour.
    """

    what: str
    which: str
    first: bool
    price: float
    wait: float
    sure: bool
    hour: float = 0.0

    def __str__(self) -> str:
        if not isfinite(self.wait):
            return f"{self.what}: no {self.which} at this budget"
        when = f"in about {span(self.wait)}" if self.wait > 0 else "with the next updates"
        if not self.sure:
            when = f"in {span(self.wait)} or more, its price is not known yet"
        text = f"{self.what}: {'first' if self.first else 'next'} {self.which} {when}"
        if not self.first or not self.hour:
            return text
        more = "" if self.sure else " or more"
        late = self.wait > HOUR and self.hour <= 1
        cheap = f"; within an hour at {ceil(100 * self.hour)}%" if late else ""
        return f"{text} (it takes {span(self.price)}{more}{cheap})"

    def missed(self, budget: Budget) -> str:
        """The same when no more updates come; "" where there have been some."""
        if not self.first:
            return ""
        text = f"{self.what}: no {self.which}, "
        if self.wait <= 0:
            return f"{text}the run ended before there was one"
        text += f"not affordable at {100 * budget.share:.3g}%"
        needed = budget.needed(self.price)
        if needed > 1 and not isfinite(self.wait):
            return text
        longer = f"about {span(budget.elapsed + self.wait)} of training"
        would = f"{longer if needed > 1 else f'{ceil(100 * needed)}%'} would"
        return f"{text}: {would} do" if self.sure else f"{text}: more than {would} be needed"


def overdrawn(budget: Budget) -> str:
    """What was spent beyond the share, and from when on the share holds."""
    if not budget.own > budget.share * budget.elapsed > 0:
        return ""
    text, most = f"probe: {budget.own:.2g} s so far", f"{100 * budget.share:.3g}%"
    after = budget.holds
    if after <= max(HOUR, _FARTHEST * budget.elapsed):
        return f"{text}, within {most} of the time after about {span(after)} of training"
    if isfinite(after):  # what goes on takes nearly all of the share
        return f"{text}, {100 * budget.own / budget.elapsed:.2g}% of the time, above {most}"
    tests = f"{100 * budget.tested:.2g}%"
    if budget.kept:
        episodes = f"episodes up to {100 * budget.kept:.2g}%"
        return f"{text}, above {most}: tests of every update take {tests}, {episodes}"
    return f"{text}, above {most}: tests of every update alone take {tests}"


def span(seconds: float) -> str:
    """A time to wait, in words."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {name}s"
    whole = max(round(seconds), 1)
    return f"{whole} second{'s' * (whole > 1)}"
