"""Laws of an actor's loss: no path is lost, and what is left is the gradient of the return.

A lost path is a value that depends on θ, moves the loss and has no gradient in θ. A score loses the
same paths and is sound: there ∂L/∂(output) depends on θ,

    L = −E[log π(a) R(a)]:   ∂L/∂R = −log π        pathwise, L = −E[R(a)]:   ∂L/∂R = −1

A score w log π(a) is judged by w at two draws: E[w ∇ log π(a)] = 0 for each w that does not depend
on a. Of critics on paths: ∂L/∂Q < 0, and alike in all rows. Of densities: E[1/π(a); a in a box] is
the volume of the box. Of α: ∂L/∂α = mean log π.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError, in_short, one_line
from gradlab.losses.asking import (
    PASS,
    Answer,
    AskedLoss,
    Declared,
    Law,
    columns_of,
    fail,
    finite,
    held,
    moved,
    networks,
    repeats,
    summed,
    terms_of,
    undecided,
    untouched,
)
from gradlab.losses.paths import JUDGES, LossCalls, Lost, Output, Role, Tag, Watching, closed
from gradlab.user_code import running
from gradlab.wording import listed

Gradients = list[Tensor | None]
_STATES, _DRAWS = 4, 10_000  # of a density, at each
_MOVE = 0.01  # deviation of a layer that is zero, while it is looked at
_MOVES = 1e-6  # of the loss, by more than which it does
_STILL = 1e-9
_E = 2.718281828459045


@dataclass(frozen=True)
class Evaluation:
    """One value of the loss with its calls."""

    terms: Mapping[str, Tensor]
    calls: LossCalls
    tags: Sequence[Tag]

    @property
    def loss(self) -> Tensor:
        return summed(self.terms)


class ActorLoss(AskedLoss):
    """An actor's loss; critic and model may be objects whose methods it calls. A batch that is no
    mapping is the tuple of its arguments."""

    def __init__(self, loss: Callable[..., Any], batch: Any, declared: Declared) -> None:
        validation.function("loss", loss, "a batch")
        self.loss, self.declared, self.given, self.term = loss, declared, batch, ""
        self.named = hasattr(batch, "keys") or hasattr(batch, "_asdict")
        self.columns = columns_of(batch, declared.columns) if self.named else {}
        self.batch = dict(self.columns)
        given: dict[Role, dict[str, Any]] = {
            role: {
                name.removeprefix(role).strip(): each
                for name, each in networks(role, entry, objects=role != "actor").items()
            }
            for role in ("actor", *JUDGES)
            if (entry := getattr(declared, role)) is not None
        }
        roots = {
            role: {f"{n} {path}".strip(): m for n, o in objects.items() for path, m in _held(o)}
            for role, objects in given.items()
        }
        trained = {
            role: {
                f"{name}.{path}".lstrip("."): p
                for name, module in modules.items()
                for path, p in module.named_parameters()
                if p.requires_grad
            }
            for role, modules in roots.items()
        }
        self.modules = {f"{r} {n}": m for r, found in roots.items() for n, m in found.items()}
        self.theta = trained.pop("actor")
        if not self.theta:
            raise InputError("actor has no parameter that requires a gradient: nothing is trained")
        shared = {id(p) for parameters in trained.values() for p in parameters.values()}
        self.apart = {name: p for name, p in self.theta.items() if id(p) not in shared}
        self.owners: dict[int, Role] = {}  # what actor and critic share is the actor's
        self.watched: list[object] = []
        for role, objects in given.items():
            inner = [part for module in roots[role].values() for part in module.modules()]
            for item in (*objects.values(), *inner):
                if id(item) not in self.owners:
                    self.owners[id(item)] = role
                    self.watched.append(item)

    def has(self, need: str) -> bool:
        if need == "path":
            return bool(self.pathwise) and self.declared.model is None
        return super().has(need)

    def evaluated(self, raised: Role | None = None, more_seed: int = 0) -> Evaluation:
        """The loss, looked at. `raised`: a role whose values are larger than they are."""
        watching = Watching(self.owners, list(self.theta.values()), raised)
        seed = self.declared.seed + more_seed
        with untouched(self.modules.values(), seed), running("loss"), torch.enable_grad():
            with watching.over(self.watched):
                value = self.called(self.batch)
            terms = terms_of(value)
        tags = [tag for term in terms.values() if (tag := watching.tags.of(term)) is not None]
        return Evaluation(terms, watching.calls, tags)

    def called(self, batch: Mapping[str, Tensor]) -> Any:
        if self.named:
            return self.loss(self.rebuilt(batch))
        given = self.given if isinstance(self.given, tuple | list) else (self.given,)
        return self.loss(*given)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Inside, weights that are zero (Dreamer's last layer, at the first step) are not: they
        stop a gradient that comes as soon as they move.

        Raises:
            InputError: the loss fails, or has no graph any more.
        """
        weights = [p for module in self.modules.values() for p in module.parameters()]
        zeros = [p for p in weights if p.ndim > 1 and not bool(p.detach().any())]
        generator = torch.Generator().manual_seed(0)
        try:
            for p in zeros:
                p.data.copy_(_MOVE * torch.randn(p.shape, generator=generator))
            self.total  # noqa: B018 (its error is the user's)
            yield
        finally:
            for p in zeros:
                p.data.zero_()

    def __call__(self, batch: Any = None, add: Any = None) -> tuple[Tensor, Any]:
        if batch is not None:
            return summed(self.terms(batch)), {}
        found = self.evaluated()
        return found.loss, found.calls

    @cached_property
    def here(self) -> Evaluation:
        return self.evaluated()

    @cached_property
    def first(self) -> tuple[Tensor, Any]:
        return self.here.loss.detach(), {}

    @cached_property
    def total(self) -> Gradients:
        """∂L/∂θ."""
        try:
            return gradient(self.here.loss, list(self.theta.values()))
        except RuntimeError as error:
            raise InputError(
                f"loss cannot be differentiated ({in_short(one_line(error))}): return it before "
                f"any backward() or step()"
            ) from error

    def to_theta(self, value: Tensor) -> bool:
        return any(moves(g) for g in gradient(value, list(self.apart.values())))

    @cached_property
    def weighed(self) -> tuple[list[tuple[Output, Tensor]], list[tuple[Output, Tensor]]]:
        """Outputs of model and critic with their direct weights ∂L/∂output: fixed ones, and those
        of scores, which depend on θ."""
        calls = self.here.calls
        outputs = [output for output in calls.outputs if output.role in JUDGES]
        fixed: list[tuple[Output, Tensor]] = []
        scores: list[tuple[Output, Tensor]] = []
        for output, weight in zip(outputs, self.direct(outputs), strict=True):
            if moves(weight):
                assert weight is not None
                kind = scores if self.depends(weight) else fixed
                kind.append((output, weight.detach()))
        return fixed, scores

    def direct(self, outputs: Sequence[Output]) -> Gradients:
        """∂L/∂output with everything fixed that the roles compute from it, in the graph."""
        with closed(*self.here.calls.inlets.values()):
            return gradient(self.here.loss, [output.value for output in outputs], again=True)

    def depends(self, weight: Tensor) -> bool:
        """A weight has a gradient in θ other than through values of model and critic: those of a
        reward that is written in the loss, −s², change with the state."""
        # Fixed numbers of both signs, so that rows do not cancel.
        mixed = weight * torch.linspace(-1, 1.5, weight.numel()).to(weight).reshape(weight.shape)
        outlets = self.here.calls.outlets
        with closed(*(outlets[role] for role in JUDGES if role in outlets)):
            try:
                theta = list(self.theta.values())
                return any(moves(g) for g in gradient(mixed.sum(), theta))
            except RuntimeError:  # a custom derivative in the loss that has none of its own
                return False

    @cached_property
    def pathwise(self) -> list[tuple[Output, Tensor]]:
        """A critic's outputs with a fixed weight and a path to θ, a number for each row."""
        return [
            (output, weight.flatten())
            for output, weight in self.weighed[0]
            if output.role == "critic"
            and weight.numel() == max(weight.shape, default=1)
            and self.to_theta((output.value * weight).sum())
        ]

    @cached_property
    def by_q(self) -> Tensor:
        """∂L/∂Q of every row, over the critics."""
        size = max(weight.numel() for _, weight in self.pathwise)
        return torch.stack([w for _, w in self.pathwise if w.numel() == size]).sum(0)

    @cached_property
    def lost(self) -> list[Lost]:
        """Where the loss moves with a value that has lost its gradient, once for each cut."""
        if not self.here.calls.lost or not self.here.loss.requires_grad:
            return []
        first: dict[object, Lost] = {}
        for lost in self.here.calls.lost:
            earlier = first.get(lost.cut)
            if earlier is not None and not self.is_state(earlier):
                continue
            arrives = self.enters(lost, self.weighed[0]) or self.chosen(lost)
            if arrives and not self.enters(lost, self.weighed[1]):
                first[lost.cut] = lost
        return list(first.values())

    def is_state(self, lost: Lost) -> bool:
        """It is a state: of the model, or of a simulator that is not watched, beside an action that
        has its path. The policy gradient theorem needs no path through such a state."""
        width = lost.value.shape[-1] if lost.value.ndim else 0
        return lost.modelled or (lost.beside and width not in self.here.calls.widths)

    def enters(self, lost: Lost, outputs: Sequence[tuple[Output, Tensor]]) -> bool:
        """A lost value moves these outputs."""
        return moves(gradient(_together(outputs), [lost.value])[0])

    def chosen(self, lost: Lost) -> bool:
        """The loss moves with what has entered no role, not as a score's weight: with what a
        discrete action has chosen among a critic's values."""
        if lost.role is not None:
            return False
        weight = self.direct([Output("critic", lost.value)])[0]
        return weight is not None and moves(weight) and not self.depends(weight)


