"""Laws of a critic's loss, read off its own target y*: the output at which ∂L/∂output is 0, by row.

    y*(r + c) − y* = c    y*(v + c) − y* = γ (1 − d) c    y* moves with s′ alone    y* = r at ends

c = ½ max(1, |r|, |Q|). y* exists for squares, Huber, log-cosh, expectiles, weighted rows and twins;
for quantiles and the Q of all actions its differences do, which is enough for slopes. Calls with a
gradient are predictions, others bootstraps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    reordered,
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
        if given is not None:
            self.batch["terminated"] = self.flags.to(given.dtype).reshape(given.shape)

    def has(self, need: str) -> bool:
        made: Mapping[str, Callable[[], object]] = {
            "ends": lambda: "terminated" in self.columns,
            "reward": lambda: "reward" in self.columns and self.kind == "critic",
            "bootstrap": lambda: self.bootstraps,
            "prediction": lambda: self.predictions and not self.repeated,
            "discount": lambda: self.declared.discount is not None or "discount" in self.columns,
            "level": lambda: self.scalar,
            "target": lambda: self.roles["target"],
            "target_actor": lambda: self.roles["target_actor"],
            "several": lambda: len(self.bootstraps) > 1,
        }
        return bool(made[need]()) if need in made else super().has(need)

    @cached_property
    def predictions(self) -> list[Key]:
        return [
            key
            for key, call in self.first[1].items()
            if key[0] in self.roles["critic"] and not call.logits and call.by_row.abs().max() > 0
        ]

    @cached_property
    def repeated(self) -> bool:
        """A critic is fitted at several actions, as by a conservative term: more than twice, or
        again with a slope that does not move with its first value, as that of its own target
        would."""
        firsts = list(self.again.values())
        if not firsts or len(firsts) > len(set(firsts)):
            return bool(firsts)
        c = self.size * torch.ones_like(self.flags, dtype=self.dtype)
        moved = self.slopes(add=dict.fromkeys(self.again.values(), c))[1]
        return any(torch.equal(moved[k].by_row, self.first[1][k].by_row) for k in self.again)

    @cached_property
    def again(self) -> dict[Key, Key]:
        """Predictions of a critic that has predicted before, with the first."""
        first: dict[tuple[str, int], Key] = {}
        pairs = [(key, first.setdefault((key[0], key[2]), key)) for key in self.predictions]
        return {key: earlier for key, earlier in pairs if key != earlier}

    @cached_property
    def live(self) -> Tensor:
        """Rows that move the loss, [B]; a mask may leave some out."""
        more = self.slopes(
            add={k: torch.full_like(self.flags, 1).to(self.dtype) for k in self.predictions}
        )[1]
        found = [
            (self.first[1][key].by_row != 0) | (more[key].by_row != 0) for key in self.predictions
        ]
        return torch.stack(found).all(0) if found else torch.ones_like(self.flags)

    @cached_property
    def ends(self) -> Tensor:
        """Of the live rows, those that end."""
        return self.flags[self.live]

    def column(self, name: str) -> Tensor:
        """A column of numbers, of the live rows."""
        return self.batch[name].reshape(self.rows, -1)[self.live, 0].to(self.dtype)

    @cached_property
    def bootstraps(self) -> list[Key]:
        called = self.first[1]
        return [key for key in called if key[0] in self.valued and key not in self.predictions]

    @cached_property
    def scalar(self) -> bool:
        """A prediction is one number for each row."""
        return all(self.first[1][key].output is not None for key in self.predictions)

    @cached_property
    def size(self) -> float:
        """c."""
        outputs = [c.output.abs().max() for c in self.first[1].values() if c.output is not None]
        reward = self.columns.get("reward")
        rewards = [] if reward is None else [reward.abs().max()]
        return max(1.0, *(float(each) for each in (*outputs, *rewards))) / 2

    @cached_property
    def dtype(self) -> torch.dtype:
        return next(iter(self.first[1].values())).leaf.dtype

    @property
    def loose(self) -> float:
        return _EXACT[self.dtype]

    @cached_property
    def gamma(self) -> Tensor:
        if "discount" in self.columns:
            return self.column("discount")
        assert self.declared.discount is not None
        return torch.full_like(self.y[0], float(self.declared.discount))

    def solve(
        self,
        batch: Mapping[str, Tensor] | None = None,
        add: Mapping[Key, Tensor] | None = None,
    ) -> Tensor:
        """y* of every prediction in the live rows, [K, B]: a secant and two Newton steps, exact for
        squares, else bisection."""
        keys, outputs = self.predictions, torch.zeros(())

        def slope(x: Tensor) -> Tensor:
            nonlocal outputs
            _, calls = self.slopes(batch, {**(add or {}), **dict(zip(keys, x, strict=True))})
            known = [calls[key] for key in keys]
            outputs = torch.stack(
                [c.by_row * 0 if c.output is None else c.output for c in known]
            ).detach()
            return torch.stack([c.by_row for c in known])

        zero = torch.zeros_like(torch.stack([self.first[1][key].by_row for key in keys]))
        start, h = slope(zero), torch.full_like(zero, self.size)
        base, step = outputs, slope(h) - start
        curved = step.abs() > 0
        x = torch.where(curved, -start * h / step, zero)
        for _ in range(2):  # float32 loses digits where the error is far larger than h
            x = torch.where(curved, x - slope(x) * h / step, x)
        tight = 1e-3 if x.dtype == torch.float32 else 1e-8
        if x.isfinite().all() and bool(
            (slope(x).abs() <= tight * step.abs().max())[:, self.live].all()
        ):
            return (base + x)[:, self.live]
        low, high = -h, h
        for _ in range(30):
            below, above = slope(low), slope(high)
            inside = below * above < 0
            if bool(inside[:, self.live].all()):
                break
            low, high = (torch.where(inside, end, 2 * end) for end in (low, high))
        size = torch.maximum(below.abs(), above.abs()).max()
        for _ in range(12 if x.dtype == torch.float64 else 7):
            for _ in range(4):
                middle = (low + high) / 2
                left = slope(middle) * above < 0
                low, high = torch.where(left, middle, low), torch.where(left, high, middle)
            x, near = (low + high) / 2, 1e-2 * self.size
            for _ in range(2):  # inside of Huber's square one such step is exact
                g = slope(x)
                x = torch.clamp(x - (g * near / (slope(x + near) - g)).nan_to_num(), low, high)
            if bool((slope(x).abs() <= tight / 10 * size)[:, self.live].all()):
                return (base + x)[:, self.live]
        return (base + (low + high) / 2)[:, self.live]

    @cached_property
    def y(self) -> Tensor:
        return self.solve()

    def by_column(self, column: str, rows: Tensor | None = None) -> Tensor:
        """(y*(column + c) − y*) / c, where the column moves in all rows or in some."""
        x = self.batch[column]
        by = self.size * (torch.ones_like(self.flags) if rows is None else rows).to(self.dtype)
        return (self.solve(self.changed(**{column: x + rowwise(by, x).to(x)})) - self.y) / self.size

    def by_next(self, keys: Sequence[Key], c: float, rows: Tensor | None = None) -> Tensor:
        """(y*(v + c) − y*) / c of the bootstraps of these keys."""
        by = c * (torch.ones_like(self.flags) if rows is None else rows).to(self.dtype)
        return (self.solve(add=dict.fromkeys(keys, by)) - self.y) / c

    @cached_property
    def by_reward(self) -> Tensor:
        return self.by_column("reward")

    @cached_property
    def by_value(self) -> Tensor:
        return self.by_next(self.bootstraps, self.size)

    @cached_property
    def mixing(self) -> bool:
        """Batch statistics are in training mode."""
        return any(
            isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
            for module in self.modules.values()
            for part in module.modules()
        )

    @cached_property
    def targeted(self) -> bool:
        """What the loss sends to critics moves with rewards, targets or next values."""
        names = ("reward", "return", "target")
        given = {name: self.batch[name] + self.size for name in names if name in self.columns}
        moves = self.slopes(
            self.changed(**given),
            {k: self.size * torch.ones_like(self.flags, dtype=self.dtype) for k in self.bootstraps},
        )[1]
        return any(
            not torch.equal(self.first[1][k].slope, moves[k].slope) for k in self.predictions
        )

    def spread(self, x: Tensor) -> float:
        """The largest of |x|, in units of c."""
        return float(x.abs().max()) / self.size if x.numel() else 0.0


def _precise(loss: CriticLoss) -> Answer:
    """Outputs are float32 or float64."""
    return PASS if not loss.first[1] or loss.dtype in _EXACT else undecided("half", str(loss.dtype))


def _predicts(loss: CriticLoss) -> Answer:
    """Every critic's output moves the loss."""
    called = loss.first[1].values()
    if logits := {call.key[0] for call in called if call.logits}:
        return undecided("logits", ", ".join(logits))
    used = {key[0] for key in loss.predictions}
    if loss.roles["critic"].keys().isdisjoint(call.key[0] for call in called):
        return undecided("silent", ", ".join(loss.roles["critic"]))
    never = [name for name in loss.roles["critic"] if name not in used]
    return fail("unused", ", ".join(never)) if never else PASS


