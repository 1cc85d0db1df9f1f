"""Laws of a policy's loss on recorded actions, and of generalised advantages.

    ∂L/∂θ = −Σ w_i ∇ log π_i + what does not move with A        w is affine in the advantages A
    ∂L/∂ log π_old,i ∝ +A_i, and 0 where PPO clips

On at most 24 rows, A is drawn anew, log π_old is log π, and values are the returns (a value clip is
inactive there). Advantages are linear in rewards and values, so that unit vectors say all:

    ∂A_t/∂r_u = (γλ)^(u−t)        ∂A_t/∂V_u = γ (γλ)^(u−1−t) − (γλ)^(u−t)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.losses.asking import (
    PASS,
    SHARED,
    Answer,
    AskedLoss,
    Declared,
    Law,
    fail,
    held,
    rowwise,
    undecided,
    untouched,
)
from gradlab.losses.critic import CriticLoss
from gradlab.user_code import graph_nodes, running

_ROWS = 24
_STILL = 1e-9  # of a derivative that is none


class PolicyLoss(AskedLoss):
    """A loss of recorded actions with the columns advantage and, of PPO, old_log_prob, value,
    return; `actor` has the policy's parameters."""

    def __init__(self, loss: Callable[..., Any], batch: Any, declared: Declared) -> None:
        super().__init__(loss, batch, declared, "actor", "critic")
        if declared.log_prob is None:
            return
        self.columns = {k: x[:_ROWS] if len(x) == self.rows else x for k, x in self.columns.items()}
        self.rows = min(self.rows, _ROWS)
        self.batch = dict(self.columns)
        if "advantage" in self.columns:
            like = self.columns["advantage"]
            a = torch.randn(like.shape, generator=torch.Generator().manual_seed(declared.seed))
            self.batch["advantage"] = (a - a.mean()).to(like)
        with torch.no_grad():
            self.now = self.log_probs()
        if "old_log_prob" in self.columns:
            old = self.columns["old_log_prob"]
            if old.numel() != self.now.numel():
                shape, wanted = list(self.now.shape), list(old.shape)
                raise InputError(f"log_prob returns {shape}, expected {wanted} of old_log_prob")
            self.batch["old_log_prob"] = self.now.reshape(old.shape)
        self.rest_clip()

    def has(self, need: str) -> bool:
        if need == "actor":
            return bool(self.parameters)
        if need == "bonus":
            return self.declared.entropy is not None and not self.declared.monotone
        return super().has(need)

    @cached_property
    def parameters(self) -> list[Tensor]:
        """Those of the actor, else what log π is made of."""
        found = [p for m in self.roles["actor"].values() for p in m.parameters()]
        if not found:
            nodes = graph_nodes(self.log_probs())
            found = [each.variable for each in nodes if hasattr(each, "variable")]
        return [p for p in dict.fromkeys(found) if p.requires_grad]

    def log_probs(self) -> Tensor:
        """log π of the rows, or of their tokens [B, T], in the graph."""
        assert self.declared.log_prob is not None
        with untouched(self.modules.values(), self.declared.seed), running("log_prob"):
            found = self.declared.log_prob(self.rebuilt(self.batch))
        if not isinstance(found, Tensor) or found.shape[:1] != (self.rows,):
            wanted = f"[{self.rows}], one for each row, or [{self.rows}, T]"
            raise InputError(f"log_prob returns {validation.shown(found)}, expected {wanted}")
        return found

    def slope(self, **columns: Tensor) -> Tensor:
        """∂L/∂θ."""
        return self.gradient(self(self.changed(**columns))[0], self.parameters)

    def counted(self, x: Tensor) -> Tensor:
        """Without what a mask leaves out."""
        mask = self.columns.get("mask")
        return x if mask is None else x[self.beside(mask) > 0]

    def beside(self, column: Tensor) -> Tensor:
        """A column of rows or tokens beside log π, flat."""
        if column.numel() == self.now.numel():
            return column.flatten()
        return rowwise(column.reshape(self.rows, -1)[:, 0], self.now).expand_as(self.now).flatten()

    @property
    def advantage(self) -> Tensor:
        return self.beside(self.batch["advantage"])

    @cached_property
    def weights(self) -> tuple[Tensor | None, float]:
        """w [B], and the share of the gradient that is no Σ w ∇ log π; None where the rows' ∇ log π
        depend on each other. Of A and −A, so that what does not move with A cancels."""
        logs = self.log_probs().flatten()
        rows = torch.stack([self.gradient(x, self.parameters) for x in logs])
        g = (self.slope() - self.slope(advantage=-self.batch["advantage"])) / 2
        gram = rows @ rows.T
        size = gram.diagonal().mean()
        if float(torch.linalg.eigvalsh(gram)[0] / size) < 1e-7:
            return None, 0.0
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        w = -torch.linalg.solve(gram + 1e-12 * size * eye, rows @ g)
        return w * len(w), float((g + w @ rows).norm() / g.norm().clamp_min(1e-300))

    def by_old(self, log_ratio: float = 0.0) -> Tensor:
        """∂(L − L without advantages)/∂ log π_old of every row, times B, where log π − log π_old
        is `log_ratio`; a KL penalty is in both."""
        like = self.columns["old_log_prob"]
        old = (self.now - log_ratio).detach().to(like).reshape(like.shape).requires_grad_(True)
        none = torch.zeros_like(self.batch["advantage"])
        value = self(self.changed(old_log_prob=old))[0]
        value = value - self(self.changed(old_log_prob=old, advantage=none))[0]
        found = torch.autograd.grad(value, old, allow_unused=True)[0]
        return (
            torch.zeros_like(self.now.flatten()) if found is None else found.flatten() * self.rows
        )