def _held(item: object, path: str = "", depth: int = 3) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(item, nn.Module):
        yield path, item
    elif depth and hasattr(item, "__dict__") and not isinstance(item, type):
        for name, value in vars(item).items():
            yield from _held(value, f"{path}.{name}".strip("."), depth - 1)


def gradient(value: Tensor, variables: Sequence[Tensor], again: bool = False) -> Gradients:
    """∂value/∂variables; None where no path leads to a variable. `again`: in the graph."""
    if not value.requires_grad or not variables:
        return [None] * len(variables)
    return list(
        torch.autograd.grad(
            value, variables, retain_graph=True, create_graph=again, allow_unused=True
        )
    )


def moves(g: Tensor | None) -> bool:
    """A gradient that is not exactly zero."""
    return g is not None and bool((g != 0).any())


def _together(outputs: Sequence[tuple[Output, Tensor]]) -> Tensor:
    """Σ weight · output, whose gradient is that of the loss through these outputs."""
    parts = [(output.value * weight).sum().double() for output, weight in outputs]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def _dead(loss: ActorLoss) -> Answer:
    """The gradient in θ is not zero."""
    if any(moves(g) for g in loss.total):
        return PASS
    cuts = [lost.cut for lost in loss.lost] + [tag.cut for tag in loss.here.tags]
    cut = next((each for each in cuts if each is not None), None)
    if cut is not None:
        return fail(cut.how, cut.where)
    return fail("zero" if loss.here.tags else "apart")


