"""Networks of a loop: those that optimisers step, and their targets, which none steps.

An optimiser's parameters are known when it steps. A target is a module that the loop calls on a
batch, that no optimiser steps, whose tensors have the shapes of one that is stepped and are near
its values: it was copied from it. A copy of the policy counts only where it is called at the
states at which a critic's target is; else it acts, or is what a penalty refers to.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import RESTING
from gradlab.probe.critics import pushed
from gradlab.probe.isolation import warn
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.policy_calls import Hook, graded, passing

_FEWEST = 10  # looks
ENTRIES = 256  # of each tensor: whoever moves a tensor moves some of its first ones
_NEAR = 0.5  # of its size: how far a copy may be from what it was copied from
POLICY, CRITIC, OTHER = "policy", "critic", "other network"
_Parameters = tuple[Tensor, ...]


@final
class _Sample:
    """The first entries of every tensor, one after the other, as they are when it is called."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = tuple(parameters)
        self._at: list[int] = []
        self._views: list[Tensor] = []

    def __call__(self) -> Tensor:
        at = [p.data_ptr() for p in self.parameters]
        if at != self._at:  # `p.data = …` gives a tensor another place
            self._views = [p.detach().reshape(-1)[:ENTRIES] for p in self.parameters]
            self._at = at if all(p.is_contiguous() for p in self.parameters) else []
        return torch.cat(self._views)


@final
class _FirstCall:
    """Whether a module, or a part of it, was ever called: its hooks are gone with the first call.
    Calls inside of compiled code, and of its tensors alone (`functional_call`), are not seen."""

    def __init__(self, module: nn.Module) -> None:
        self.seen = False
        hook = Hook(self._see, partial(warn, "looks at no target's calls"), graded=False)
        self._handles = [part.register_forward_hook(hook) for part in module.modules()]

    def _see(self, *_: object) -> None:
        self.seen = True
        self.end()

    def end(self) -> None:
        """Hold no hook."""
        for each in self._handles:
            each.remove()


@dataclass(frozen=True, eq=False)
class _Pair:
    """A network and its target.

    Attributes:
        whose: name of the network.
        modules: both.
        call: of a target that was declared.
    """

    whose: str
    online: _Sample
    target: _Sample
    modules: tuple[nn.Module, nn.Module]
    call: _FirstCall | None = None

    @property
    def alias(self) -> bool:
        """Whether they are one and the same."""
        both = zip(self.online.parameters, self.target.parameters, strict=True)
        return all(a.data_ptr() == b.data_ptr() != 0 for a, b in both)


@final
class Calls:
    """All modules that are called, and at which states."""

    def __init__(self) -> None:
        self.at: dict[weakref.ref[nn.Module], int] = {}  # address of the first input's numbers
        self.valued: set[weakref.ref[nn.Module]] = set()  # gave a number of each row, of data alone
        self.hook = Hook(self._see, partial(warn, "looks for no target networks"), graded=False)

    def _see(self, module: nn.Module, args: Any, output: Any) -> None:
        batch = args[0] if args and isinstance(args[0], Tensor) else None
        if batch is not None and not passing(batch) and batch.ndim > 1 and len(batch) > 1:
            self.at[weakref.ref(module)] = batch.data_ptr()
            fitted = isinstance(output, Tensor) and output.requires_grad
            if fitted and output.numel() == len(batch) and not graded(args):
                self.valued.add(weakref.ref(module))

    def outermost(self) -> dict[nn.Module, int]:
        """Modules with parameters that no other one that was called holds."""
        alive = [(each(), at) for each, at in self.at.items()]
        called = {each: at for each, at in alive if each is not None}
        inner = {part for each in called for part in each.modules() if part is not each}
        return {
            each: at for each, at in called.items()
            if each not in inner and any(True for _ in each.parameters())
        }  # fmt: skip


