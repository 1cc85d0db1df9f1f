"""Who moved which network, between two steps of the actor.

    targets        τ̂ = ⟨Δt, c − t⟩ / |c − t|², by step of the critic        0: frozen; > ½: swapped
    actor's step   the critic's tensors before and after it
    no step        every network from one step of an optimiser of its to the next
    cleared        g = Σ of what backward passes sent since the last step, not g₀ + Σ
    trained        whose optimiser steps the policy, and which policy

All are exact: values are compared bit by bit, of a sample of entries of every tensor.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from math import inf, isfinite, sqrt
from typing import Any, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.probe.alarms.evidence import (
    ALIKE,
    CROSSED,
    FROZEN,
    LEAKED,
    OUTSIDE,
    REPLACED,
    RESTING,
    STEPPED,
    SWAPPED,
    UNCLEARED,
    UNUSED,
)
from gradlab.probe.critics import pushed
from gradlab.probe.isolation import say, warn
from gradlab.probe.parts.networks import (
    CRITIC,
    ENTRIES,
    OTHER,
    POLICY,
    Networks,
    compiled_frames,
    held,
)
from gradlab.probe.parts.objectives import ActorObjective
from gradlab.probe.parts.recorder import CheckAnswer, off

_LOOKS = 10
_FEWEST = 10  # looks, of which more than half must be at fault
_UNDECLARED = 250  # updates in which a target may rest where its period is not declared
_FAST = 0.5  # of the gap at a step of the critic
_RESTED = 40  # steps of another optimiser in which the actor's rests
_LAYERS = 20  # steps between two looks at which tensors the policy has
_SELDOM = 10  # windows to one that is looked at again
_LEFT_BY_ACTOR = ", or only before the actor's, which leaves gradients in it"
_DIRECTION = 6  # entries of a tensor whose gradients differ in direction
_SAME = 1e-7  # 1 − cosine of two gradients that are one
_ROUNDED, _NEARER = 1e-6, 0.1  # of a direction, in float32; as far as from another one
_ALONG = 0.9  # cosine of a move with the way to the target, or to a network
_ASIDE = 0.5  # cosine of a target's move with the way to its network, under which it goes elsewhere


@dataclass(frozen=True, eq=False)
class MomentSamples:
    """Samples of a loop's tensors at one moment.

    Attributes:
        networks: by name; targets, online: of every pair.
    """

    networks: Mapping[str, Tensor]
    targets: Sequence[Tensor]
    online: Sequence[Tensor]


def brought(moments: Sequence[MomentSamples]) -> list[MomentSamples]:
    """The same on the CPU, in float64, from an accelerator in one transfer: it is waited for."""
    tensors = [x for m in moments for x in (*m.networks.values(), *m.targets, *m.online)]
    if all(x.is_cpu for x in tensors):
        return list(moments)
    together = torch.cat([x.to(tensors[0].device, torch.float64) for x in tensors]).cpu()
    left = iter(torch.split(together, [len(x) for x in tensors]))
    return [
        MomentSamples(
            {name: next(left) for name in m.networks}, [next(left) for _ in m.targets],
            [next(left) for _ in m.online],
        )
        for m in moments
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class SampledStep:
    """Samples around a step of one optimiser.

    Attributes:
        turn: whether it followed a gradient of the policy; pushed: whether it had one of
            another network that is not 0.
    """

    optimizer: Any
    before: MomentSamples
    after: MomentSamples
    turn: bool = True
    pushed: bool = False


@dataclass(frozen=True, eq=False)
class ActorWindow:
    """From the end of one step of the actor to the end of the next.

    Attributes:
        count: updates so far; steps: in their order, the actor's last.
    """

    count: int
    begin: MomentSamples
    steps: Sequence[SampledStep]

    @property
    def rests(self) -> list[tuple[MomentSamples, MomentSamples]]:
        """Both ends of every stretch in which no optimiser steps."""
        ends = [(self.begin, self.begin), *((step.before, step.after) for step in self.steps)]
        return [(one[1], two[0]) for one, two in pairwise(ends)]


@final
class _Followed:
    """How one target follows its network."""

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.shares: deque[float] = deque(maxlen=_LOOKS)
        # Cosines of its moves with the way to every network of its size, NaN of others.
        self.ways: deque[NDArray[np.float64]] = deque(maxlen=_LOOKS)
        self.rested, self.since = 0, -1  # looks in which it rested, and since which update
        self.left = False  # by its network, which moved meanwhile
        self.looks, self.begun = 0, -1  # all of them, and the update of the first
        self.moved: Tensor | None = None  # entries of its network that ever did
        self._first: Tensor | None = None  # its network at first
        self._at: tuple[Tensor, Tensor] | None = None  # itself and its network, where it last moved

    def see(self, window: ActorWindow, k: int) -> None:
        """One more look at pair k; without a gap there is nothing to follow."""
        end = window.steps[-1].after
        target, network = end.targets[k], end.online[k]
        if self._first is None:
            self._first, self.begun = window.begin.online[k], window.count
        moved = network != self._first
        self.moved = moved if self.moved is None else moved | self.moved
        self.looks += 1
        if self._at is None or not torch.equal(self._at[0], target) or torch.equal(target, network):
            self._at, self.rested, self.since = (target, network), 0, window.count
            self.left = False
        else:
            if not self.left and not torch.equal(self._at[1], network):
                self.left, self.rested, self.since = True, 0, window.count
            self.rested += 1
        shares = [_share(one, two, k) for one, two in window.rests]
        self.shares.append(max((each for each in shares if each), default=0.0))
        moves = [x for x in window.rests if not torch.equal(x[0].targets[k], x[1].targets[k])]
        if moves:
            self.ways.append(_ways(*moves[-1], k))

    def other(self, k: int) -> int | None:
        """The pair whose network target k follows in the place of its own; −1: none."""
        if len(self.ways) < _LOOKS:
            return None
        ways = np.median(self.ways, axis=0)
        if not ways[k] < _ASIDE:
            return None
        return int(np.nanargmax(ways)) if np.nanmax(ways) > _ALONG else -1

    def at_rest(self, tensors: Sequence[Tensor]) -> tuple[int, int]:
        """How many tensors of its network never moved, and how many did; (0, …) where the former
        are not all of them nor as good as a twin of others."""
        if self.moved is None:
            return 0, 0
        parts = torch.split(self.moved, [min(p.numel(), ENTRIES) for p in tensors])
        rest, move = (
            Counter(
                p.shape for p, part in zip(tensors, parts, strict=True)
                if p.requires_grad and bool(part.any()) == went
            )
            for went in (False, True)
        )  # fmt: skip
        matrices = sum(n for shape, n in rest.items() if len(shape) > 1)
        twin = not move or (matrices > 1 and rest <= move)
        return rest.total() * twin, move.total()

    @property
    def moves(self) -> bool:
        """Whether its network ever did."""
        return self.moved is not None and bool(self.moved.any())

    @property
    def share(self) -> float:
        """τ̂ of the looks in which it moved, their median."""
        moved = [each for each in self.shares if each]
        return float(np.median(moved)) if moved else 0.0


def _share(one: MomentSamples, two: MomentSamples, k: int) -> float:
    """τ̂ = ⟨Δt, c − t⟩ / |c − t|² of one stretch, in which c rests; 0 where t does."""
    if torch.equal(one.targets[k], two.targets[k]):
        return 0.0
    target = one.targets[k].double()
    gap, move = one.online[k].double() - target, two.targets[k].double() - target
    share = float(move @ gap / (gap @ gap))
    return share if isfinite(share) else 0.0  # no gap, or parameters that are no numbers


def _ways(one: MomentSamples, two: MomentSamples, k: int) -> NDArray[np.float64]:
    """Cosines of target k's move with the ways to the networks of all pairs."""
    target, found = one.targets[k].double(), np.full(len(one.online), np.nan)
    move = two.targets[k].double() - target
    for j, online in enumerate(one.online):
        if online.shape == target.shape:
            way = online.double() - target
            found[j] = float(move @ way / (move.norm() * way.norm()).clamp_min(1e-300))
    return found