def _finite_gradient(loss: ActorLoss) -> Answer:
    pairs = zip(loss.theta, loss.total, strict=True)
    names = [name for name, g in pairs if g is not None and not bool(torch.isfinite(g).all())]
    return fail("not_finite", listed(names, 3)) if names else PASS


def _lost(loss: ActorLoss) -> Answer:
    """No action that moves the loss has lost its path to θ."""
    for lost in loss.lost:
        if not loss.is_state(lost):
            return fail(lost.cut.how, lost.cut.where)
    return PASS


def _reached(loss: ActorLoss) -> Answer:
    """What moves the loss through model or critic comes from θ."""
    fixed, scores = loss.weighed if loss.here.loss.requires_grad else ([], [])
    for role in dict.fromkeys(output.role for output, _ in fixed):
        outputs = [each for each in fixed if each[0].role == role]
        scored = any(output.role == role for output, _ in scores)
        if scored or any(moves(g) for g in gradient(_together(outputs), list(loss.theta.values()))):
            continue
        if any(lost.role is None or loss.enters(lost, outputs) for lost in loss.lost):
            continue
        # Advantages, numbers of both signs, weigh log π: PPO's value loss stands in the same sum.
        weights = _score_weights(loss.here)
        signed = any(w is not None and bool((w > 0).any() and (w < 0).any()) for w in weights)
        return undecided("own_loss", role) if signed and role == "critic" else fail("apart", role)
    return PASS


def _score_weights(evaluation: Evaluation) -> Gradients:
    return gradient(evaluation.loss, [each.value for each in evaluation.calls.densities])