def _detached(loss: CriticLoss) -> Answer:
    """No gradient but in the critics that predict."""
    value, _ = loss()
    for name, module in loss.modules.items():
        trained = [p for p in module.parameters() if p.requires_grad]
        own = {id(p) for each in loss.roles["critic"].values() for p in each.parameters()}
        apart = [p for p in trained if id(p) not in own]
        if name not in loss.roles["critic"] and bool(
            loss.gradient(value, apart).any() if apart else 0
        ):
            return fail("target", name)
    if loss.predictions and not loss.has("prediction"):
        return undecided("terms")
    # An online network that is its own target: its second call pulls the other way.
    called = loss.first[1]
    twice = [
        key[0]
        for key, first in loss.again.items()
        if bool((called[key].by_row * called[first].by_row < 0).any())
    ]
    return fail("own", ", ".join(twice)) if twice else PASS


def _rows(loss: CriticLoss) -> Answer:
    """Moved in half of the rows, r and v move no y* of the others."""
    half = torch.arange(loss.rows, device=loss.flags.device) % 2 == 0
    others = ~half[loss.live]
    names = ("reward",) if loss.kind == "critic" else ("reward", "return", "target")
    found = [(name, loss.by_column(name, half)) for name in names if name in loss.columns]
    if loss.bootstraps:  # both ways, and far: a least over rows may move with one alone
        found += [("next value", loss.by_next(loss.bootstraps, way * loss.size, half))
                  for way in (8, -8)]  # fmt: skip
    worst = max(((float(x[:, others].abs().max()), name) for name, x in found), default=(0.0, ""))
    return held(worst[0], loss.loose, "mixed", worst[1])