def _stack_of_one(parameters: Sequence[Tensor]) -> bool:
    """Are they weights of an ensemble, [E, …], all of whose members are equal?"""
    members = {len(p) if p.ndim else 1 for p in parameters}
    stack = len(members) == 1 and min(members) > 1 and any(p.ndim > 2 for p in parameters)
    return stack and all(bool((p[1:] == p[:1]).all()) for p in parameters)


@final
class Targets:
    """Do the targets follow, and not too fast?"""

    name = "targets follow"

    def __init__(self) -> None:
        self._followed: list[_Followed] = []
        self._of: Sequence[object] = ()
        self._count = self._looks = self._alike = 0
        # Critics that move and are equal; one and the same, an ensemble whose members are.
        self._twins: tuple[int, int] | None = None

    def see(self, window: ActorWindow, networks: Networks) -> None:
        if self._of is not networks.pairs:
            self._of, self._followed = networks.pairs, [_Followed(p.whose) for p in networks.pairs]
        self._count, self._looks = window.count, self._looks + bool(networks.pairs)
        for k, each in enumerate(self._followed):
            if each.whose == CRITIC or not self._warming_up:
                each.see(window, k)
        online = window.steps[-1].after.online
        critics = [k for k, x in enumerate(self._followed) if x.whose == CRITIC and x.moves]

        def equal(one: int, two: int) -> bool:
            if one == two:
                return _stack_of_one(networks.pairs[one].online.parameters)
            return torch.equal(online[one], online[two])

        pairs = combinations_with_replacement(critics, 2)
        self._twins = next((each for each in pairs if equal(*each)), None)
        self._alike = self._alike + 1 if self._twins else 0

    @property
    def _warming_up(self) -> bool:
        """No critic has moved so far: whoever copies none copies no policy either."""
        critics = [each for each in self._followed if each.whose == CRITIC]
        return bool(critics) and not any(each.moves for each in critics)

    def answer(self, networks: Networks) -> CheckAnswer:
        if not networks.pairs:
            return off(
                "no module is called that looks like a copy of critic or policy: where the loop "
                "has target networks, probe.networks(critic=…, target=…)"
            )
        alias = next((each for each in networks.pairs if each.alias), None)
        if alias is not None:
            return CheckAnswer(
                "fault", "all tensors of network and target share their memory", 1.0, _FAST,
                self._looks, SWAPPED,
                f"the {alias.whose}'s target is the {alias.whose} itself: is it a copy, "
                f"copy.deepcopy({alias.whose})?",
            )  # fmt: skip
        stepped = networks.stepped_ids
        for pair in networks.pairs:
            own = [p for p in pair.target.parameters if id(p) in stepped and pushed([p])]
            if own:
                return CheckAnswer(
                    "fault", f"an optimiser holds {len(own)} tensors of a target, to which a loss "
                    "sends a gradient", len(own), 0, self._looks, STEPPED,
                    f"an optimiser steps the {pair.whose}'s target along a gradient: are targets "
                    f"made under no_grad, and does the optimiser hold the {pair.whose} alone?",
                )  # fmt: skip
        if self._twins is not None and self._alike >= _LOOKS:
            one, two = map(self._number, self._twins)
            which = f"critic's networks {one} and {two}"
            which = "members of the critic's ensemble" if one == two else which
            return CheckAnswer(
                "fault", f"all entries equal in {self._alike} looks in a row", 0.0, 0.0,
                self._alike, ALIKE,
                f"the {which} move and are equal in every weight, so that their minimum is one of "
                f"them: does each have weights of its own at first?",
            )  # fmt: skip
        period = _UNDECLARED if networks.period is None else networks.period
        resting = self._at_rest(networks)
        if resting is not None and resting.state == "fault":
            return resting
        for k, each in enumerate(self._followed):
            rest = self._count - each.since
            if each.rested >= _LOOKS and rest >= period and each.left:
                for_long = f"not moved for {rest} updates"
                message = f"the {each.whose}'s targets have {for_long}: are the target networks"
                if any(x.shares and not x.rested for x in self._followed if x.whose == each.whose):
                    which = f"target {self._number(k)} of the {each.whose}"
                    message = f"{which} has {for_long}, while another has: are all of them"
                return CheckAnswer(
                    "fault", f"Δ = 0 in {each.rested} looks over {rest} updates, with a gap to "
                    "close", 0.0, 0.0, each.rested, FROZEN, f"{message} updated?",
                )  # fmt: skip
            fast = len(each.shares) == _LOOKS and min(each.shares) > _FAST
            if fast and networks.period != 1:
                return CheckAnswer(
                    "fault", f"τ̂ above {_FAST} in {_LOOKS} looks in a row", each.share, _FAST,
                    _LOOKS, SWAPPED,
                    f"the {each.whose}'s targets take {each.share:.3g} of the network at each "
                    f"step: are τ and 1 − τ exchanged, or is the copy made at every step?",
                )  # fmt: skip
        aside = ""
        for k, each in enumerate(self._followed):
            other = each.other(k)
            if other is None:
                continue
            ways = np.median(each.ways, axis=0)
            proof = (
                f"cosine of target {k + 1}'s moves with the way to its network {ways[k]:.2f} "
                f"(fault: under {_ASIDE}, "
            )
            if other < 0:
                aside = aside or f"{proof}and above {_ALONG} to another one)"
                continue
            return CheckAnswer(
                "fault", f"{proof}to network {other + 1} {ways[other]:.2f})", float(ways[k]),
                _ASIDE, len(each.ways), CROSSED,
                f"target {k + 1} follows network {other + 1}: are they crossed where the targets "
                f"are updated?",
            )  # fmt: skip
        unused = self._unused(networks)
        if unused is not None and unused.state == "fault":
            return unused
        if resting is not None:
            return resting
        shares = [each.share for each in self._followed]
        if self._looks < _FEWEST or min(shares) == 0:
            text = f"no move was seen in {self._looks} looks" if self._looks else "no look yet"
            return CheckAnswer("waiting", text, looks=self._looks)
        ends = f"{min(shares):.2g}", f"{max(shares):.2g}"
        if aside:
            return CheckAnswer("open", aside, looks=self._looks)
        if unused is not None:
            return unused
        proof = (
            f"a move closes {' to '.join(dict.fromkeys(ends))} of the gap (fault: 0 in {_LOOKS} "
            f"looks and {period} updates, or above {_FAST} in {_LOOKS} looks)"
        )
        return CheckAnswer("sound", proof, float(min(shares)), _FAST, self._looks)

    def _number(self, k: int) -> int:
        """Of a network among those of its kind, from 1 on."""
        before = self._followed[:k]
        return 1 + sum(each.whose == self._followed[k].whose for each in before)

    def _unused(self, networks: Networks) -> CheckAnswer | None:
        """A declared target that is never called. One of twins, beside another that is, is at
        fault; of the others, and where torch has compiled, calls may be out of sight."""
        if self._of is not networks.pairs:
            return None  # declared since the newest look
        calls = [(x, pair.call) for x, pair in zip(self._followed, networks.pairs, strict=False)]
        k = next((
            k for k, (each, call) in enumerate(calls)
            if call is not None and not call.seen and each.looks >= _LOOKS
        ), None)  # fmt: skip
        if k is None:
            return None
        whose, looks = self._followed[k].whose, self._followed[k].looks
        which = f"target {self._number(k)} of the {whose}"
        proof = f"{which} was not called once since it was declared, in {looks} looks"
        called = any(call and call.seen for x, call in calls if x.whose == whose == CRITIC)
        if not called or compiled_frames():
            return CheckAnswer("open", f"{proof}: does the loop use it?", looks=looks)
        return CheckAnswer(
            "fault", proof, 0.0, 0.0, looks, UNUSED,
            f"{which} is never called, while another is: is one taken twice in the minimum over "
            f"critics?",
        )  # fmt: skip

    def _at_rest(self, networks: Networks) -> CheckAnswer | None:
        """A network that does not move: what its target does says nothing of the target."""
        found = None
        for k, (each, pair) in enumerate(zip(self._followed, networks.pairs, strict=False)):
            rest, move = each.at_rest(pair.online.parameters)
            looks, since = (each.looks, each.begun) if rest else (each.rested, each.since)
            updates = self._count - since
            if looks < _LOOKS or updates < _UNDECLARED or (not rest and each.left):
                continue
            which = f"the {each.whose}'s network {self._number(k)}"
            alike = (j for j, x in enumerate(self._followed) if x.whose == each.whose)
            beside = next((j for j in alike if self._followed[j].moves), None)
            if rest and not move and beside is not None and each.whose == CRITIC:
                return CheckAnswer(
                    "fault", f"Δ = 0 of {which} in {looks} looks over {updates} updates",
                    0.0, 0.0, looks, RESTING,
                    f"{which} has not moved for {updates} updates, while network "
                    f"{self._number(beside)} has: is it in the critic's loss, and in its "
                    f"optimiser?",
                )  # fmt: skip
            some = f"{rest} of {rest + move} tensors of " if rest and move else ""
            proof = f"{some}{which} did not move in {looks} looks over {updates} updates"
            found = found or CheckAnswer("open", proof, looks=looks)
        return found


