"""States and actions at which derivatives are taken, and the stratum of each.

    starts    of the start law
    visited   rollouts from some of them, under the policy, or else random actions
    random    visited ones, every coordinate moved by about its own spread
    limits    actions on their limits and beyond, coordinates at 0
    kinks     both sides of the kinks and jumps that lines between visited points cross

A line between two visited points is cut where the second difference of the outputs is largest, and
the part around the cut is cut again. Where f is smooth the second difference over the width falls
with the width; where it does not, the line has crossed a contact, a limit or a clip.

Strata: onset (a kink or jump in the stencil), saturation (an input without effect that elsewhere
has one), limit, contact (the system's `contacts(state) -> bool [N]`), free.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.networks.interface import act, noise_dim
from gradlab.systems.system import System
from gradlab.tasks.task import Task
from gradlab.tools.certify.evaluation import FEW, Points, Reference, evenly, noise_of, outputs
from gradlab.tools.certify.result import Deviation, Entry, Names

_ROLLOUTS = 64  # at least
_SCALES = (1.0, 0.1, 1.0, 4.0)  # of their starts, where nobody says what states are usual
_LONGEST = 64  # steps of one
_FAR = 1e6  # times its first size: a rollout that left is not followed
_NEAR = 10 * max(_SCALES)  # where nobody says what states are usual, a rollout that runs off ends
_GROWTH = 2.0  # from half of a rollout to its end: more than a drift's
_BEYOND = 1.3  # of a limit
_FEWEST, _SHARE = 16, 0.25  # finite points, and their share, below which nothing is judged


@dataclass(frozen=True)
class Samples:
    """Points, and where each is from.

    Attributes:
        origin: "given", "starts", "visited", "random", "limits" or "kinks", one per point.
        step: of the rollout, [N]; −1 where it is from none.
        onset: bool [N], points that were placed on a kink.
    """

    points: Points
    origin: tuple[str, ...]
    step: Tensor
    onset: Tensor

    def __len__(self) -> int:
        return len(self.origin)

    def at(self, rows: Tensor) -> Samples:
        """Some of them, by index."""
        origin = tuple(self.origin[i] for i in rows.tolist())
        return Samples(self.points.at(rows), origin, self.step[rows], self.onset[rows])

    def thinned(self, n: int) -> Samples:
        """n of them, evenly spread."""
        return self.at(evenly(len(self), n))


def pooled(parts: list[Samples]) -> Samples:
    """All of several."""
    noises = [part.points.noise for part in parts]
    noise = None if noises[0] is None else torch.cat([xi for xi in noises if xi is not None])
    return Samples(
        Points(torch.cat([part.points.z for part in parts]), noise),
        tuple(name for part in parts for name in part.origin),
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("step", "onset")),
    )


@dataclass(frozen=True)
class StartLaw:
    """What is drawn from: starts, actions and the task's limits.

    Attributes:
        starts: [M, ds]; rollouts begin at the first of them.
        action_limit: [da], or None where the task has none; action_size: spread of random ones.
        lawless: nobody says what states are usual.
    """

    system: System
    starts: Tensor
    policy: nn.Module | None
    action_limit: Tensor | None
    action_size: Tensor
    seed: int
    lawless: bool

    def draw(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers of a stream of their own."""
        generator = stream(self.seed, f"certify {name}")
        return torch.randn(*shape, generator=generator, dtype=self.starts.dtype)

    def actions(self, s: Tensor, name: str) -> Tensor:
        """At states [N, ds]: the policy's, or random ones."""
        if self.policy is None:
            return self.action_size * self.draw(name, len(s), self.system.action_dim)
        with torch.no_grad():
            return act(self.policy, s, self.draw(f"policy {name}", len(s), noise_dim(self.policy)))

    def samples(self, z: Tensor, origin: str, noise: Tensor | None = None, t: int = 0) -> Samples:
        """Points of one origin, with noise drawn where none is given."""
        n = len(z)
        if noise is None and self.system.noise_dim:
            generator = stream(self.seed + t, f"certify noise {origin}")
            noise = self.system.sample_noise(n, generator).to(z)
        step, onset = torch.full((n,), -1), torch.zeros(n, dtype=torch.bool)
        return Samples(Points(z, noise), (origin,) * n, step, onset)