@final
class Networks:
    """What is stepped by which optimiser, and the targets of it.

    Args:
        policy: its parameters; actor: the optimiser that steps them.
        critic: the optimiser of the critic; None: any that steps beside the actor's.
    """

    def __init__(self, policy: Sequence[Tensor], actor: Any, critic: Any = None) -> None:
        self.policy, self.actor, self._critic = tuple(policy), actor, critic
        self.online: dict[str, _Sample] = {}
        self.pairs: list[_Pair] = []
        self.period: int | None = None
        self.critics: list[nn.Module] = []
        self.trained: list[nn.Module] = []  # modules that the loop calls, critics among them
        self.unstepped: list[nn.Module] = []  # value networks, by what they give
        self.declared = False
        self._optimizers: list[weakref.ref[Any]] = []

    def meet(self, optimizer: Any) -> None:
        """An optimiser steps."""
        if not any(each() is optimizer for each in self._optimizers):
            self._optimizers.append(weakref.ref(optimizer))

    @property
    def others(self) -> list[Any]:
        """Optimisers beside the actor's that have stepped and are alive."""
        met = [each() for each in self._optimizers]
        return [each for each in met if each is not None and each is not self.actor]

    @property
    def optimizers(self) -> list[Any]:
        """The actor's, and those of critics: all others, where none was named."""
        return [self.actor, *(each for each in self.others if self._critic in (None, each))]

    @property
    def stepped(self) -> list[nn.Module]:
        """Critics that an optimiser steps; all where none is seen to be."""
        ids = self.stepped_ids
        return [each for each in self.critics if _any_of(each, ids)] or self.critics

    @property
    def valued(self) -> list[nn.Module]:
        """What gives values, to be sure: declared critics, and those with a target; both."""
        pairs = (each.modules for each in self.pairs if each.whose == CRITIC)
        known = [*(self.critics if self.declared else ()), *(x for both in pairs for x in both)]
        return [*dict.fromkeys(known)]

    @property
    def settled(self) -> bool:
        """Whether targets are known, or were declared."""
        return self.declared or bool(self.pairs)

    def refresh(self) -> None:
        """Networks by name: the policy, then what every other optimiser steps that holds a matrix;
        a temperature is none. The actor's own besides the policy come as its critic where no other
        optimiser steps them."""
        targets = {id(p) for pair in self.pairs if not pair.alias for p in pair.target.parameters}
        known_ids = targets | {id(p) for p in self.policy}
        found: list[_Parameters] = []
        for optimizer in self.optimizers[1:] + self.optimizers[:1]:
            seen = {id(p) for each in found for p in each}
            mine = [p for p in held(optimizer) if id(p) not in known_ids | seen]
            if any(p.ndim > 1 for p in mine):
                found.append(tuple(mine))
        copied = {id(p) for pair in self.pairs for p in pair.online.parameters}
        found.sort(key=lambda each: not copied & {id(p) for p in each})
        names = [CRITIC] + [f"network {k}" for k in range(2, len(found) + 1)]
        known = {POLICY: self.policy} | dict(zip(names, found, strict=False))
        for name, each in known.items():
            old = self.online.get(name)
            if old is None or [*map(id, old.parameters)] != [*map(id, each)]:
                self.online[name] = _Sample(each)

    @property
    def stepped_ids(self) -> set[int]:
        """Of the tensors that an optimiser holds which was seen to step."""
        return {id(p) for each in [self.actor, *self.others] for p in held(each)}

    def find(self, calls: Calls) -> None:
        """Critics and targets among modules that were called, unless they are declared; and what a
        loss alone fits, which no optimiser steps."""
        called, known = calls.outermost(), self.stepped_ids | {id(p) for p in self.policy}
        self.unstepped = [
            m for m in called if weakref.ref(m) in calls.valued and not _any_of(m, known)
        ]
        if self.declared:
            if not any(pair.whose == POLICY for pair in self.pairs):
                targets = {id(p) for pair in self.pairs for p in pair.target.parameters}
                known |= {id(p) for m in self.trained for p in m.parameters()}
                left = {m: at for m, at in called.items() if not _any_of(m, known - targets)}
                policy = {id(p) for p in self.policy}
                self._find_target_of_policy(left, [m for m in called if _any_of(m, policy)])
            return
        stepped = {id(p) for each in self.optimizers for p in held(each)}
        stepped |= {id(p) for p in self.policy}
        sent = stepped | {id(p) for m in called for p in m.parameters() if pushed([p])}
        trained = [  # also one of which an optimiser holds a part, and a loss sends to all
            m for m in called
            if _any_of(m, stepped) and all(id(p) in sent for p in _trainable(m))
        ]  # fmt: skip
        self.trained = trained
        copies = {m: at for m, at in called.items() if not _any_of(m, stepped)}
        policy = {id(p) for p in self.policy}
        self.critics = [m for m in trained if not _any_of(m, policy)]
        self.pairs = _pairs([*self.critics, *self._uncalled(copies)], copies, CRITIC)
        of_critics = {id(p) for pair in self.pairs for p in pair.target.parameters}
        alone = [m for m in copies if not _any_of(m, of_critics)]
        unheld = [m for m in alone if any(p.grad is not None for p in m.parameters())]
        self.pairs += _pairs(unheld, [m for m in alone if m not in unheld], CRITIC)
        self._find_target_of_policy(copies, [m for m in trained if _any_of(m, policy)])

    def _find_target_of_policy(
        self, copies: Mapping[nn.Module, int], actors: Sequence[nn.Module]
    ) -> None:
        """A copy that is called at the states of the critics' targets."""
        of_critics = {id(p) for pair in self.pairs for p in pair.target.parameters}
        states = {at for m, at in copies.items() if _any_of(m, of_critics)}
        left = [m for m, at in copies.items() if at in states and not _any_of(m, of_critics)]
        self.pairs += _pairs(actors, left, POLICY)

    def _uncalled(self, copies: Iterable[nn.Module]) -> list[nn.Module]:
        """Tensors in a row of an optimiser, of a copy's shapes, of a module that is not called."""
        known = {id(p) for each in self.trained for p in each.parameters()}
        found: list[nn.Module] = []
        for optimizer in self.optimizers[1:]:
            left = [p for p in held(optimizer) if id(p) not in known]
            for shapes in (_shapes(each.parameters()) for each in copies):
                for at in range(len(left) - len(shapes) + 1):
                    row = left[at : at + len(shapes)]
                    if _shapes(row) == shapes:
                        found.append(nn.ParameterList(row))
        return found

    def declare(
        self, policy: nn.Module, critics: Sequence[nn.Module], targets: Sequence[nn.Module],
        period: int | None,
    ) -> None:  # fmt: skip
        """The user's own words.

        Raises:
            InputError: a target has the shapes of no network.
        """
        self.rest()
        self.critics, self.period, self.declared = list(critics), period, True
        self.trained = [*critics, policy]
        known = [(CRITIC, each) for each in critics] + [(POLICY, policy)]
        networks, self.pairs = [each for _, each in known], []
        for target in targets:
            online = _nearest(target, networks)
            mine, its = (
                [each for each in of if _shapes(each.parameters()) == _shapes(target.parameters())]
                for of in (networks, targets)
            )
            nearest = [each for one in its if (each := _nearest(one, mine)) is not None]
            far = any(_distance(*each) >= _NEAR for each in zip(nearest, its, strict=False))
            if len(mine) == len(its) and (far or len({*nearest}) < len(its)):
                online = mine[its.index(target)]  # no copies of one each: in their order
            if online is None:
                kind = type(target).__name__
                raise InputError(
                    f"target is a {kind} whose tensors have the shapes of neither critic nor "
                    f"policy: give the copy of one of them"
                )
            name = next(name for name, each in known if each is online)
            self.pairs.append(replace(_pair(name, online, target), call=_FirstCall(target)))

    def rest(self) -> None:
        """Hold no hook of a target."""
        for pair in self.pairs:
            if pair.call is not None:
                pair.call.end()