@final
class ActorStep:
    """Does the actor's step leave the critic where it is?

    One optimiser may step both by one loss, and the critic alone at other steps, as while it is
    warmed up: its move is the actor's only where the actor's loss has a way through it.

    Args:
        objective: the actor's, which hears that way.
    """

    name = "actor's step moves the policy alone"

    def __init__(self, objective: ActorObjective) -> None:
        self._objective = objective
        self._looks = self._apart = 0
        self._moved: Counter[str] = Counter()
        self._shared = False

    def see(self, window: ActorWindow, networks: Networks) -> None:
        mine = {id(p) for p in held(networks.actor)}
        others, beside = (
            {id(p) for each in optimizers for p in held(each)}
            for optimizers in (networks.optimizers[1:], networks.others)
        )
        known = {name: {id(p) for p in each.parameters} for name, each in networks.online.items()}
        critic = known.get(CRITIC, set())
        self._shared = bool(critic) and not others & critic
        # Another network may be the actor's own, an encoder: not one that somebody else steps.
        whole = [
            name for name, each in known.items()
            if name != POLICY and each and each <= mine and (name == CRITIC or each <= beside)
        ]  # fmt: skip
        of_one = ({id(p) for p in each.parameters()} for each in networks.valued)
        if CRITIC not in whole and any(each and each <= mine & critic for each in of_one):
            whole.append(CRITIC)
        for step in window.steps:
            one, two = step.before.networks, step.after.networks
            if step.optimizer is not networks.actor or CRITIC not in one.keys() & two.keys():
                continue
            self._apart += not step.turn
            if step.turn:
                self._looks += 1
                self._moved.update(
                    name for name in whole
                    if step.pushed and name in one.keys() & two.keys()
                    and not torch.equal(one[name], two[name])
                )  # fmt: skip

    def answer(self, networks: Networks) -> CheckAnswer:
        if CRITIC not in networks.online:
            return off("no network but the policy is stepped by an optimiser")
        at_once = off("one optimiser steps policy and critic at once: their loss is one")
        if self._shared and not self._apart:
            return at_once
        if self._looks < _FEWEST:
            return CheckAnswer("waiting", f"{self._looks} looks of {_FEWEST}", looks=self._looks)
        name, moved = max([(CRITIC, 0), *self._moved.items()], key=lambda each: each[1])
        proof = f"the {name} changed in {moved} of {self._looks} steps of the actor"
        numbers = moved / self._looks, 0.5, self._looks
        if 2 * moved <= self._looks:
            return CheckAnswer("sound", proof, *numbers)
        if self._shared and not self._objective.through:
            return at_once
        whose = name if name == CRITIC else "learned model or other network of another optimiser"
        return CheckAnswer(
            "fault", proof, *numbers, LEAKED,
            f"the actor's steps move the {whose}, too, towards values it likes: does the actor's "
            f"optimiser hold {'the critic' if whose == CRITIC else 'that network'}'s parameters?",
        )  # fmt: skip