def law(
    system: System, task: Task | None, policy: nn.Module | None, states: Tensor | None, seed: int,
    n: int = _ROLLOUTS,
) -> StartLaw:  # fmt: skip
    """n starts, or `_ROLLOUTS` where n is less: of the task, of the given states, or normal ones of
    several scales."""
    generator, n = stream(seed, "certify starts"), max(n, _ROLLOUTS)
    if states is not None and len(states):
        starts = states[torch.randint(len(states), (n,), generator=generator)]
    elif task is not None:
        starts = task.starts(n, generator)
    else:
        starts = _scaled(torch.randn(n, system.state_dim, generator=generator, dtype=torch.float64))
    limit, size = None, starts.new_ones(system.action_dim)
    if task is not None and task.exploration is not None:
        size = starts.new_tensor(task.exploration)
    if task is not None and task.action_limit is not None:
        limit = starts.new_tensor(task.action_limit)
        size = 0.5 * limit
    return StartLaw(system, starts, policy, limit, size, seed, task is None and states is None)


def _scaled(normal: Tensor) -> Tensor:
    scales = normal.new_tensor(_SCALES)[torch.arange(len(normal)) % len(_SCALES)]
    return normal * scales[:, None]


Loss = tuple[int, int, str]  # first output that is not finite; of how many rollouts; and when


def not_finite(names: Names, z: Tensor, y: Tensor, rollout: Loss | None) -> list[Deviation]:
    """Where the step itself is not finite, of all points z [N, ds + da] and their outputs y, and in
    rollouts: too few finite points are "few_finite"."""
    bad = ~torch.isfinite(y)
    lost = bad.any(1)
    n, left, at = len(z), int((~lost).sum()), list[str]()
    output, code, count = 0, "left_out", n - left
    if rollout is not None:
        output, count, at = rollout[0], count or rollout[1], [rollout[2]]
    if left < n:
        output = int(bad.any(0).nonzero()[0])
        at.append(first_of(names, z, lost))
        if left < max(_FEWEST, _SHARE * n):
            code, count = "few_finite", left
    entry = Entry(names.rows[output], "")
    found = Deviation(code, 1 - left / n, count, entries=(entry,), detail=", ".join(at))
    return [found] if at else []


def first_of(names: Names, z: Tensor, lost: Tensor) -> str:
    """The first lost point of z [N, ds + da], by its coordinates."""
    values = zip(names.columns, z[lost][0].tolist(), strict=True)
    return f"first at {', '.join(f'{name} {x:.3g}' for name, x in values)}"


def started(drawn: StartLaw, n: int) -> Samples:
    """n of the starts."""
    s = drawn.starts[:n]
    z = torch.cat([s, drawn.actions(s, "first actions")], 1)
    return replace(drawn.samples(z, "starts"), step=torch.zeros(len(s), dtype=torch.long))