def _score(loss: ActorLoss) -> Answer:
    """log π of a cut action is weighed by what depends on the action; of a live one it is not."""
    if not loss.here.calls.densities or loss.lost:
        return PASS
    there = loss.evaluated(more_seed=1)
    pairs = zip(
        loss.here.calls.densities, _score_weights(loss.here), _score_weights(there), strict=False
    )
    named = zip(loss.theta, loss.total, strict=True)
    dead = [name for name, g in named if name in loss.apart and not moves(g)]
    for each, w, again in pairs:
        if each.action is None or w is None or again is None or not bool(w.any()):
            continue
        redrawn = w.shape != again.shape or bool((w - again).abs().max() > 1e-4 * w.abs().max())
        if each.action.cut is not None and not redrawn:
            return fail("constant", each.place)
        if each.action.cut is None and redrawn and dead:
            return fail("cancels", each.place)
    return PASS


def _parameters(loss: ActorLoss) -> Answer:
    """Every trained tensor of the actor has a gradient."""
    named = [(n, g) for n, g in zip(loss.theta, loss.total, strict=True) if n in loss.apart]
    none = [name for name, g in named if g is None]
    zero = [name for name, g in named if g is not None and not moves(g)]
    if none or zero:
        return fail("none" if none else "zero", listed(none or zero, 3))
    return PASS


def _values(loss: ActorLoss) -> Answer:
    """Where model or critic move the loss, they move its gradient."""
    theta = list(loss.theta.values())
    for role in JUDGES:
        if role not in loss.here.calls.called:
            continue
        with closed(loss.here.calls.outlets[role]):
            apart = gradient(loss.here.loss, theta)
        same = (x is y or (x is not None and y is not None and torch.equal(x, y))
                for x, y in zip(loss.total, apart, strict=True))  # fmt: skip
        if not all(same):
            continue  # a part of the gradient comes through it
        raised = loss.evaluated(role)
        by = float((raised.loss - loss.here.loss).detach().abs())
        again = zip(loss.total, gradient(raised.loss, theta), strict=True)
        still = all(g is None or h is None or torch.equal(g, h) for g, h in again)
        if still and by > _MOVES * float(loss.here.loss.detach().abs()):
            return fail("detached", role)
    return PASS


def _sign(loss: ActorLoss) -> Answer:
    """The loss falls with Q in every row."""
    share = float((loss.by_q >= 0).double().mean())
    rows = "mask" in loss.columns and share < 1
    return undecided("masked") if rows and share else held(share, 0, "rises")


def _even(loss: ActorLoss) -> Answer:
    """Every row's Q counts alike."""
    if {"mask", "weight"} & loss.columns.keys():
        return undecided("weighed")
    g = loss.by_q
    return held((g.max() - g.min()) / g.abs().mean().clamp_min(1e-30), 0.02, "uneven")


def _largest(loss: ActorLoss) -> Answer:
    """Of several critics the largest is not taken in every row."""
    size = len(loss.by_q)
    each = [(o.value.detach().flatten(), w) for o, w in loss.pathwise if w.numel() == size]
    if len(each) < 2:
        return PASS
    values, counts = torch.stack([v for v, _ in each]), torch.stack([w != 0 for _, w in each])
    one = counts.sum(0) == 1
    if not bool(one.any()):
        return PASS
    taken = (counts.float().argmax(0) == values.argmax(0))[one].double().mean()
    return held(taken, 0.99, "largest")


def _own(loss: ActorLoss) -> Answer:
    """The loss is of the policy's action at the row's state, not of what followed."""
    base = loss.first[0]
    for column in ("reward", "next_observation", "terminated", "action"):
        x = loss.columns.get(column)
        if x is None or not x.is_floating_point():
            continue
        other = 1 - x if column == "terminated" else x.roll(1, 0) * 0.7 + 0.1
        value = loss(loss.changed(**{column: other}))[0].detach()
        change = float((value - base).abs() / base.abs().clamp_min(1e-12))
        if change > 1e-5:
            decided = column != "action"
            name = "moves" if decided else "moves?"
            return Answer("fail" if decided else "undecided", name, change, 1e-5, column)
    return PASS


