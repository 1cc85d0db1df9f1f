"""States and actions at which derivatives are taken, and the stratum of each.

    starts    of the start law
    visited   rollouts from some of them, under the policy, or else random actions
    random    visited ones, every coordinate moved by about its own spread
    limits    actions on their limits and beyond, coordinates at 0
    kinks     both sides of the kinks and jumps that lines between visited points cross

Strata: onset (a kink or jump in the stencil), saturation (an input without effect that elsewhere
has one), limit, contact (the system's `contacts(state) -> bool [N]`), free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.networks.interface import act, noise_dim
from gradlab.systems.system import System
from gradlab.tasks.task import OTHER_BOUNDS, Task
from gradlab.tools.certify.evaluation import Points, Reference, evenly, outputs
from gradlab.tools.certify.result import Finding, Names

_ROLLOUTS = 64  # at least
_SCALES = (1.0, 0.1, 1.0, 4.0)  # of their starts, where nobody says what states are usual
_LONGEST = 64  # steps of one
_FAR = 1e6  # times its first size: a rollout that left is not followed
_NEAR = 10 * max(_SCALES)  # where nobody says what states are usual, a rollout that runs off ends
_GROWTH = 2.0  # from half of a rollout to its end: more than a drift's
_BEYOND = 1.3  # of a limit
_FEWEST, _SHARE = 16, 0.25  # finite points, and their share, below which nothing is judged
_BOUNDS, _PARTED = 4, 0.9  # of coordinates that are named; share of the points beyond them
_GUARD = (
    "Where a division, root, power or logarithm is the cause, clamp what it takes: "
    "`x.clamp(min=1e-9)`."
)


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


def pooled(parts: list[Samples]) -> Samples:
    """All of several."""
    noises = [part.points.noise for part in parts]
    noise = None if noises[0] is None else torch.cat([xi for xi in noises if xi is not None])
    return Samples(
        Points(torch.cat([part.points.z for part in parts]), noise),
        tuple(name for part in parts for name in part.origin),
        torch.cat([part.step for part in parts]),
        torch.cat([part.onset for part in parts]),
    )


def labelled(system: System, z: Tensor, origin: str, seed: int, noise: Tensor | None) -> Samples:
    """Points of one origin, with noise drawn where none is given."""
    n = len(z)
    if noise is None and system.noise_dim:
        noise = system.sample_noise(n, stream(seed, f"certify noise {origin}")).to(z)
    return Samples(
        Points(z, noise), (origin,) * n, torch.full((n,), -1), torch.zeros(n, dtype=torch.bool)
    )


@dataclass(frozen=True)
class Law:
    """What is drawn from: starts, actions and the task's limits.

    Attributes:
        starts: [M, ds]; rollouts begin at the first of them.
        action_limit, exploration: [da], or None where the task has none.
        lawless: nobody says what states are usual.
    """

    system: System
    starts: Tensor
    policy: nn.Module | None
    action_limit: Tensor | None
    exploration: Tensor | None
    seed: int
    lawless: bool = False

    @property
    def reach(self) -> float:
        """Of lines on which kinks are sought, in distances of visited states."""
        return max(_SCALES) if self.lawless else 1.0

    @property
    def action_size(self) -> Tensor:
        """Spread of random actions, [da]."""
        if self.action_limit is not None:
            return 0.5 * self.action_limit
        if self.exploration is not None:
            return self.exploration
        return self.starts.new_ones(self.system.action_dim)

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


def law(
    system: System,
    task: Task | None,
    policy: nn.Module | None,
    states: Tensor | None,
    seed: int,
    n: int = _ROLLOUTS,
) -> Law:
    """n starts, or `_ROLLOUTS` where n is less: of the task, of the given states, or normal ones of
    several scales."""
    generator, n = stream(seed, "certify starts"), max(n, _ROLLOUTS)
    if states is not None and len(states):
        starts = states[torch.randint(len(states), (n,), generator=generator)]
    elif task is not None:
        starts = task.starts(n, generator)
    else:
        starts = _scaled(torch.randn(n, system.state_dim, generator=generator, dtype=torch.float64))
    limit = None if task is None or task.action_limit is None else task.action_limit
    explored = None if task is None or task.exploration is None else task.exploration
    return Law(
        system,
        starts,
        policy,
        None if limit is None else starts.new_tensor(limit),
        None if explored is None else starts.new_tensor(explored),
        seed,
        task is None and states is None,
    )


def _scaled(normal: Tensor) -> Tensor:
    scales = normal.new_tensor(_SCALES)[torch.arange(len(normal)) % len(_SCALES)]
    return normal * scales[:, None]


@dataclass(frozen=True)
class NonFiniteStep:
    """The first step of a rollout that is not finite: its output, and how many rollouts end so."""

    step: int
    output: int
    rollouts: int
    of: int


def not_finite(
    names: Names, z: Tensor, y: Tensor, rollout: NonFiniteStep | None
) -> tuple[Finding, ...]:
    """Where the step itself is not finite, of all points z [N, ds + da] and their outputs y, and in
    rollouts: too few finite points are "not judged"."""
    bad = ~torch.isfinite(y)
    lost = bad.any(1)
    n, left, at = len(z), int((~lost).sum()), ""
    if rollout is not None:
        at = f"in {rollout.rollouts} of {rollout.of} rollouts, first at step {rollout.step}"
        if left == n:
            output = names.rows[rollout.output]
            text = f"The step itself leaves the finite numbers {at}, output {output}."
            return (Finding("not finite", "note", text, row=output),)
    elif left == n:
        return ()
    output = names.rows[int(bad.any(0).nonzero()[0])]
    where, remedy = region(names, z, lost)
    few = left < max(_FEWEST, _SHARE * n)
    rest = f": the other {left} are too few to judge derivatives by" if few else ""
    text = (
        f"The step is not finite at {n - left} of {n} states and actions (output {output}"
        f"{at and f'; {at}'}){where}. These are left out{rest}. {remedy}"
    )
    if few:
        return (Finding("not judged", "rough", text, 1 - left / n, row=output),)
    return (Finding("not finite", "note", text, row=output),)


def region(names: Names, z: Tensor, lost: Tensor) -> tuple[str, str]:
    """Bounds of coordinates beyond which the lost points are, and no other, of z [N, ds + da], or
    the first of them where no bounds part them; and what to do."""
    inside, left = z[~lost], z[lost]
    found: list[str] = []
    remedy = _GUARD
    while len(inside) and len(left) and len(found) < _BOUNDS:
        low, high = inside.amin(0), inside.amax(0)
        beyond = torch.stack([left < low, left > high])
        side, column = divmod(int(beyond.sum(1).argmax()), z.shape[1])
        out = beyond[side, :, column]
        if int(out.sum()) < 2:  # one lies beyond all others by chance
            break
        lies = left[out, column]
        near, edge = (lies.amax(), low) if side == 0 else (lies.amin(), high)
        bound = _between(float(near), float(edge[column]))
        found.append(f"{names.columns[column]} {'<>'[side]} {bound:g}")
        if column >= len(names.state):
            remedy = f"{OTHER_BOUNDS} {_GUARD}"
        left = left[~out]
    n = int(lost.sum())
    parted = n - len(left)
    if parted < _PARTED * n:
        values = zip(names.columns, z[lost][0].tolist(), strict=True)
        return f", first at {', '.join(f'{name} {x:.3g}' for name, x in values)}", _GUARD
    share = "all" if parted == n else parted
    return f": {share} have {' or '.join(found)}, and no other has", remedy


def _between(lost: float, kept: float) -> float:
    """The number of fewest digits from `kept`, at most, to `lost`, which it is not."""
    middle = (lost + kept) / 2
    for bound in (0.0, *(float(f"{middle:.{digits}g}") for digits in range(1, 17))):
        if kept <= bound < lost or lost < bound <= kept:
            return bound
    return kept


def started(drawn: Law, n: int) -> Samples:
    """n of the starts."""
    s = drawn.starts[:n]
    z = torch.cat([s, drawn.actions(s, "first actions")], 1)
    made = labelled(drawn.system, z, "starts", drawn.seed, None)
    return Samples(made.points, made.origin, torch.zeros(len(s), dtype=torch.long), made.onset)


def visited(drawn: Law, n: int) -> tuple[Samples, NonFiniteStep | None, tuple[int, int] | None]:
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
    drawn: Law, n: int, bound: float, anew: bool = False
) -> tuple[Samples, NonFiniteStep | None, Tensor]:
    """About n states, and the largest coordinate of every rollout by step, NaN after its end:
    beyond the bound, where it may begin anew."""
    system, s = drawn.system, drawn.starts[: max(_ROLLOUTS, -(-n // _LONGEST))]
    steps, parts, rows = max(1, -(-n // len(s))), list[Samples](), torch.arange(len(s))
    sizes = s.new_full((steps + 1, len(s)), torch.nan)
    sizes[0] = s.abs().amax(1)
    first, count = None, 0
    for t in range(steps):
        z = torch.cat([s, drawn.actions(s, f"actions {t}")], 1)
        here = labelled(system, z, "visited", drawn.seed + t, None)
        parts.append(Samples(here.points, here.origin, torch.full((len(s),), t), here.onset))
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
    loss = None if first is None else NonFiniteStep(*first, count, sizes.shape[1])
    return thinned(pooled(parts), n), loss, sizes


def thinned(samples: Samples, n: int) -> Samples:
    """n of them, evenly spread."""
    return samples.at(evenly(len(samples), n))


def shifted(drawn: Law, seen: Samples, n: int) -> Samples:
    """Visited points with every coordinate moved by a third of its spread."""
    z = seen.points.z
    rows = torch.arange(n) % len(z)
    spread = z.std(0).nan_to_num()
    draw = drawn.draw("random", n, z.shape[1])
    return labelled(drawn.system, z[rows] + 0.3 * spread * draw, "random", drawn.seed, None)


def limits(drawn: Law, seen: Samples, n: int) -> Samples:
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
    return labelled(drawn.system, out, "limits", drawn.seed, None)


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