def visited(drawn: StartLaw, n: int) -> tuple[Samples, Loss | None, tuple[int, int] | None]:
    """About n states of rollouts, and how many of how many ran off; None: from a law of starts.

    States that ran off would hide the faults of usual ones, whose derivatives are small beside
    theirs: without a law of starts a rollout that runs off begins anew within `_NEAR`.
    """
    seen, loss, sizes = _rollouts(drawn, n, _FAR * (1 + float(drawn.starts.abs().amax())))
    if not drawn.lawless:
        return seen, loss, None
    last = (sizes.isfinite().sum(0) - 1).clamp_min(0)
    end, half = (sizes.gather(0, at[None])[0] for at in (last, last // 2))
    off = int(((end > _NEAR) & (end > _GROWTH * half)).sum())
    return (seen if off == 0 else _rollouts(drawn, n, _NEAR, anew=True)[0]), loss, (off, len(end))


def _rollouts(
    drawn: StartLaw, n: int, bound: float, anew: bool = False
) -> tuple[Samples, Loss | None, Tensor]:
    """About n states, and the largest coordinate of every rollout by step, NaN after its end:
    beyond the bound, where it may begin anew."""
    system, s = drawn.system, drawn.starts[: max(_ROLLOUTS, -(-n // _LONGEST))]
    steps, parts, rows = max(1, -(-n // len(s))), list[Samples](), torch.arange(len(s))
    sizes = s.new_full((steps + 1, len(s)), torch.nan)
    sizes[0] = s.abs().amax(1)
    first, count = None, 0
    for t in range(steps):
        z = torch.cat([s, drawn.actions(s, f"actions {t}")], 1)
        here = drawn.samples(z, "visited", t=t)
        parts.append(replace(here, step=torch.full((len(s),), t)))
        y = outputs(system, here.points)
        lost = ~torch.isfinite(y)
        count += int(lost.any(1).sum())
        if first is None and bool(lost.any()):
            first = t, int(lost.any(0).nonzero()[0])
        s = y[:, :-1]
        sizes[t + 1, rows] = s.abs().amax(1)
        kept = ~lost.any(1) & (s.abs() <= bound).all(1)
        if anew:
            s = torch.where(kept[:, None], s, _scaled(drawn.draw(f"anew {t}", *s.shape)))
            continue
        s, rows = s[kept], rows[kept]
        if not len(s):
            break
    said = first and f"{count} of {sizes.shape[1]} rollouts, first at step {first[0]}"
    return pooled(parts).thinned(n), first and (first[1], count, str(said)), sizes


def shifted(drawn: StartLaw, seen: Samples, n: int) -> Samples:
    """Visited points with every coordinate moved by a third of its spread."""
    z = seen.points.z
    rows = torch.arange(n) % len(z)
    spread = z.std(0).nan_to_num()
    draw = drawn.draw("random", n, z.shape[1])
    return drawn.samples(z[rows] + 0.3 * spread * draw, "random")


def limits(drawn: StartLaw, seen: Samples, n: int) -> Samples:
    """Visited points with one action on its limit or beyond, one or all of them at 0, as untrained
    policies give them, or one coordinate at 0, or all, if that is within a spread of where it goes:
    a temperature in kelvin is not."""
    z, ds = seen.points.z, drawn.system.state_dim
    low, high, spread = z.amin(0), z.amax(0), z.std(0).nan_to_num()
    near = (low - spread <= 0) & (high + spread >= 0)
    rows = (torch.arange(n) * 7) % len(z)
    out = z[rows].clone()
    bound = drawn.action_limit
    reach = 4 * drawn.action_size if bound is None else bound
    for k in range(n):
        column, turn = k % out.shape[1], k // out.shape[1]
        if column < ds:
            out[k, column] = 0.0 if turn % 4 == 0 and near[column] else out[k, column]
            out[k, :ds][near[:ds] & (turn % 8 == 7)] = 0.0
            column = ds + k % (out.shape[1] - ds)
        out[k, column] = reach[column - ds] * (0, 1, _BEYOND, -1, -_BEYOND)[turn % 5]
        out[k, ds:] = 0.0 if turn % 10 == 5 else out[k, ds:]
    return drawn.samples(out, "limits")


_GRID, _CUTS = 17, 22  # points of the first cut, and halvings after it
_ASIDE = 1e-3  # of the line, how far from the kink its sides are taken
_LASTS = 0.25  # of the slope's change at a wide stencil, that is left at a 64 times narrower one
_LEAST = 1e-5  # of the outputs' spread over the line: a smaller change is rounding
_NOISES = 32.0  # times the step's own noise over the stencil, likewise


def kinks(drawn: StartLaw, seen: Samples, n: int) -> Samples:
    """At most n points, a third of them on kinks that n lines cross, the others on both sides."""
    system, z = drawn.system, seen.points.z
    rows = evenly(len(z), n)
    other = rows[torch.randperm(len(rows), generator=stream(drawn.seed, "certify lines"))]
    ends = z[rows], torch.lerp(z[rows], z[other], max(_SCALES) if drawn.lawless else 1.0)
    at, kinked = _found(system, seen.points, rows, *ends)
    found = kinked.nonzero().flatten()
    found = found[evenly(len(found), n // 3)] if len(found) else found
    step, on = _ASIDE * (ends[1] - ends[0])[found], at[found]
    points = torch.cat([on, on - step, on + step])
    return replace(drawn.samples(points, "kinks"), onset=torch.arange(len(points)) < len(on))


def _found(
    system: System, points: Points, rows: Tensor, begin: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the outputs bend most on every line [K, ·], and whether that is a kink, [K]."""
    noise = points.at(rows).noise

    def values(fractions: Tensor) -> Tensor:
        """y [k, K, out] in units of spread at fractions [k, K] of the lines."""
        z = begin + fractions[..., None] * (end - begin)
        given = None if noise is None else noise.repeat(len(fractions), 1)
        y = outputs(system, Points(z.reshape(-1, z.shape[-1]), given))
        return y.reshape(*fractions.shape, -1)

    def bent(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
        """Norm of the second difference in spreads of the line; what rounding makes is 0."""
        bend = (before - 2 * at + after).abs()
        shown = torch.where(bend > rounding, bend / spread, 0.0).nan_to_num()
        return shown.square().sum(-1).sqrt()

    lines = torch.arange(len(begin))
    grid = torch.linspace(0, 1, _GRID).to(begin)
    y = values(grid[:, None].expand(-1, len(begin)))
    spread = (y.amax(0) - y.amin(0)).nan_to_num()
    spread = torch.where(spread > 0, spread, torch.inf)
    rounding = _NOISES * torch.finfo(y.dtype).eps * y.abs().amax(0)
    low, width = torch.zeros(len(begin)).to(begin), grid[1].expand(len(begin))
    for _ in range(_CUTS):
        # Of the inner points, and the index of the one before.
        best = bent(y[:-2], y[1:-1], y[2:]).argmax(0)
        low = low + best * width
        before, at, after = (y[best + k, lines] for k in range(3))
        width = width / 2
        quarters = values(torch.stack([low + width, low + 3 * width]))
        y = torch.stack([before, quarters[0], at, quarters[1], after])
    middle = low + 2 * width
    changes = []  # |f(m + d) − 2 f(m) + f(m − d)| / d in spreads of the line, [K]
    for d in (4 * width, 64.0 * 4 * width):
        changes.append(bent(*values(torch.stack([middle - d, middle, middle + d]))) / d)
    narrow, wide = changes
    noisy = _NOISES * noise_of(system, points) / (4 * width)
    kinked = (narrow > _LASTS * wide) & (narrow > noisy.clamp_min(_LEAST))
    return begin + middle[:, None] * (end - begin), kinked


_PARTS = {"random": 0.1, "limits": 0.12, "kinks": 0.12}  # of the samples, half of them starts
_OUTLYING = 1e4  # interquartile ranges


def sampled(
    drawn: StartLaw, given: tuple[Tensor | None, Tensor | None, Tensor | None], n: int,
    check: Callable[[System, Points], Tensor],
) -> tuple[Samples, Loss | None, tuple[int, int] | None, list[Deviation]]:  # fmt: skip
    """The given states, actions and noise alone, or pooled with drawn ones, half of which are
    starts where no states are given; what `visited` says of rollouts, and what of these was left
    out. `check` refuses a step before more points are made."""
    system, (states, actions, noise) = drawn.system, given
    if states is None:
        own, rolled = started(drawn, -(-n // 2)), n // 2
    else:
        a = actions
        if a is None:
            a = drawn.action_size * drawn.draw("given", len(states), system.action_dim)
        own, rolled = drawn.samples(torch.cat([states, a], 1), "given", noise), n
        if actions is not None:
            return own, None, None, []
    seen, loss, off = visited(drawn, n)
    check(system, seen.points.at(slice(0, FEW)))
    y = outputs(system, seen.points)
    usual = torch.cat([outputs(system, own.points), y])
    far, left = _outlying(y, usual), list[Deviation]()
    if bool(far.any()):
        first = f"first at step {int(seen.step[far].min())}"
        left.append(Deviation("ran_off", n=int(far.sum()), detail=first))
        seen = seen.at((~far).nonzero().flatten())
    ways = {"random": shifted, "limits": limits, "kinks": kinks}
    more = [way(drawn, seen, max(int(_PARTS[name] * n), 1)) for name, way in ways.items()]
    kept = []
    for part in more:
        with suppress(InputError):  # some systems refuse what no rollout reaches
            if len(part):
                outputs(system, part.points)
                kept.append(part)
    taken = pooled([own, seen.thinned(rolled - sum(map(len, kept))), *kept])
    inside = (~_outlying(outputs(system, taken.points), usual)).nonzero().flatten()
    return taken.at(inside), loss, off, left


def _outlying(y: Tensor, usual: Tensor) -> Tensor:
    """bool [N], outputs far beyond the usual ones, whose rounding would hide wrong entries where
    states are usual."""
    low, middle, high = usual.nanquantile(y.new_tensor([0.25, 0.5, 0.75]), dim=0)
    far = ((y - middle).abs() > _OUTLYING * (high - low)) & (high > low) & torch.isfinite(y)
    found: Tensor = far.any(1)
    return found


STRATA = ("free", "contact", "onset", "limit", "saturation")
_ROUNDING = 1e-9  # of a column's size elsewhere, below which it is 0


def strata(
    system: System, samples: Samples, found: Reference, action_limit: Tensor | None
) -> Tensor:
    """Index into `STRATA` of every point, [N]; the last that holds counts."""
    ds, z = system.state_dim, samples.points.z
    label = torch.zeros(len(z), dtype=torch.long)
    contacts: Callable[[Tensor], Tensor] | None = getattr(system, "contacts", None)
    if contacts is not None:
        label[contacts(z[:, :ds]).cpu()] = STRATA.index("contact")
    limited = torch.zeros(len(z), dtype=torch.bool)
    if action_limit is not None:
        limited |= (z[:, ds:].abs() == action_limit).any(1)
    beyond: Callable[[Tensor], Tensor] | None = getattr(system, "beyond_limits", None)
    if beyond is not None:
        limited |= beyond(z[:, :ds]).cpu()
    label[limited] = STRATA.index("limit")
    # A column is 0 here, and is not at a tenth of all points.
    size = found.D.abs().nan_to_num().amax(1)
    usual = size.quantile(0.9, dim=0)
    saturated = ((size <= _ROUNDING * usual) & (usual > 0)).any(1)
    label[saturated] = STRATA.index("saturation")
    label[found.kink.any(1) | samples.onset] = STRATA.index("onset")
    return label