def _density(loss: ActorLoss) -> Answer:
    """E[1 / π(a); a in a box] is the box's volume: log π is of the action that is drawn."""
    assert loss.declared.draw is not None
    states = loss.columns["observation"]
    # Where states are large, squashing shows; of two wrong ones it is another at a small one.
    order = states.reshape(len(states), -1).norm(dim=1).argsort(descending=True)
    found: list[tuple[float, float]] = []
    for state in (*states[order[:_STATES]], states[order[-1]]):
        with torch.no_grad(), untouched(loss.modules.values(), loss.declared.seed), running("draw"):
            a, log_pi = loss.declared.draw(state.expand(_DRAWS, *state.shape))[:2]
        if not a.is_floating_point():
            return undecided("discrete")
        a, log_pi = a.double().reshape(_DRAWS, -1), log_pi.double().reshape(_DRAWS, -1)
        if log_pi.shape[1] != 1:
            return fail("several", value=log_pi.shape[1])
        ends = torch.tensor([0.1, 0.9], dtype=torch.float64, device=a.device)
        low, high = torch.quantile(a, ends, dim=0)
        if bool((high <= low).any()):
            return undecided("mean")
        inside = ((a >= low) & (a <= high)).all(1)
        parts = torch.where(inside, torch.exp(-log_pi[:, 0].clamp_min(-60)), 0.0)
        parts = parts / (high - low).prod()
        found.append((float(parts.mean()), 5 * float(parts.std()) / _DRAWS**0.5))
    off = [each for each, error in found if abs(each - 1) > 0.05 + error]
    if not off:
        return PASS
    # A factor of its own at every state, as of an action that is scaled after its log π, moves no
    # gradient of θ.
    least = min(each + error for each, error in found)
    same = max(each - error for each, error in found) <= 1.05 * least
    return undecided("scaled", value=off[0]) if same else fail("other", value=off[0])


def _entropy(loss: ActorLoss) -> Answer:
    """∂L/∂α is the mean log π, and the gradient moves with α."""
    temperature, draw = loss.declared.temperature, loss.declared.draw
    assert temperature is not None and draw is not None
    observation = loss.columns["observation"]
    with torch.no_grad(), untouched(loss.modules.values(), loss.declared.seed):
        log_pi = float(draw(observation)[1].double().sum()) / len(observation)
    theta = list(loss.theta.values())
    base, alpha = loss.first[0], float(temperature.detach().exp())
    here = loss.gradient(loss.here.loss, theta)
    with moved(temperature, 0.5):
        up = loss.evaluated()
        there = loss.gradient(up.loss, theta)
    slope = float(up.loss.detach() - base) / (alpha * (_E**0.5 - 1))
    if abs(slope) < _STILL * max(1.0, abs(float(base))):
        return fail("left_out")
    if float((there - here).norm() / here.norm().clamp_min(1e-30)) < 1e-6:
        return fail("detached")
    ratio = slope / log_pi
    if abs(ratio + 1) < 0.1:
        return fail("negated", value=ratio)
    return held(abs(ratio - 1), 0.011, "size")._replace(value=ratio, limit=1.0)


def _temperature(loss: ActorLoss) -> Answer:
    """Too little entropy raises α, too much lowers it."""
    temperature, of = loss.declared.temperature, loss.declared.temperature_loss
    assert temperature is not None and of is not None
    rows = max((len(x) for x in loss.columns.values()), default=64)
    slopes = []
    for entropy in (-50.0, 50.0):
        log_pi = torch.full((rows, 1), -entropy, device=temperature.device)
        with running("temperature_loss"), torch.enable_grad():
            slopes.append(float(torch.autograd.grad(of(log_pi), temperature)[0].sum()))
    return PASS if slopes[0] < 0 < slopes[1] else fail("negated")


ACTOR = (
    Law("loss.finite", (), finite, stops=True),
    Law("actor.gradient", (), _dead, stops=True),
    Law("actor.finite", (), _finite_gradient),
    Law("actor.lost", (), _lost),
    Law("actor.reached", (), _reached),
    Law("actor.values", (), _values),
    Law("actor.score", (), _score),
    Law("actor.parameters", (), _parameters),
    Law("actor.sign", ("path",), _sign),
    Law("actor.rows", ("path",), _even),
    Law("actor.twins", ("path",), _largest),
    Law("loss.repeats", (), repeats, stops=True),
    Law("actor.own", ("path", "observation"), _own),
    Law("actor.density", ("draw", "observation"), _density),
    Law("actor.entropy", ("draw", "temperature", "observation"), _entropy),
    Law("actor.temperature", ("temperature", "temperature_loss"), _temperature),
)