@final
class Unheld:
    """Does an optimiser hold what a loss sends a gradient to, of a critic?"""

    name = "an optimiser holds all of the critic"

    def __init__(self) -> None:
        self._looks = 0
        # Looks in a row at which tensors of a network had a gradient and no optimiser, these, and
        # their first values.
        self._seen: WeakKeyDictionary[nn.Module, tuple[int, list[Tensor], Tensor]] = (
            WeakKeyDictionary()
        )
        self._held: set[int] = set()
        self._whole = 0  # looks at which all of a critic had a gradient, and no optimiser
        self._found: CheckAnswer | None = None

    def see(self, networks: Networks) -> None:
        """At the end of a window."""
        stepped = networks.stepped_ids | self._held
        targets = {id(p) for pair in networks.pairs for p in pair.target.parameters}
        every = dict.fromkeys([*networks.critics, *networks.unstepped])
        critics = [each for each in every if not _any_of(each, targets)]
        self._looks += bool(critics)
        trained = [_shapes(m.parameters()) for m in critics if _any_of(m, stepped)]
        doubted = False
        for network in critics:
            unheld = [p for p in _trainable(network) if id(p) not in stepped and pushed([p])]
            whole = len(unheld) == len(_trainable(network))
            # A critic that is fixed is sent some, too; one of an ensemble is trained as the others.
            known = network in networks.unstepped or _shapes(network.parameters()) in trained
            if not unheld or (whole and not known):
                doubted |= whole and bool(unheld)
                self._seen.pop(network, None)
                continue
            now = _Sample(unheld)()
            looks, before, first = self._seen.get(network, (0, unheld, now))
            same = [*map(id, before)] == [*map(id, unheld)] and torch.equal(first, now)
            self._seen[network] = (looks + 1, unheld, first) if same else (1, unheld, now)
        self._whole += doubted

    def answer(self, networks: Networks) -> CheckAnswer:
        if self._found is not None:
            return self._found
        if not self._looks:
            return off("no critic is known: where the loop has one, probe.networks(critic=…)")
        resting = {
            network: (looks, unheld)
            for network, (looks, unheld, _) in self._seen.items()
            if looks >= _FEWEST and not self._is_held(unheld)
        }
        if resting:
            network, (looks, unheld) = next(iter(resting.items()))
            of = len(_trainable(network))
            which = f"{len(unheld)} of {of} tensors" if len(unheld) < of else f"all {of} tensors"
            same = _shapes(network.parameters())
            alike = {m for m in {*networks.critics, *resting} if _shapes(m.parameters()) == same}
            many = len(alike & resting.keys())
            whose = f"{'one' if many == 1 else f'each of {many}'} of {len(alike)} critics"
            whose = "the critic" if len(alike) == 1 else whose
            proof = f"{which} had a gradient and no optimiser, and rested, in {looks} looks"
            self._found = CheckAnswer(
                "fault", f"{proof} (fault: {_FEWEST})", looks, _FEWEST, self._looks, RESTING,
                f"{which} of {whose} are in no optimiser, although a loss sends them a "
                f"gradient: does an optimiser hold all of critic.parameters()?",
            )  # fmt: skip
            return self._found
        if self._looks < _FEWEST:
            text = f"{self._looks} looks of {_FEWEST}"
            return CheckAnswer("waiting", text, 0.0, _FEWEST, self._looks)
        if 2 * self._whole > self._looks:
            proof = (
                f"all of a critic had a gradient and no optimiser, in {self._whole} of "
                f"{self._looks} looks: is it fixed by intention, or made anew after its optimiser?"
            )
            return CheckAnswer("open", proof, self._whole / self._looks, 0.5, self._looks)
        most = max([looks for looks, *_ in self._seen.values()], default=0)
        proof = f"at most {most} looks in a row with a gradient and no optimiser (fault: {_FEWEST})"
        return CheckAnswer("sound", proof, most, _FEWEST, self._looks)

    def _is_held(self, tensors: Sequence[Tensor]) -> bool:
        """Does any optimiser of this program hold them, as one that has not stepped yet?"""
        ids = {id(p) for p in tensors}
        if not ids <= self._held:
            for each in gc.get_objects():
                if issubclass(type(each), torch.optim.Optimizer):
                    self._held |= ids & {id(p) for p in held(each)}
        return ids <= self._held