def _correlation(x: Tensor, y: Tensor) -> float:
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    return float((x * y).sum() / (x.norm() * y.norm()).clamp_min(1e-300))


def _in_order(w: Tensor, a: Tensor) -> float:
    """Of pairs whose weights differ the share that is in order, less the rest."""
    dw = w[:, None] - w[None]
    apart = dw.abs() > 1e-3 * dw.abs().max()
    return float((torch.sign(dw) * torch.sign(a[:, None] - a[None]))[apart].double().mean())


def _weights(loss: PolicyLoss) -> Answer:
    """Rows are weighed by their advantages, or rise with them where it is declared."""
    w, rest = loss.weights
    if w is None:
        if "old_log_prob" not in loss.columns:
            return undecided("alike")
        w = loss.by_old().double()
        if float(w.abs().max()) == 0:
            return undecided("alike")
    a, w = loss.counted(loss.advantage), loss.counted(w)
    if w.abs().max() < _STILL:
        return fail("still")
    monotone = loss.declared.monotone
    r = _in_order(w, a) if monotone else _correlation(w, a)
    if 1 - r <= (0.02 if monotone else 1e-3):
        return PASS._replace(value=r)
    if r < -0.99:
        return fail("negated", value=r)
    shift = max((_correlation(w.roll(k), a), k) for k in (1, -1, 2, -2))
    if shift[0] > 0.99:
        return fail("other_row", value=float(shift[1]))
    far = a.abs() > 0.2 * a.abs().mean()
    if bool((w * a > 0)[far].all()):  # GRPO: tokens of long completions count less
        return undecided("uneven", value=r)
    # Ranks alone: an advantage that is clipped, squashed or exponentiated on purpose.
    if _in_order(w, a) > 0.98 and rest < 0.02:
        return undecided("bent", value=r)
    return fail("apart", value=r)


def _ratio(loss: PolicyLoss) -> Answer:
    """∂L/∂ log π_old = A: there is a ratio, which can be clipped."""
    g = loss.by_old()
    if float(g.abs().max()) == 0:
        old = loss.batch["old_log_prob"]
        sign = torch.sign(loss.batch["advantage"].reshape(old.shape))
        change = (loss.slope(old_log_prob=old + 0.3 * sign) - loss.slope()).norm()
        if float(change) > _STILL:
            return PASS  # a detached ratio: V-trace
        return undecided("unused") if loss.declared.clip is None else fail("anew")
    g, a = loss.counted(g), loss.counted(loss.advantage)
    r = _correlation(g, a)
    if bool((g * a > 0)[a.abs() > 0.2 * a.abs().mean()].all()):
        return PASS._replace(value=r)
    return held(1 - r, 1e-3, "negated" if r < -0.99 else "apart")._replace(value=r)


def _clip(loss: PolicyLoss) -> Answer:
    """Beyond the clip a row moves nothing where its step was for the better; else it does."""
    if not bool(loss.by_old().any()):
        return Answer("skipped", "detached")
    size = 2 * float(loss.declared.clip or 0)
    a, shares = loss.counted(loss.advantage), {}
    for above, ratio in ((True, 1 + size), (False, 1 - min(size, 0.9))):
        g = loss.counted(loss.by_old(float(torch.tensor(ratio).log())).abs())
        for better in (True, False):
            moves = g[(a > 0) == better] > _STILL
            shares[above, better] = float(moves.double().mean())
    # A third, because advantages that are normalised in the loss change sign in a few rows.
    wrong = [k for k, share in shares.items() if abs(share - float(k[0] != k[1])) > 0.34]
    if all(share > 0.6 for share in shares.values()):
        return fail("unclipped")
    wide = len(wrong) == 4 or shares[True, False] < 0.4
    return held(len(wrong), 0, "other_side" if wide else "elsewhere")