def _descends(loss: CriticLoss) -> Answer:
    """∂L/∂Q has the sign of Q − y*."""
    wrong = 0.0
    for way in (0.25, -0.25):
        _, calls = loss.slopes(add=_at_target(loss, way * loss.size))
        wrong = max(
            wrong,
            *(
                float((calls[key].by_row * way <= 0)[loss.live].double().mean())
                for key in loss.predictions
            ),
        )
    return held(wrong, 0, "rises")


def _at_target(loss: CriticLoss, by: float) -> dict[Key, Tensor]:
    """Offsets that put every prediction beside its target."""
    found = {}
    for key, y in zip(loss.predictions, loss.y, strict=True):
        output, whole = loss.first[1][key].output, torch.zeros_like(loss.flags, dtype=loss.dtype)
        whole[loss.live] = y + by
        found[key] = whole if output is None else whole - output
    return found


def _weights(loss: CriticLoss) -> Answer:
    """As far from its target each row pulls alike, up to `weight`."""
    _, calls = loss.slopes(add=_at_target(loss, loss.size / 8))
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
    if _at_limits(loss, s, 1.0):
        return undecided("clipped")
    k = float(s.median())
    if float((s - k).abs().max()) > 10 * loose:
        return fail("uneven", value=off)
    if k > 1e-3:
        return PASS._replace(value=k)
    return fail("lost" if abs(k) < 1e-3 else "negated", value=k)


def _at_limits(loss: CriticLoss, s: Tensor, want: float, rows: Tensor | None = None) -> bool:
    """Targets that do not rise by `want` all end at one or two levels: they are clipped there."""
    y = loss.y if rows is None else loss.y[:, rows]
    ends = (y / loss.size + s)[(s - want).abs() > 10 * loss.loose]
    levels = {round(float(end), 3) for end in ends}
    return 0 < len(levels) <= 2 < ends.numel()


def _discount(loss: CriticLoss) -> Answer:
    """y* rises by γ with the next value."""
    s, gamma = loss.by_value, loss.gamma
    if loss.has("ends"):
        s, gamma = s[:, ~loss.ends], gamma[~loss.ends]
    off, k, g = float((s - gamma).abs().max()), float(s.median()), float(gamma.median())
    if off <= max(loss.loose, 1e-6):
        return PASS._replace(value=k, limit=g)
    if _at_limits(loss, s, g, ~loss.ends if loss.has("ends") else None):
        return undecided("clipped")
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
    for key, call in loss.first[1].items():
        size = call.slope.abs().max()
        if key[0] in loss.roles["critic"] and size > 0 and key in calls:
            change = (call.slope - calls[key].slope).movedim(call.row, 0)[loss.flags]
            changes.append(float(change.abs().max() / size))
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
    aside = ""
    for column in ("observation", "action"):
        x = loss.batch.get(column)
        if x is None or not x.is_floating_point():
            continue
        other = loss.changed(**{column: x.roll(1, 0) * 0.7 + 0.1})
        change = loss.spread(loss.solve(other) - loss.y)
        if change <= 2 * loss.loose:
            continue
        calls = loss.slopes(other)[1]
        if not any(_same_inputs(loss.first[1][key], calls[key]) for key in loss.bootstraps):
            return fail("here", column, change)
        aside = column  # a bonus in the loss, or Munchausen's
    if aside:
        return undecided("aside", aside)
    s2 = loss.batch["next_observation"]
    y = loss.solve(loss.changed(next_observation=s2.roll(1, 0) * 0.7 + 0.1))
    return PASS if loss.spread((y - loss.y)[:, ~loss.ends]) > 1e-7 else fail("still")


