"""Does an optimiser's step move θ as its own formula says, by the gradient and state before it?

    Adam, AdamW    m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²
                   Δ = −η m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)
    SGD            b ← μ b + (1 − τ) g,  Δ = −η b,  Nesterov's −η (g + μ b)
    RMSprop        v ← α v + (1 − α) g²,  b ← μ b + g / (√v + ε),  Δ = −η b

with λθ added to g, or −ηλθ to Δ (AdamW). Fused kernels read g in the order of memory: a transposed
or expanded gradient moves the wrong entries, and the loop learns nothing without an error. Every
formula comes as its terms, Δ = −Σ terms: rounding is a share of Σ |terms|, whatever cancels.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.probe.alarms.evidence import MISAPPLIED
from gradlab.probe.parts.networks import ENTRIES, Networks, held
from gradlab.probe.parts.recorder import CheckAnswer, off

_TENSORS, _FEWEST = 2, 3  # of a look; looks at one tensor, of which more than half are at fault
_SETTLED, _SELDOM = 20, 10  # looks at tensors of an optimiser, after which windows are passed over
_CLOSE, _ROUNDINGS = 1e-3, 4  # of Σ |terms|, where √eps is smaller; of θ, in units of eps
_KINDS = (torch.float32, torch.float64, torch.bfloat16)  # squares are 0 in float16
_Array = NDArray[np.float64]
_Before = Mapping[str, Any]  # state of one tensor, and its group's settings
_Taken = tuple[int, Tensor, Tensor, _Array, _Array, _Before]  # place, θ, g, and numbers of them


def _adam(p: _Array, g: _Array, at: _Before) -> list[_Array]:
    (beta1, beta2), rate = map(float, at["betas"]), float(at["lr"])
    decay, m, t = float(at["weight_decay"]), at.get("exp_avg", 0.0), at.get("step", 0) + 1
    pulls = 0 * p if at["decoupled_weight_decay"] else decay * p
    v = beta2 * at.get("exp_avg_sq", 0.0) + (1 - beta2) * (g + pulls) ** 2
    if at["amsgrad"]:
        v = np.maximum(v, at.get("max_exp_avg_sq", 0.0))
    size = rate / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + at["eps"])
    terms = [size * beta1 * m, size * (1 - beta1) * g, size * (1 - beta1) * pulls]
    return [*terms, rate * decay * p] if at["decoupled_weight_decay"] else terms


def _sgd(p: _Array, g: _Array, at: _Before) -> list[_Array]:
    momentum, rate = float(at["momentum"]), float(at["lr"])
    buffer = at.get("momentum_buffer")
    share = 1.0 if buffer is None or not momentum else 1 - float(at["dampening"])
    kept = 0 * p if buffer is None else momentum * buffer
    if at["nesterov"]:
        share, kept = 1 + momentum * share, momentum * kept
    return [rate * kept, rate * share * g, rate * share * float(at["weight_decay"]) * p]


def _rmsprop(p: _Array, g: _Array, at: _Before) -> list[_Array]:
    alpha, rate, pulls = float(at["alpha"]), float(at["lr"]), at["weight_decay"] * p
    v = alpha * at.get("square_avg", 0.0) + (1 - alpha) * (g + pulls) ** 2
    size = rate / (np.sqrt(v) + at["eps"])
    kept = rate * at["momentum"] * at.get("momentum_buffer", 0.0)
    return [kept + 0 * p, size * g, size * pulls]


_FORMULAS: dict[Any, Callable[[_Array, _Array, _Before], list[_Array]]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.SGD: _sgd,
    torch.optim.RMSprop: _rmsprop,
}


@final
class OwnFormula:
    """Is an optimiser's step its own formula's?"""

    name = "optimisers' steps are their own formula's"

    def __init__(self, policy: nn.Module) -> None:
        self._policy, self._windows = policy, 0
        self._seen: set[tuple[int, int]] = set()  # optimisers of this window, and whose turn
        self._taken: tuple[Any, list[_Taken]] | None = None
        self._counts: WeakKeyDictionary[Any, dict[int, list[int]]] = WeakKeyDictionary()
        self._looks, self._worst = 0, 0.0
        self._reason, self._words = "no optimiser has stepped yet", ""
        self._fault: Tensor | None = None

    def begin(self) -> None:
        """A window: one step of every optimiser, in one of ten where enough of it is sound."""
        self._windows += 1
        self._seen.clear()

    def before(self, optimizer: Any) -> None:
        """An optimiser is about to step; nothing of it is moved."""
        self._taken = None
        if getattr(optimizer, "grad_scale", None) is not None:
            return  # a scaler divides within a fused step
        looks = self._counts.get(optimizer, {}).values()
        turn, wrong = (sum(each) for each in zip((0, 0), *looks, strict=True))
        if turn >= _SETTLED and not wrong and self._windows % _SELDOM:
            return
        reason = _reason(optimizer)
        self._reason = reason or "no gradient was there before a step that it left as it was"
        tensors = [] if reason else held(optimizer)
        places = Counter(p.data_ptr() for p in tensors)  # what is held twice is moved twice
        known = [
            (k, p, p.grad) for k, p in enumerate(tensors)
            if p.grad is not None and p.grad.layout == torch.strided and p.dtype in _KINDS
            and p.numel() and places[p.data_ptr()] == 1
            and not (p.is_cpu and p.is_shared())  # type: ignore[no-untyped-call]
        ]  # fmt: skip
        if not known or (key := (id(optimizer), known[0][0])) in self._seen:
            return
        self._seen.add(key)
        known = known[turn % len(known) :] + known[: turn % len(known)]
        self._taken = optimizer, []
        for k, p, gradient in sorted(known, key=lambda each: not _apart(*each[1:]))[:_TENSORS]:
            group = next(g for g in optimizer.param_groups if any(p is q for q in g["params"]))
            before = {"decoupled_weight_decay": isinstance(optimizer, torch.optim.AdamW)} | group
            for name, each in optimizer.state.get(p, {}).items():
                if each is not None:
                    before[name] = _first(each) if isinstance(each, Tensor) else each
            self._taken[1].append((k, p, gradient, _first(p), _first(gradient), before))

    def after(self, optimizer: Any) -> None:
        """It has stepped; a gradient that was changed meanwhile says nothing."""
        if self._taken is None or self._taken[0] is not optimizer:
            return
        taken, self._taken = self._taken[1], None
        counts = self._counts.setdefault(optimizer, {})
        for k, p, gradient, was, g, before in taken:
            if p.grad is not gradient or not np.array_equal(_first(gradient), g):
                continue
            found, expected, allowed = _compared(optimizer, p, was, g, before)
            if not np.isfinite([found, expected, allowed]).all():
                continue  # told elsewhere
            if not (np.abs(expected) > allowed).any():
                continue  # less than rounding hides
            share = np.abs(found - expected) / allowed
            at = int(share.argmax())
            looks = counts.setdefault(k, [0, 0])
            looks[0] += 1
            looks[1] += bool(share[at] > 1)
            self._looks, self._worst = self._looks + 1, max(self._worst, float(share[at]))
            if looks[1] >= _FEWEST and 2 * looks[1] > looks[0] and not self._words:
                why = ": what else writes to it, or to its state, during the step?"
                if _apart(p, gradient):
                    what = "strides are not the parameter's"
                    what = what if gradient.is_contiguous() else "gradient is not contiguous"
                    why = f"; its {what}: is .contiguous() missing where it is set?"
                self._fault = p
                self._words = (
                    f"the optimiser's step is not {type(optimizer).__name__}'s own formula: "
                    f"parameter {{}} moved by {found[at]:.3g} where {expected[at]:.3g} was "
                    f"expected{why}"
                )

    def answer(self, networks: Networks) -> CheckAnswer:
        looked = f"{self._looks} looks at tensors"
        if self._words:
            names = {id(p): n for n, p in self._policy.named_parameters()}
            for k, critic in enumerate(networks.critics, 1):
                names |= {id(p): f"{n} of critic {k}" for n, p in critic.named_parameters()}
            words = self._words.format(names.get(id(self._fault), "of another network"))
            proof = f"differences of {self._worst:.3g} times what rounding allows in {looked}"
            return CheckAnswer("fault", proof, self._worst, 1.0, self._looks, MISAPPLIED, words)
        if not self._looks:
            return off(self._reason)
        if self._looks < _FEWEST:
            return CheckAnswer("waiting", f"{looked}, of {_FEWEST}", looks=self._looks)
        proof = f"at most {self._worst:.2g} of what rounding allows"
        return CheckAnswer("sound", proof, self._worst, 1.0, self._looks)


def _compared(
    optimizer: Any, p: Tensor, was: _Array, g: _Array, before: _Before
) -> tuple[_Array, _Array, _Array]:
    """Δ as it was made, as the formula has it, and what rounding may add to the difference."""
    with np.errstate(all="ignore"):
        terms = _formula(optimizer)(was, -g if before["maximize"] else g, before)
        found, expected, size = _first(p) - was, -sum(terms), sum(map(np.abs, terms))
    eps = torch.finfo(p.dtype).eps
    rounding = _ROUNDINGS * eps * (np.abs(was) + size) + torch.finfo(torch.float32).tiny
    return found, expected, rounding + max(_CLOSE, eps**0.5) * size


def _formula(optimizer: Any) -> Any:
    """Of the class whose step it makes: one that makes its own is another optimiser."""
    makes = inspect.unwrap(type(optimizer).step)
    kinds = [each for each in _FORMULAS if isinstance(optimizer, each)]
    return next((_FORMULAS[k] for k in kinds if inspect.unwrap(k.step) is makes), None)


def _reason(optimizer: Any) -> str:
    """Why a step of it has no formula here."""
    kind = type(optimizer).__name__
    if _formula(optimizer) is None:
        return f"no formula of {kind} is known; those of torch's Adam, AdamW, SGD, RMSprop are"
    if any(group.get("centered") for group in optimizer.param_groups):
        return "a centred RMSprop subtracts what is nearly equal: rounding has no bound"
    hooks = [*optimizer._optimizer_step_pre_hooks.values()]
    hooks += optimizer._optimizer_step_post_hooks.values()
    if any(not str(getattr(each, "__module__", "")).startswith("gradlab.") for each in hooks):
        return f"hooks of the loop's own belong to the step of its {kind}"
    return ""


def _apart(p: Tensor, gradient: Tensor) -> bool:
    """Whether the entries of the two lie in memory in other orders."""
    both = p.is_contiguous() and gradient.is_contiguous()
    return not both and p.stride() != gradient.stride()


def _first(tensor: Tensor) -> _Array:
    """Its first entries, copied."""
    some = tensor.detach()
    if some.ndim > 1:
        some = some[: 1 + ENTRIES // max(some[0].numel(), 1)]
    numbers: _Array = some.reshape(-1)[:ENTRIES].double().cpu().numpy().copy()
    return numbers
