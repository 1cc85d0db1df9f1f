"""Laws of a critic's loss, read off its own target y*: the output at which ∂L/∂output is 0, by row.

    y*(r + c) − y* = c    y*(v + c) − y* = γ (1 − d) c    y* moves with s′ alone    y* = r at ends

c = ½ max(1, |r|, |Q|). y* exists for squares, Huber, log-cosh, expectiles, weighted rows and twins;
for quantiles its differences do, which is enough for slopes; of logits there is none. Calls whose
gradient moves with rewards, targets or next values are predictions, those without one bootstraps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.losses.asking import (
    PASS,
    SHARED,
    Answer,
    AskedLoss,
    Call,
    Declared,
    Key,
    Law,
    fail,
    held,
    moved,
    rowwise,
    undecided,
    untouched,
)

_EXACT = {torch.float32: 2e-3, torch.float64: 1e-6}  # error of a slope: c is half of |Q|
_E = 2.718281828459045


class CriticLoss(AskedLoss):
    """A critic's loss; `kind` "fit": a value fitted to targets that the batch gives."""

    def __init__(
        self, loss: Callable[..., Any], batch: Any, declared: Declared, kind: str = "critic"
    ) -> None:
        super().__init__(loss, batch, declared, "critic", "target", "actor", "target_actor")
        self.kind = kind
        self.valued = {*self.roles["critic"], *self.roles["target"]}
        given = self.columns.get("terminated")
        ends = torch.zeros(self.rows) if given is None else given
        self.flags = ends.reshape(self.rows, -1)[:, 0].bool()
        if not self.flags.any() or self.flags.all():  # laws of ends need both: every fourth ends
            self.flags = (torch.arange(self.rows) % 4 == 0).to(self.flags.device)
        if kind == "fit":
            self.rest_clip()
        if given is not None:
            self.batch["terminated"] = self.flags.to(given.dtype).reshape(given.shape)

    def has(self, need: str) -> bool:
        alone = "rows" not in self.declared.meant  # else no y* is that of its row
        made: Mapping[str, Callable[[], object]] = {
            "ends": lambda: "terminated" in self.columns,
            "reward": lambda: "reward" in self.columns and self.kind == "critic" and alone,
            "bootstrap": lambda: alone and self.bootstraps,
            "prediction": lambda: self.predictions and self.shifted,
            "discount": lambda: self.declared.discount is not None or "discount" in self.columns,
            "level": lambda: all(self.level(self.first[1][key]) is not None
                                 for key in self.predictions),
            "target": lambda: self.roles["target"] or self.roles["target_actor"],
            "several": lambda: len(self.bootstraps) > 1,
        }  # fmt: skip
        return bool(made[need]()) if need in made else super().has(need)

    def rising(self, keys: Sequence[Key], x: float | Tensor) -> dict[Key, Tensor]:
        """Offsets that raise calls by x."""
        return dict.fromkeys(keys, torch.zeros_like(self.flags, dtype=self.dtype) + x)

    @cached_property
    def shifted(self) -> bool:
        """Predictions feel a shift of their row: the slopes of logits cancel."""
        for call in (self.first[1][key] for key in self.predictions):
            g = call.slope
            if g.ndim - 1 > call.row and g.shape[-1] > 2:
                sums, sizes = float(g.sum(-1).abs().max()), float(g.abs().sum(-1).max())
                if sums < 1e-3 * sizes:
                    return False
        return True

    @cached_property
    def targeted(self) -> list[Key]:
        """Calls of critics whose gradient moves with rewards, targets or next values."""
        names = ("reward", "return", "target")
        called = self.first[1]
        if not self.sloped:
            return []
        given = {name: self.batch[name] + self.size for name in names if name in self.columns}
        c = self.size * torch.ones_like(self.flags, dtype=self.dtype)
        still = [k for k, call in called.items() if k[0] in self.valued and not call.slope.any()]
        moves = self.slopes(self.changed(**given), dict.fromkeys(still, c))[1]
        return [k for k in self.sloped if not torch.equal(called[k].slope, moves[k].slope)]

    @cached_property
    def sloped(self) -> list[Key]:
        """Calls of critics that have a gradient."""
        calls, own = self.first[1], self.roles["critic"]
        return [k for k, call in calls.items() if k[0] in own and bool(call.slope.any())]

    @cached_property
    def predictions(self) -> list[Key]:
        return self.targeted or self.sloped

    @cached_property
    def masks(self) -> dict[Key, Tensor]:
        """What the loss reads of a prediction; a row at its target has no gradient there."""
        more = self.slopes(add=self.rising(self.predictions, 1.0))[1]
        return {k: (self.first[1][k].slope != 0) | (more[k].slope != 0) for k in self.predictions}

    @cached_property
    def live(self) -> Tensor:
        """Rows that move the loss, [B]; a mask may leave some out."""
        found = [self.first[1][k].by_rows(mask).any(1) for k, mask in self.masks.items()]
        return torch.stack(found).all(0) if found else torch.ones_like(self.flags)

    def level(self, call: Call) -> Tensor | None:
        """The number of each row that the loss reads, [B]; None where it reads several."""
        if call.value is None:
            return None
        read = self.masks.get(call.key, torch.ones_like(call.value))
        one = bool((call.by_rows(read).sum(1) <= 1).all())
        return call.by_rows(call.value * read).sum(1) if one else None

    @cached_property
    def ends(self) -> Tensor:
        """Of the live rows, those that end."""
        return self.flags[self.live]

    def column(self, name: str) -> Tensor:
        """A column of numbers, of the live rows."""
        return self.batch[name].reshape(self.rows, -1)[self.live, 0].to(self.dtype)

    @cached_property
    def bootstraps(self) -> list[Key]:
        fitted = {*self.predictions, *self.sloped}
        return [k for k in self.first[1] if k[0] in self.valued and k not in fitted]

    @cached_property
    def size(self) -> float:
        """c."""
        called = self.first[1].values()
        numbers = [c.value.abs().max() for c in called if c.value is not None]
        reward = self.columns.get("reward")
        numbers += [] if reward is None else [reward.abs().max()]
        return max([1.0, *(float(each) for each in numbers)]) / 2

    @cached_property
    def dtype(self) -> torch.dtype:
        return next((c.leaf.dtype for c in self.first[1].values()), torch.get_default_dtype())

    @property
    def loose(self) -> float:
        return _EXACT[self.dtype]

    @cached_property
    def gamma(self) -> Tensor:
        if "discount" in self.columns:
            return self.column("discount")
        assert self.declared.discount is not None
        return torch.full_like(self.y[0], float(self.declared.discount))

    def _rooted(
        self,
        batch: Mapping[str, Tensor] | None = None,
        add: Mapping[Key, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Offsets [K, B] of predictions at which ∂L/∂output is 0, and y* there: Newton steps,
        exact for squares, else false position (Illinois: an end that stays twice counts half)."""
        keys, y = self.predictions, torch.zeros(())

        def slope(x: Tensor) -> Tensor:
            nonlocal y
            _, calls = self.slopes(batch, {**(add or {}), **dict(zip(keys, x, strict=True))})
            levels = [self.level(calls[key]) for key in keys]
            y = torch.stack(
                [row if v is None else v for v, row in zip(levels, x, strict=True)]
            ).detach()
            return torch.stack([calls[key].by_row for key in keys])

        def small(f: Tensor, size: Tensor) -> bool:
            return bool((f.abs() <= size)[:, self.live].all())

        x = torch.zeros_like(torch.stack([self.first[1][key].by_row for key in keys]))
        h, tight = torch.full_like(x, self.size), 1e-3 if x.dtype == torch.float32 else 1e-8
        step = slope(h) - slope(x)
        for _ in range(3):  # float32 loses digits where the error is far larger than h
            x = torch.where(step.abs() > 0, x - slope(x) * h / step, x)
        if x.isfinite().all() and small(slope(x), tight * step.abs()):
            return x, y
        low, high = -h, h
        for _ in range(30):  # outwards where the slope tells the side, else both ways
            below, above = slope(low), slope(high)
            tells = below != above
            inside = tells & (below.sign() * above.sign() <= 0)  # a flat end may be a clamp's
            if bool(inside[:, self.live].all()):
                break
            down = (below > 0) == (above > below)
            ends = (
                torch.where(tells & ~down, high, 2 * low),
                torch.where(tells & down, low, 2 * high),
            )
            low, high = torch.where(inside, low, ends[0]), torch.where(inside, high, ends[1])
        size, left = torch.maximum(below.abs(), above.abs()).max(), torch.zeros_like(inside)
        for k in range(80):
            before, x = x, (low * above - high * below) / (above - below)
            x = torch.where(x.isfinite() & (k % 4 < 3), x, (low + high) / 2)
            f = slope(x)
            if small(f, tight / 10 * size) and small(x - before, tight * h):
                break
            again = left if k else ~inside
            left = f * above > 0
            half = torch.where(again == left, 0.5, 1.0) if k else torch.ones_like(f)
            low, below = torch.where(left, low, x), torch.where(left, below * half, f)
            high, above = torch.where(left, x, high), torch.where(left, f, above * half)
        return x, y

    def solve(
        self,
        batch: Mapping[str, Tensor] | None = None,
        add: Mapping[Key, Tensor] | None = None,
    ) -> Tensor:
        """y* of every prediction in the live rows, [K, B]."""
        return self._rooted(batch, add)[1][:, self.live]

    @cached_property
    def _own(self) -> tuple[Tensor, Tensor]:
        return self._rooted()

    @cached_property
    def y(self) -> Tensor:
        return self._own[1][:, self.live]

    def beside(self, by: float) -> tuple[Tensor, dict[Key, Call]]:
        """Every prediction beside its target."""
        return self.slopes(add=dict(zip(self.predictions, self._own[0] + by, strict=True)))

    def by_column(self, column: str, rows: Tensor | None = None) -> Tensor:
        """(y*(column + c) − y*) / c, where the column moves in all rows or in some."""
        x = self.batch[column]
        by = self.size * (torch.ones_like(self.flags) if rows is None else rows).to(self.dtype)
        return (self.solve(self.changed(**{column: x + rowwise(by, x).to(x)})) - self.y) / self.size

    def by_next(self, keys: Sequence[Key], steps: float, rows: Tensor | None = None) -> Tensor:
        """(y*(v + x) − y*) / x of the bootstraps of these keys, x = steps · c."""
        at = (torch.ones_like(self.flags) if rows is None else rows).to(self.dtype)
        x = steps * self.size
        return (self.solve(add=self.rising(keys, x * at)) - self.y) / x

    @cached_property
    def by_reward(self) -> Tensor:
        return self.by_column("reward")

    @cached_property
    def by_value(self) -> Tensor:
        return self.by_next(self.bootstraps, 1.0)

    @cached_property
    def by_own(self) -> tuple[str, float, dict[Key, Call]]:
        """The column of (s, a) with which y* moves, or "", by how much, and the calls."""
        for column in ("observation", "action"):
            x = self.batch.get(column)
            if x is None or not x.is_floating_point():
                continue
            other = self.changed(**{column: x.roll(1, 0) * 0.7 + 0.1})
            change = self.spread(self.solve(other) - self.y)
            if change > 2 * self.loose:
                return column, change, self.slopes(other)[1]
        return "", 0.0, {}

    @cached_property
    def mixing(self) -> bool:
        """Batch statistics are in training mode."""
        return any(
            isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
            for module in self.modules.values()
            for part in module.modules()
        )

    def spread(self, x: Tensor) -> float:
        """The largest of |x|, in units of c."""
        return float(x.abs().max()) / self.size if x.numel() else 0.0


def _precise(loss: CriticLoss) -> Answer:
    """Outputs are float32 or float64."""
    return PASS if not loss.first[1] or loss.dtype in _EXACT else undecided("half", str(loss.dtype))


def _predicts(loss: CriticLoss) -> Answer:
    """Every critic's output moves the loss."""
    if loss.roles["critic"].keys().isdisjoint(key[0] for key in loss.first[1]):
        return undecided("silent", ", ".join(loss.roles["critic"]))
    used = {key[0] for key in loss.sloped}
    never = [name for name in loss.roles["critic"] if name not in used]
    return fail("unused", ", ".join(never)) if never else PASS


def _detached(loss: CriticLoss) -> Answer:
    """No gradient but in the critics that predict, or of a term apart from their errors."""
    value, there = loss()[0], loss(add=loss.rising(loss.predictions, loss.size))[0]
    own = {id(p) for each in loss.roles["critic"].values() for p in each.parameters()}
    for name, module in loss.modules.items():
        apart = [p for p in module.parameters() if p.requires_grad and id(p) not in own]
        if name in loss.roles["critic"] or not apart:
            continue
        if not torch.equal(loss.gradient(value, apart), loss.gradient(there, apart)):
            return fail("target", name)
    # An online network that is its own target: where it is called again moves its first error.
    first: dict[tuple[str, int], Key] = {}
    again = [k for k in loss.predictions if first.setdefault((k[0], k[2]), k) != k]
    if not again:
        return PASS
    moves = loss.slopes(add=loss.rising(again, loss.size))[1]
    same = {k: torch.equal(moves[f].slope, loss.first[1][f].slope)
            for k in again for f in [first[k[0], k[2]]]}  # fmt: skip
    twice = [k[0] for k in again if not same[k]]
    return fail("own", ", ".join(twice)) if twice else PASS


def _rows(loss: CriticLoss) -> Answer:
    """Moved in half of the rows, r and v move no y* of the others."""
    half = torch.arange(loss.rows, device=loss.flags.device) % 2 == 0
    others = ~half[loss.live]
    names = ("reward",) if loss.kind == "critic" else ("reward", "return", "target")
    found = [(name, loss.by_column(name, half)) for name in names if name in loss.columns]
    if loss.bootstraps:  # both ways, and far: a least over rows may move with one alone
        found += [("next value", loss.by_next(loss.bootstraps, way, half)) for way in (8, -8)]
    worst = max(((float(x[:, others].abs().max()), name) for name, x in found), default=(0.0, ""))
    return held(worst[0], loss.loose, "mixed", worst[1])


def _descends(loss: CriticLoss) -> Answer:
    """∂L/∂Q has the sign of Q − y*."""
    wrong = 0.0
    for way in (0.25, -0.25):
        _, calls = loss.beside(way * loss.size)
        shares = [(calls[key].by_row * way <= 0)[loss.live].double().mean()
                  for key in loss.predictions]  # fmt: skip
        wrong = max(wrong, *(float(share) for share in shares))
    return held(wrong, 0, "rises")


def _weights(loss: CriticLoss) -> Answer:
    """As far from its target each row pulls alike, up to `weight`."""
    _, calls = loss.beside(loss.size / 8)
    own = loss.column("weight") if "weight" in loss.columns else torch.ones_like(loss.y[0])
    share = torch.stack([calls[key].by_row[loss.live] / own for key in loss.predictions])
    if not bool(loss.live.all()) and "mask" not in loss.columns:
        return undecided("silent", value=float((~loss.live).double().mean()))
    spread = (share.amax(1) - share.amin(1)) / share.abs().mean(1)
    return held(spread.max(), 0.02, "uneven")


def _reward(loss: CriticLoss) -> Answer:
    """y* rises by 1 with the reward; by a constant k > 0 where it is scaled."""
    s, loose, at = loss.by_reward, loss.loose, loss.ends
    off = float((s - 1).abs().max())
    if off <= loose:
        return held(off, loose, "")
    flagged = loss.has("ends")
    if flagged and float((s[:, ~at] - 1).abs().max()) <= loose >= float(s[:, at].abs().max()):
        return fail("masked")
    k = float(s.median())
    if float((s - k).abs().max()) > 10 * loose:  # clipped or rescaled, as R2D2's, where it rises
        return fail("uneven", value=off) if float(s.min()) < -loose else undecided("bent")
    once = loss.has("discount") and float((s - loss.gamma).abs().max()) <= loose
    if once and float((loss.gamma - 1).abs().max()) > 3 * loose:
        return fail("discounted", value=k)
    if k > 1e-3:
        return PASS._replace(value=k)
    return fail("lost" if abs(k) < 1e-3 else "negated", value=k)


def _discount(loss: CriticLoss) -> Answer:
    """y* rises by γ with the next value."""
    s, gamma = loss.by_value, loss.gamma
    # Where ends are not known, rows that do not move have ended.
    going = ~loss.ends if loss.has("ends") else s.abs().amax(0) > loss.loose
    s, gamma = (s[:, going], gamma[going]) if bool(going.any()) else (s, gamma)
    off, k, g = float((s - gamma).abs().max()), float(s.median()), float(gamma.median())
    if off <= max(loss.loose, 1e-6):
        return PASS._replace(value=k, limit=g)
    if float(s.min()) >= -loss.loose and float((s - k).abs().max()) > 10 * loss.loose:
        return undecided("bent")  # clipped or rescaled
    names = {"left_out": 1.0, "squared": g**2, "unused": 0.0, "one_step": g**0.5}
    name = next((n for n, v in names.items() if abs(k - v) < 2e-3 < 4e-3 < abs(v - g)), "other")
    return Answer("fail", name, k, g)


def _mask(loss: CriticLoss) -> Answer:
    """y* of ended rows does not move with the next value."""
    at, going = loss.by_value[:, loss.ends].abs(), loss.by_value[:, ~loss.ends].abs()
    inverted = float(going.max()) < 0.01 < float(at.min())
    return held(at.max(), loss.loose, "inverted" if inverted else "left_out")


def _beyond(loss: CriticLoss) -> Answer:
    """Another s′ of ended rows changes nothing that the loss sends them; of C51, too."""
    if loss.mixing:
        return undecided("batch_norm")
    s2 = loss.batch["next_observation"]
    other = torch.where(rowwise(loss.flags, s2), s2.roll(1, 0) + 1, s2)
    calls = loss.slopes(loss.changed(next_observation=other))[1]
    changes = [0.0]
    for key in loss.predictions:
        call = loss.first[1][key]
        change = (call.slope - calls[key].slope).movedim(call.row, 0)[loss.flags]
        changes.append(float(change.abs().max() / call.slope.abs().max()))
    return held(max(changes), 1e-4, "moves")


def _time_limits(loss: CriticLoss) -> Answer:
    """y* does not move with `truncated`."""
    flag = loss.batch["truncated"]
    other = 1 - flag if flag.is_floating_point() else ~flag.bool()
    y = loss.solve(loss.changed(truncated=other.to(flag.dtype)))
    return held(loss.spread(y - loss.y), loss.loose, "moves")


def _next_value(loss: CriticLoss) -> Answer:
    """y* moves with s′, and with nothing of (s, a)."""
    both = {key[0] for key in loss.bootstraps} & {key[0] for key in loss.predictions}
    if loss.mixing and both:
        return undecided("batch_norm")
    column, change, calls = loss.by_own
    if column:
        here = not any(_same_inputs(loss.first[1][key], calls[key]) for key in loss.bootstraps)
        return fail("here", column, change) if here else undecided("aside", column)
    s2 = loss.batch["next_observation"]
    y = loss.solve(loss.changed(next_observation=s2.roll(1, 0) * 0.7 + 0.1))
    return PASS if loss.spread((y - loss.y)[:, ~loss.ends]) > 1e-7 else fail("still")


def _same_inputs(one: Call, other: Call) -> bool:
    pairs = zip(one.inputs, other.inputs, strict=True)
    return bool(one.inputs) and all(torch.equal(x, y) for x, y in pairs)


def _unused(loss: CriticLoss, role: str) -> bool:
    """A role is not called, nor does the loss move with its parameters, as by another method."""
    if not loss.roles[role].keys().isdisjoint(key[0] for key in loss.first[1]):
        return False
    with ExitStack() as stack:
        for p in {p for module in loss.roles[role].values() for p in module.parameters()}:
            stack.enter_context(moved(p, torch.linspace(-1, 1, p.numel()).to(p).reshape(p.shape)))
        return torch.equal(loss()[0].detach(), loss.first[0])


def _targets(loss: CriticLoss) -> Answer:
    """The loss moves with declared targets, and y* with their values where it moves with any."""
    for role in ("target", "target_actor"):
        if loss.roles[role] and _unused(loss, role):
            return fail("unused", ", ".join(loss.roles[role]))
    names = ", ".join(loss.roles["target"])  # REDQ draws some of them
    called = [key for key in loss.bootstraps if key[0] in loss.roles["target"]]
    if not called or len(called) == len(loss.bootstraps) or not loss.has("prediction"):
        return PASS
    moves = float(loss.by_next(called, 1.0).abs().max())
    return fail("aside", names) if moves < 1e-6 < float(loss.by_value.abs().max()) else PASS


def _level(loss: CriticLoss) -> Answer:
    """y* = r at ends; elsewhere (y* − r) / γ lies between the least and the largest bootstrap."""
    loose = 2 * loss.loose
    r = loss.column("reward") * loss.by_reward.median().clamp_min(0)
    if float(loss.by_reward.max() - loss.by_reward.min()) > 10 * loss.loose:
        return undecided("elsewhere")
    at = (loss.y - r)[:, loss.ends]
    if loss.spread(at) > loose:
        beside = len(loss.sloped) > len(loss.predictions)  # a conservative term
        same = loss.spread(at - at.mean(1, keepdim=True)) < loose  # normalised values
        if beside or same or loss.by_own[0]:
            return undecided("elsewhere", value=loss.spread(at))
        return held(loss.spread(at), loose, "ends")
    known = [loss.level(loss.first[1][key]) for key in loss.bootstraps]
    outputs = [output for output in known if output is not None]
    if loss.declared.temperature is not None or not outputs or len(outputs) < len(known):
        return PASS
    v = (loss.y - r)[:, ~loss.ends] / loss.gamma[~loss.ends]
    values = torch.stack(outputs)[:, loss.live][:, ~loss.ends]
    beyond = torch.maximum(values.amin(0) - v, v - values.amax(0)).clamp_min(0)
    return (
        undecided("elsewhere", value=loss.spread(beyond)) if loss.spread(beyond) > loose else PASS
    )


def _twins(loss: CriticLoss) -> Answer:
    """Of several next values the largest does not count."""
    going = ~loss.ends
    up, down = (
        torch.stack([
            (loss.by_next([key], way)[:, going] / loss.gamma[going]).median()
            for key in loss.bootstraps
        ])
        for way in (50, -50)
    )  # fmt: skip
    return fail("largest") if up.min() > 0.9 and down.max() < 0.1 else PASS


def _entropy(loss: CriticLoss) -> Answer:
    """∂y*/∂log α = −γ (1 − d) α log π."""
    temperature, loose = loss.declared.temperature, 2 * loss.loose
    assert temperature is not None
    y = loss.y
    with moved(temperature, 1.0):
        s = loss.solve() - y
    going = ~loss.ends
    if loss.has("ends") and loss.spread(s[:, loss.ends]) > loose:
        return held(loss.spread(s[:, loss.ends]), loose, "ends")
    if loss.spread(s[:, going]) < 1e-6:
        return fail("left_out")
    with moved(temperature, 2.0):  # α, in the place of which log α would rise evenly
        further = loss.solve() - y
    if (rise := loss.spread(further[:, going]) / loss.spread(s[:, going])) < 2.2:
        return fail("log", value=rise)
    if loss.declared.draw is None:
        return PASS
    with torch.no_grad(), untouched(loss.modules.values(), loss.declared.seed):
        log_pi = loss.declared.draw(loss.batch["next_observation"])[1]
    log_pi = log_pi.reshape(loss.rows, -1).sum(1)[loss.live][going].to(loss.dtype)
    alpha = float(temperature.detach().exp())
    want, got = -loss.gamma[going] * alpha * (_E - 1) * log_pi, s[0, going]
    ratio = float((got * want).sum() / (want * want).sum())
    if float((got - ratio * want).norm() / got.norm()) > 0.05:
        return undecided("draws")
    return held(abs(ratio - 1), 0.02, "negated" if ratio < 0 else "size")._replace(value=ratio)


_TD = ("reward", "prediction")
CRITIC = (
    *SHARED,
    Law("critic.precision", (), _precise, stops=True, whole=True),
    Law("critic.predictions", ("critic",), _predicts, whole=True),
    Law("critic.detached", (), _detached),
    Law("critic.rows", ("prediction",), _rows),
    Law("critic.time_limits", ("prediction", "truncated"), _time_limits),
    Law("critic.mask", (*_TD, "ends", "bootstrap"), _mask),
    Law("critic.reward", _TD, _reward),
    Law("critic.entropy", ("prediction", "temperature"), _entropy),
    Law("critic.discount", ("prediction", "bootstrap", "discount"), _discount),
    Law("critic.targets", ("target",), _targets, whole=True),
    Law("critic.next_value", (*_TD, "level", "next_observation"), _next_value),
    Law("critic.beyond", ("reward", "ends", "next_observation"), _beyond),
    Law("critic.level", (*_TD, "ends", "level", "discount"), _level),
    Law("critic.twins", ("prediction", "several", "discount"), _twins),
    Law("critic.descends", ("prediction",), _descends),
    Law("critic.weights", ("prediction", "level"), _weights),
)