def compiled_frames() -> int:
    """Frames that torch has compiled so far; such modules warn of hooks of all modules."""
    dynamo = sys.modules.get("torch._dynamo")
    return 0 if dynamo is None else sum(dynamo.utils.counters["frames"].values())


def held(optimizer: Any) -> list[Tensor]:
    """All parameters that an optimiser steps."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def modules(name: str, given: object) -> list[nn.Module]:
    """One module or several.

    Raises:
        InputError: something else.
    """
    several = given if isinstance(given, list | tuple | nn.ModuleList) else [given]
    for each in several:
        if not isinstance(each, nn.Module):
            raise InputError(
                f"{name} is a {type(each).__name__}, expected a torch.nn.Module or several"
            )
        if not any(True for _ in each.parameters()):
            raise InputError(f"{name} is a {type(each).__name__} without parameters")
    return list(several)


def _pairs(online: Iterable[nn.Module], copies: Iterable[nn.Module], whose: str) -> list[_Pair]:
    """Every copy with the nearest network of its shapes."""
    pairs, networks = [], list(online)
    for copy in copies:
        nearest = _nearest(copy, networks)
        if nearest is not None and _distance(nearest, copy) < _NEAR:
            pairs.append(_pair(whose, nearest, copy))
    return pairs


def _nearest(copy: nn.Module, networks: Iterable[nn.Module]) -> nn.Module | None:
    """Of the networks of its shapes the one whose values are nearest; None: there is none."""
    shapes = _shapes(copy.parameters())
    alike = [each for each in networks if _shapes(each.parameters()) == shapes]
    return min(alike, key=lambda each: _distance(each, copy), default=None)


def _pair(whose: str, online: nn.Module, target: nn.Module) -> _Pair:
    mine, its = (_Sample([*each.parameters()]) for each in (online, target))
    return _Pair(whose, mine, its, (online, target))


def _distance(one: nn.Module, other: nn.Module) -> float:
    """|c − t| / |c|"""
    a, b = (_Sample([*each.parameters()])().double().cpu() for each in (one, other))
    return float((a - b).norm() / a.norm().clamp_min(1e-300))


def _shapes(parameters: Iterable[Tensor]) -> list[torch.Size]:
    return [p.shape for p in parameters]


def _trainable(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad] or [*module.parameters()]


def _any_of(module: nn.Module, ids: set[int]) -> bool:
    return any(id(p) in ids for p in module.parameters())