@final
class Cleared:
    """Does a network step along the gradients since the actor's last step alone?

    Of its smallest tensor with a direction, g before the step against what backward passes sent
    since then, Σ, and against the g₀ that was left there: in a critic by the actor's backward pass
    too. A clip changes no direction. What the policy was sent before a step of the critic, and the
    actor's marked pass after it, is the critic's loss's, unless its first or last tensor was sent
    nothing: the others are a trunk. So it is without that step, where the critic's next one is
    along what the critic held at the mark: else it may be a part of the actor's own loss.
    """

    def __init__(self, whose: str = POLICY, parameters: Sequence[Tensor] = ()) -> None:
        of = "gradients" if whose == POLICY else f"{whose}'s gradients"
        self.name, self._whose = f"{of} are cleared between steps", whose
        self._known = self._with_direction(parameters)
        self._tensor: Tensor | None = None
        self._handle: Any = None
        self._left: Any = 0.0
        self._sent: Any = None  # no backward pass yet
        self.passes = 0  # backward passes that have sent to it
        self._before: Any = None  # of it, up to the critic's newest step before a marked pass
        self._early: Any = None  # of it, up to the marked pass
        self._marked = False
        self._of_critic: tuple[Tensor, Any] | None = None  # one of its tensors, its gradient then
        self.pending = False  # whether the critic's next step says whose the gradients were
        self._looks = self._added = self._mixed = self._maybe = self._windows = 0

    def _with_direction(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        known = [p for p in parameters if p.numel() >= _DIRECTION]
        return known[::-1] if self._whose == POLICY else sorted(known, key=torch.numel)

    def begin(self, parameters: Sequence[Tensor] = ()) -> None:
        """The actor has stepped: one in ten windows is looked at where enough were cleared.

        Args:
            parameters: in the place of those before; what an optimiser does not hold, it does
                not clear.
        """
        self.end()
        self._known = self._with_direction(parameters) or self._known
        self._windows += 1
        settled = self._looks >= _FEWEST and not self._added
        if (settled and self._windows % _SELDOM) or not self._known:
            return
        held_over = (p for p in self._known if p.grad is not None and bool(p.grad.any()))
        self._tensor = next(held_over, self._known[0])
        left, thawed = self._tensor.grad, self._tensor.requires_grad
        self._left = 0.0 if left is None else _numbers(left)
        self._sent = self._before = self._early = self._of_critic = None
        self._marked = self.pending = False
        self.passes = 0
        self._tensor.requires_grad_(True)  # critics are often frozen during the actor's step
        self._handle = self._tensor.register_hook(self._take)  # type: ignore[no-untyped-call]
        self._tensor.requires_grad_(thawed)

    def is_of(self, optimizer: Any) -> bool:
        """Whether a step of it is looked at."""
        return self._handle is not None and any(p is self._tensor for p in held(optimizer))

    def _take(self, gradient: Tensor) -> None:
        try:
            sent = _numbers(gradient)
            self._sent = sent if self._sent is None else self._sent + sent
            self.passes += 1
        except Exception as error:  # the user's backward pass goes on
            self._tensor, self._known = None, []
            warn(f"does not check any more whether {self.name}", error)

    def mark(self, critic: Sequence[Tensor] = ()) -> None:
        """The actor's backward pass is about to begin."""
        if self._handle is not None and not self._marked and self._whole():
            self._early = self._sent
            known = (p for p in sorted(critic, key=torch.numel) if p.numel() >= _DIRECTION)
            tensor = next((p for p in known if p.grad is not None and bool(p.grad.any())), None)
            if tensor is not None and tensor.grad is not None:
                self._of_critic = tensor, _numbers(tensor.grad)
        self._marked = True

    def part(self) -> None:
        """The critic has stepped."""
        if self._handle is not None and not self._marked and self._whole():
            self._before = self._sent

    def _whole(self) -> bool:
        """Whether all of it was sent something: of a trunk that is shared some tensor is not."""
        ends = self._known[0].grad, self._known[-1].grad
        return all(g is not None and bool(g.any()) for g in ends)

    def confirm(self, optimizer: Any) -> None:
        """Another optimiser is about to step: the critic's, with what it held at the mark?"""
        tensor, then = self._of_critic or (None, None)
        if tensor is not None and any(p is tensor for p in held(optimizer)):
            self.pending = False
            if tensor.grad is not None and _along(_numbers(tensor.grad), then):
                self._maybe, self._mixed = self._maybe - 1, self._mixed + 1

    def look(self) -> None:
        """The network is about to step; before any backward pass it goes with that of the actor's
        last step, and the next one is looked at."""
        was = self._handle is not None
        if was and self._sent is None and self._whose != POLICY:
            return
        self.end()
        if not was or self._tensor is None or self._tensor.grad is None or self._sent is None:
            return
        found = _numbers(self._tensor.grad)
        if not (np.any(self._sent) or np.any(self._left)):
            return
        early = self._early if self._before is None else self._before
        own = self._sent if early is None else self._sent - early
        if not np.any(own):
            own = self._sent
        mixed = not _along(found, own)
        added = mixed and not _along(found, self._sent)
        # A clipped gradient may be small beside what was sent: what is nearer by far is told.
        apart = _apart(found, self._sent)
        added |= apart > _ROUNDED and _apart(found, self._left + self._sent) < _NEARER * apart
        if not added or _along(found, self._left + self._sent):
            self._looks, self._added = self._looks + 1, self._added + added
            sure = self._marked and self._before is not None
            self._mixed += mixed and not added and sure
            self._maybe += mixed and not added and not sure
            self.pending = mixed and not added and not sure and self._of_critic is not None

    def end(self) -> None:
        """Hold no hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def answer(self, *_: object) -> CheckAnswer:
        if not self._known and not self._looks:
            whose = (
                "a network beside policy and critic"
                if self._whose == OTHER
                else f"the {self._whose}"
            )
            if self._windows or self._whose == POLICY:
                return off(
                    f"every stepped tensor of {whose} has fewer than {_DIRECTION} entries, as a "
                    f"temperature has: too few to tell"
                )
            return off(
                f"no optimiser of its own was seen to step {whose} between two steps of the actor"
            )
        if self._looks < _FEWEST:
            return CheckAnswer("waiting", f"{self._looks} looks of {_FEWEST}", looks=self._looks)
        proof = f"what was left was added to in {self._added} of {self._looks} looks"
        numbers = self._added / self._looks, 0.5, self._looks
        if self._mixed or self._maybe:
            times = f"{self._mixed + self._maybe} of {self._looks} looks"
            share = (self._mixed + self._maybe) / self._looks, 0.5, self._looks
            proof = f"what was sent before the critic's step, or the mark, was added to in {times}"
            if 2 * self._mixed > self._looks:
                return CheckAnswer(
                    "fault", proof, *share, UNCLEARED,
                    "the policy steps along gradients that the critic's loss sent to it, too: are "
                    "its targets made under no_grad, and is zero_grad() called right before the "
                    "actor's backward pass?",
                )  # fmt: skip
            if 2 * (self._mixed + self._maybe) > self._looks:
                marked = "; mark the actor's own backward pass alone to have it judged"
                return CheckAnswer("open", proof + marked, *share)
        if 2 * self._added <= self._looks:
            return CheckAnswer("sound", proof, *numbers)
        whose = f"the {self._whose}'s gradients"
        if self._whose == OTHER:
            whose = "gradients of a network that is neither policy nor critic (a learned model?)"
        return CheckAnswer(
            "fault", proof, *numbers, UNCLEARED,
            f"{whose} add up from step to step: is zero_grad() called before "
            f"each backward pass{_LEFT_BY_ACTOR if self._whose != POLICY else ''}?",
        )  # fmt: skip


def _numbers(gradient: Tensor) -> NDArray[np.float64]:
    return gradient.detach().double().cpu().numpy().ravel().copy()


def _apart(one: NDArray[np.float64], other: Any) -> float:
    """Of the directions of two vectors; infinite where one alone is 0, or one has no finite one."""
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if min(sizes) == 0 or not all(map(isfinite, sizes)):
        return inf if any(sizes) else 0.0
    return float(np.linalg.norm(one / sizes[0] - other / sizes[1]))


def _along(one: NDArray[np.float64], other: Any) -> bool:
    """Whether two vectors have one direction, to rounding in float32, or are both 0."""
    return _apart(one, other) < sqrt(2 * _SAME)  # |u − v|² = 2 (1 − cosine)


@final
class NoStep:
    """Do networks rest where no optimiser steps them?"""

    name = "networks move by steps alone"

    def __init__(self) -> None:
        self._looks = 0
        self._moved: dict[str, int] = {}
        self._along: dict[str, int] = {}

    def see(self, window: ActorWindow, networks: Networks) -> None:
        self._looks += 1
        for name in window.begin.networks:
            moved = [
                (one, two) for one, two in window.rests
                if name in one.networks and name in two.networks
                and not torch.equal(one.networks[name], two.networks[name])
                and bool(torch.isfinite(two.networks[name]).all())  # NaN equals nothing
            ]  # fmt: skip
            self._moved[name] = self._moved.get(name, 0) + bool(moved)
            along = any(_to_a_target(*each, networks, name) for each in moved)
            self._along[name] = self._along.get(name, 0) + along

    def answer(self, networks: Networks) -> CheckAnswer:
        if self._looks < _FEWEST:
            return CheckAnswer("waiting", f"{self._looks} looks of {_FEWEST}", looks=self._looks)
        worst = max(self._moved, key=lambda name: self._moved[name])
        share = self._moved[worst] / self._looks
        proof = f"the {worst} changed without a step in {self._moved[worst]} of {self._looks} looks"
        if share <= 0.5:
            return CheckAnswer("sound", proof, share, 0.5, self._looks)
        words = (
            f"the {worst} moves towards its own target between its optimiser's steps: are network "
            f"and target exchanged where the target is updated?"
            if 2 * self._along[worst] > self._moved[worst]
            else f"the {worst} changes between its optimiser's steps: who else writes to its "
            f"parameters?"
        )
        return CheckAnswer("fault", proof, share, 0.5, self._looks, OUTSIDE, words)


def _to_a_target(one: MomentSamples, two: MomentSamples, networks: Networks, name: str) -> bool:
    """Whether a part of the network that has a target went the way to it."""
    ids = {id(p) for p in networks.online[name].parameters}
    for k, pair in enumerate(networks.pairs):
        move, way = two.online[k] - one.online[k], one.targets[k] - one.online[k]
        mine = all(id(p) in ids for p in pair.online.parameters)
        if (
            mine
            and bool(move.any())
            and float(move @ way) > _ALONG * float(move.norm() * way.norm())
        ):
            return True
    return False


@final
class TrainedByLoop:
    """Are the probe's policy and optimiser those that the loop trains?

    An optimiser that steps while the actor's rests is no other network's where it holds the
    policy's tensors, or as many of the same shapes as the actor's. Agents that are trained one
    after the other look like the latter: a fault only while the loop goes on with this probe, by
    its marks or by the steps of another optimiser that it had before.
    """

    name = "the probe's policy is the one that is trained"

    def __init__(self, policy: nn.Module, actor: Any) -> None:
        self.marks = 0  # since the actor's last step
        self._policy, self._actor = policy, actor
        self._tensors = [*policy.parameters()]
        # "": of the loop; None: of other shapes, and new since the actor's last step
        self._known: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()
        self._steps = Counter[str]()  # since the actor's last one, by words
        self._looks = self._stepped = self._longest = 0
        self._new = self._goes_on = self._said = False
        self.replaced = ""  # by what, in words

    def see(self, optimizer: Any) -> None:
        """An optimiser has stepped."""
        self._looks += 1
        if self._looks % _LAYERS == 0:
            now = [*self._policy.parameters()]
            pairs = zip(now, self._tensors, strict=True)
            if len(now) != len(self._tensors) or any(a is not b for a, b in pairs):
                self.replaced = "the policy's layers were replaced: make a new probe when they are"
        if optimizer is self._actor:
            if self._new:
                self._longest = max([self._longest, *self._steps.values()])
                self._known.update(dict.fromkeys([*self._known], ""))
                self._steps.clear()
                self._new = False
            self._stepped, self._goes_on, self.marks = self._stepped + 1, False, 0
            return
        if optimizer not in self._known:
            self._known[optimizer] = self._words(optimizer)
            self._new = True
        words = self._known[optimizer]
        self._goes_on |= words == ""
        if not words:
            return
        self._steps[words] += 1
        if self._steps[words] >= _RESTED and not self._said:
            marked = self.marks >= _RESTED // 2
            goes_on = words == _OPTIMIZER or self._goes_on or marked
            text = f"{words} has made {_RESTED} steps in which the probe's optimiser rests{_NEW}"
            self._said = True
            if (self._stepped or marked) and goes_on:
                self.replaced = text
            else:
                say(f"sees that {text}")

    def _words(self, optimizer: Any) -> str | None:
        mine, its = ({id(p): p.shape for p in held(each)} for each in (self._actor, optimizer))
        if any(id(p) in its for p in self._tensors):
            return _OPTIMIZER
        alike = [*mine.values()] == [*its.values()] and not mine.keys() & its.keys()
        return _POLICIES if alike else None

    def answer(self, *_: object) -> CheckAnswer:
        if self.replaced:
            return CheckAnswer("fault", self.replaced, looks=self._looks, kind=REPLACED,
                          message=self.replaced)  # fmt: skip
        if not self._stepped:
            return CheckAnswer("waiting", "its optimiser has made no step", looks=self._looks)
        proof = f"no optimiser made {_RESTED} steps in its place; at most {self._longest}"
        return CheckAnswer("sound", proof, float(self._longest), _RESTED, self._looks)


_OPTIMIZER = "another optimiser that holds the policy"
_POLICIES = "the optimiser of another policy of the same shapes"
_NEW = ": was it made anew? Make a new probe of what is trained, or close this one"