def _bonus(loss: PolicyLoss) -> Answer:
    """Without advantages the loss does not lower the entropy."""
    assert loss.declared.entropy is not None
    shared = {id(p) for m in loss.roles["critic"].values() for p in m.parameters()}
    own = [p for p in loss.parameters if id(p) not in shared]
    if not own or ("return" in loss.columns and not shared):
        return undecided("value")
    g = loss.gradient(
        loss(loss.changed(advantage=torch.zeros_like(loss.batch["advantage"])))[0], own
    )
    with untouched(loss.modules.values(), loss.declared.seed), running("entropy"):
        h = loss.gradient(loss.declared.entropy(loss.rebuilt(loss.batch)).mean(), own)
    if float(g.norm()) < 1e-12:
        return PASS
    return held(float(g @ h / (g.norm() * h.norm()).clamp_min(1e-300)), 0.1, "negated")


def _values(loss: PolicyLoss) -> Answer:
    """The value's own target is the return of its row."""
    fitted = CriticLoss(loss.loss, loss.rebuilt(loss.batch), loss.declared, "fit")
    fitted.roles = {**fitted.roles, "actor": {}, "target": {}, "target_actor": {}}
    fitted.modules = fitted.roles["critic"]
    if not fitted.first[1]:
        return Answer("skipped", "silent")
    if not fitted.predictions:
        return fail("unused")
    kept = loss.counted(torch.arange(loss.rows, device=loss.now.device))
    half = kept[kept % 2 == 0]
    returns = loss.columns["return"]
    if returns.numel() != loss.rows or not fitted.shifted:
        return Answer("skipped", "tokens")
    odd = rowwise(torch.arange(loss.rows, device=returns.device) % 2 == 1, returns)
    other = returns + 9 * odd.to(returns)
    moved = {"return": other} | ({"value": other} if "value" in loss.columns else {})
    at = torch.zeros(loss.rows, dtype=torch.bool, device=half.device)
    at[half] = True
    change = fitted.solve(fitted.changed(**moved)) - fitted.y
    mixed = fitted.spread(change[:, at[fitted.live]])
    if mixed > 2e-3:
        return fail("mixed", value=mixed)
    flat = fitted.column("return")
    off = fitted.y - flat
    if fitted.spread(off) <= 4e-3:
        return PASS
    k = _correlation(fitted.y[0], flat)  # normalised returns stand in a line
    return undecided("scaled") if k > 0.999 else fail("apart", value=fitted.spread(off))


POLICY = (
    *SHARED,
    Law("policy.weights", ("actor", "log_prob", "advantage"), _weights),
    Law("policy.ratio", ("actor", "log_prob", "advantage", "old_log_prob"), _ratio),
    Law("policy.clip", ("actor", "log_prob", "advantage", "old_log_prob", "clip"), _clip),
    Law("policy.bonus", ("actor", "log_prob", "advantage", "bonus"), _bonus),
    Law("policy.value", ("critic", "log_prob", "return"), _values),
)

_STEPS, _ENVIRONMENTS = 12, 2  # where the batch has none
_EXACT = 1e-5


_NAMES = ("reward", "value", "ended", "last_value", "final_value", "terminated")