def _same_inputs(one: Call, other: Call) -> bool:
    pairs = zip(one.inputs, other.inputs, strict=True)
    return bool(one.inputs) and all(torch.equal(x, y) for x, y in pairs)


def _used(role: str) -> Callable[[CriticLoss], Answer]:
    def used(loss: CriticLoss) -> Answer:
        called = {key[0] for key in loss.first[1]}
        unused = loss.roles[role].keys().isdisjoint(called)  # REDQ draws some of them
        return fail("unused", ", ".join(loss.roles[role])) if unused else PASS

    used.__doc__ = f"A {role} that is declared is called."
    return used


def _level(loss: CriticLoss) -> Answer:
    """y* = r at ends; elsewhere (y* − r) / γ lies between the least and the largest bootstrap."""
    loose = 2 * loss.loose
    r = loss.column("reward") * loss.by_reward.median().clamp_min(0)
    if float(loss.by_reward.max() - loss.by_reward.min()) > 10 * loss.loose:
        return undecided("uneven")
    at = (loss.y - r)[:, loss.ends]
    if loss.spread(at) > loose:
        if loss.spread(at - at.mean()) < loose:
            return undecided("shifted", value=float(at.mean()))
        return held(loss.spread(at), loose, "ends")
    known = [loss.first[1][key].output for key in loss.bootstraps]
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
    far, going = 50 * loss.size, ~loss.ends
    up, down = (
        torch.stack([
            (loss.by_next([key], way * far)[:, going] / loss.gamma[going]).median()
            for key in loss.bootstraps
        ])
        for way in (1, -1)
    )  # fmt: skip
    return fail("largest") if up.min() > 0.9 and down.max() < 0.1 else PASS


def _inputs(loss: CriticLoss) -> Answer:
    """Critic and target are given the rows' own inputs, in one scale."""
    for keys, column in (
        (loss.predictions, "observation"),
        (loss.predictions, "action"),
        (loss.bootstraps, "next_observation"),
    ):
        x = loss.batch.get(column)
        seen = [] if x is None else [i for key in keys for i in _inputs_of(loss, key, x)]
        if x is not None and seen and all(reordered(each, x) for each in seen):
            return fail("other_row", column)
    scales = []
    for keys, column in ((loss.predictions, "observation"), (loss.bootstraps, "next_observation")):
        x = loss.batch[column].double()
        given = next((i.double() for k in keys for i in _inputs_of(loss, k, x)), None)
        if given is None:
            return Answer("skipped", "other")
        a, b = x - x.mean(0), given - given.mean(0)
        k = (a * b).sum(0) / (a * a).sum(0).clamp_min(1e-30)
        if float((b - k * a).norm() / b.norm().clamp_min(1e-30)) > 1e-3:
            return Answer("skipped", "other")
        scales.append((k, given.mean(0) - k * x.mean(0)))
    (k, shift), (k2, shift2) = scales
    off = max(float(((p - q).abs() / p.abs().clamp_min(0.1)).max())
              for p, q in ((k, k2), (shift, shift2)))  # fmt: skip
    return held(off, 0.01, "apart")


def _inputs_of(loss: CriticLoss, key: Key, like: Tensor) -> list[Tensor]:
    call: Call = loss.first[1][key]
    return [x for x in call.inputs if x.shape == like.shape]


def _next_action(loss: CriticLoss) -> Answer:
    """Next values are of actions within their limits."""
    a = loss.batch["action"]
    given = [
        x for key in loss.bootstraps for x in loss.first[1][key].inputs[1:] if x.shape == a.shape
    ]
    if not given or not a.is_floating_point():
        return undecided("no_action")
    limit = torch.as_tensor(loss.declared.action_limit).to(a)
    beyond = max(float((x.abs() > 1.001 * limit).double().mean()) for x in given)
    return held(beyond, 0.02, "beyond")


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
    Law("critic.targets", ("target",), _used("target"), whole=True),
    Law("critic.target_actors", ("target_actor",), _used("target_actor"), whole=True),
    Law("critic.next_value", (*_TD, "level", "next_observation"), _next_value),
    Law("critic.beyond", ("reward", "ends", "next_observation"), _beyond),
    Law("critic.level", (*_TD, "ends", "level", "discount"), _level),
    Law("critic.twins", ("prediction", "several", "discount"), _twins),
    Law("critic.descends", ("prediction",), _descends),
    Law("critic.weights", ("prediction", "level"), _weights),
    Law("critic.inputs", (*_TD, "bootstrap", "observation", "next_observation"), _inputs),
    Law("critic.next_action", ("reward", "bootstrap", "action", "action_limit"), _next_action),
)