class Advantages:
    """gae(reward, value, ended, last_value, final_value) → advantages [T, E]; `final_value` is V of
    the last observation where a limit has cut an episode, else 0. It may take one dict of these
    by name, where `terminated` is `ended`, too, and whose last values are not looked at."""

    term = ""

    def __init__(self, gae: Callable[..., Any], declared: Declared, batch: Any = None) -> None:
        validation.function("loss", gae, "(reward, value, ended, last_value, final_value)")
        self.declared, self.named = declared, _takes_one(gae)
        self.gae = gae
        if self.named:
            self.gae = lambda *given: gae(dict(zip(_NAMES, (*given, given[2]), strict=True)))
        of = batch.get("reward") if isinstance(batch, Mapping) else None
        self.shape: tuple[int, ...] = (_STEPS, _ENVIRONMENTS)
        if isinstance(of, Tensor) and of.ndim == 2 and len(of) > 3:
            self.shape = tuple(of.shape)
        T = self.shape[0]
        self.ends, self.begin = (T // 3, 2 * T // 3), (0,)
        # Each step asked is a call of T steps: of a long batch as many as of a short one, and all
        # beside ends.
        spread = {k * (T - 1) // (_STEPS - 1) for k in range(_STEPS)}
        beside = {end + k for end in self.ends for k in (-1, 0, 1)}
        self.every = tuple(sorted(spread | beside))

    def has(self, need: str) -> bool:
        if need == "columns":
            return not self.named
        return getattr(self.declared, need, None) is not None

    def prepared(self) -> nullcontext[None]:
        return nullcontext()

    def at(
        self, gae: Callable[..., Any], *columns: str, step: int = 0, ends: bool = False
    ) -> Tensor:
        """The advantages [T, E] of zeros but for ones of these columns, at a step in the first
        environment; of `last_value` in all."""
        zeros = {n: torch.zeros(self.shape, dtype=torch.float64)
                 for n in ("reward", "value", "ended", "final_value")}  # fmt: skip
        last = torch.full(self.shape[1:], float("last_value" in columns), dtype=torch.float64)
        if ends:
            zeros["ended"][list(self.ends)] = 1
        for name in zeros.keys() & {*columns}:
            zeros[name][step, 0] = 1
        given = [zeros["reward"], zeros["value"], zeros["ended"], last, zeros["final_value"]]
        with running("gae"), torch.no_grad():
            found = gae(*given)
        found = found[0] if isinstance(found, tuple) else found
        if not isinstance(found, Tensor) or found.shape != self.shape:
            raise InputError(
                f"gae returns {validation.shown(found)}, expected advantages {list(self.shape)}"
            )
        return found

    def exact(self, fault: str = "") -> Callable[..., Tensor]:
        """Schulman 1506.02438, or with a fault."""
        g, trace = float(self.declared.discount or 0), float(self.declared.trace or 0)
        g, trace = (trace, g) if fault == "swapped" else (g, trace)

        def gae(
            reward: Tensor, value: Tensor, ended: Tensor, last: Tensor, final: Tensor
        ) -> Tensor:
            ended = ended.roll({"late": 1, "early": -1}.get(fault, 0), 0)
            going = 1 - (0 * ended if fault == "left_out" else ended)
            reward = -reward if fault == "negated" else reward
            found, sums = torch.zeros_like(reward), torch.zeros_like(last)
            for t in reversed(range(len(value))):
                following = value[t + 1] if t + 1 < len(value) else last
                sums = g * trace * going[t] * sums + reward[t] - value[t]
                sums = sums + g * (going[t] * following + final[t])
                found[t] = sums
            return found

        return gae


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        return len(inspect.signature(function).parameters) == 1
    except (TypeError, ValueError):  # of a built-in there is no signature
        return False


def _exactly(
    columns: tuple[str, ...],
    at: Literal["every", "ends", "begin"],
    names: tuple[str, ...],
    ends: bool = False,
) -> Callable[[Advantages], Answer]:
    """Advantages move with these columns, at these steps, as they should; else the first of the
    faults that moves them so is named, or the last name."""

    def test(gae: Advantages) -> Answer:
        def moves(f: Callable[..., Any]) -> Tensor:
            steps = getattr(gae, at)
            return torch.stack([gae.at(f, *columns, step=step, ends=ends)[:, 0] for step in steps])

        found, want = moves(gae.gae), moves(gae.exact())
        k = len(found) // 2
        before = gae.every[k] - 1
        numbers = (float(x[k, before]) if at == "every" else float("nan") for x in (found, want))
        value, limit = numbers
        if float((found - want).abs().max()) <= _EXACT:
            return Answer("pass", "", value, limit)
        like = (n for n in names if float((found - moves(gae.exact(n))).abs().max()) <= _EXACT)
        return Answer("fail", next(like, names[-1]), value, limit)

    return test


def _linear(gae: Advantages) -> Answer:
    """Zeros give zeros."""
    return held(gae.at(gae.gae, ends=True).abs().max(), 1e-9, "offset")


def _gae_apart(gae: Advantages) -> Answer:
    """Environments do not mix."""
    found = gae.at(gae.gae, "reward", "value", step=gae.shape[0] // 2)
    return held(found[:, 1:].abs().sum(), 1e-9, "mixed")


_BOTH, _STEP = ("discount", "trace"), ("reward", "value")
GAE = (
    Law("gae.linear", (), _linear, stops=True),
    Law("gae.environments", (), _gae_apart),
    # A reward k steps later counts (γλ)^k; with it a value γ a step, its own −1.
    Law("gae.reward", _BOTH, _exactly(("reward",), "every", ("negated", "decay"))),
    Law("gae.value", _BOTH, _exactly(_STEP, "every", ("swapped", "discount"))),
    Law("gae.ends", _BOTH, _exactly(_STEP, "every", ("late", "early", "left_out"), ends=True)),
    Law(
        "gae.time_limits",
        (*_BOTH, "columns"),
        _exactly(("final_value",), "ends", ("lost",), ends=True),
    ),
    Law("gae.last_value", (*_BOTH, "columns"), _exactly(("last_value",), "begin", ("lost",))),
)
