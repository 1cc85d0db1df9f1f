"""Who moved: declared networks compared before and after every step of their optimisers.

    moved[network, "steps of the critic's optimiser" | "between"]     in how many looks
    targets     τ = ⟨Δt, c − t⟩ / |c − t|²,  |Δt − τ (c − t)| < .05 |Δt|
    gradient    at a step = Σ of what the network's own losses have sent since it was cleared

Values are compared bit by bit, of up to `ENTRIES` of every tensor. A move between steps that leaves
norm, largest row or largest entry where the last one did is a projection (weights that are clipped
or normalised), and nobody's. A backward pass that reaches the actor and another network is the
actor's loss, which goes through that network, where other passes reach this one without the actor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from math import inf
from statistics import median
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.findings.check import Check, run_checks
from gradlab.probe.arguments import check_watchable
from gradlab.probe.isolation import OWN_WORK, unwrapped, warn

BETWEEN = "between"
ENTRIES = 1024  # of a tensor that are compared
_WARM, _MOST = 20, 0.1  # looks that a check needs, and their share above which it fails
_NEVER = 250  # steps of its network in which a target may rest, and in which a rate may warm up
_ACTORS = ("actor", "policy")
_STEP = (3e-5, 0.05)  # relative sizes of steps
_SETTINGS = {"lr": (1e-6, 0.1), "eps": (0.0, 0.01), "weight_decay": (0.0, 0.03)}


def _some(x: Tensor, entries: int) -> Tensor:
    """Up to so many entries of a tensor, in one row; a view where it has one."""
    return x.detach().reshape(-1)[:: 1 + (x.numel() - 1) // entries]


def _joined(rows: Sequence[Tensor]) -> Tensor:
    found = torch.cat([x.to(rows[0].device) for x in rows]) if rows else torch.zeros(0)
    return found if found.dtype in (torch.float32, torch.float64) else found.float()


@final
class _Network:
    """One declared network, or one tensor as a temperature.

    Attributes:
        owner: the first role that has an optimiser of this one's.
        tensors: those that no network of another optimiser has, by name; all: whatever they are.
        moved: looks in which an event moved it; still: names of what no step has moved so far.
        sizes: of own steps, relative; rates: τ and how far from the way of a target's moves.
        bounds: of tensors that were moved between steps, three sizes after that.
        alone: whether a pass reached it without the actor; whole: whether all passes since its
            last own step are known.
        sent: passes since it was last cleared, which `cleared` says of since its own step.
        looks: own steps that were looked at; judged: of those with a gradient; uncleared: of these
            with an older one; mixed: with what another loss has sent.
    """

    def __init__(self, role: str, number: int, name: str, given: nn.Module | Tensor) -> None:
        self.role, self.number, self.name, self.owner = role, number, name, role
        self.module = None if isinstance(given, Tensor) else unwrapped(given)
        named = [("it", given)] if self.module is None else self.module.named_parameters()
        self.tensors = self.all = dict[str, Any](named)
        self.last = torch.zeros(0)
        self._places: list[int] = []
        self.views: list[Tensor] = []
        self.moved: Counter[str] = Counter()
        self.still: set[str] = set()
        self.sizes: list[float] = []
        self.rates: list[tuple[float, float]] = []
        self.bounds: dict[str, Tensor] = {}
        self.alone = self.whole = False
        self.looks = self.judged = self.uncleared = self.mixed = 0
        self.sent: list[_Pass] = []
        self.cleared = False

    def sample(self) -> Tensor:
        """Some entries of every tensor, as a copy in one row."""
        held = self.tensors.values()
        places = [p.data_ptr() for p in held]
        if self._places != places or not all(p.is_contiguous() for p in held):
            self._places, self.views = places, [_some(p, ENTRIES) for p in held]
        return _joined(self.views)

    def projected(self, change: Tensor) -> bool:
        """Are all tensors that moved of the norm, of the largest norm of a row, or of the largest
        entry that they had after the last such move?"""
        parts = torch.split(change, [len(view) for view in self.views])
        moved = [key for key, part in zip(self.tensors, parts, strict=True) if part.any()]
        same = []
        for key in moved:
            x = self.tensors[key].detach().double()
            rows = x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1)
            size = torch.stack([x.norm(), rows.norm(dim=1).max(), x.abs().max()])
            known = self.bounds.get(key, torch.full_like(size, torch.nan))
            same.append(bool(((size - known).abs() < 1e-5 * size).any()))
            self.bounds[key] = size
        return all(same)


@dataclass
class _Pass:
    """One backward pass: the networks that it reached, and whose loss it is, where marked."""

    number: int
    role: str
    reached: set[str] = field(default_factory=set)


@final
class Movements:
    """Hooks of the optimisers and of the networks' tensors, and what they saw.

    Args:
        networks: by role, one module (or tensor, as a temperature) or several. "target_x" k follows
            "x" k, "target" is "target_critic".
        optimizers: by role, one or several; one that several roles share counts once.
        on: whether this update is looked at; else hooks return at once.

    Raises:
        InputError: something else is given, or a target has no network of its shapes.
    """

    def __init__(
        self,
        networks: Mapping[str, Any],
        optimizers: Mapping[str, Any],
        on: Callable[[], bool] = lambda: True,
    ) -> None:
        self.on, self.error = on, ""
        self.optimizers = {role: _optimizers(role, x) for role, x in optimizers.items()}
        self.networks = _networks(networks)
        self.leaders = _leaders(self.networks)
        self.looks: Counter[str] = Counter()  # by event
        self.steps: Counter[str] = Counter()  # by optimiser's first role, all of them
        self.settings: dict[tuple[str, str], float] = {}  # the largest of the run
        self._stale = True  # nothing has been looked at since the last look
        self._role, self._marks = "", False
        self._pass: _Pass | None = None  # the last one
        for each in self.networks.values():
            each.owner = self._owner(each.role)
        for each in self.networks.values():
            others = [x.all.values() for x in self.networks.values() if x.owner != each.owner]
            shared = {id(p) for tensors in others for p in tensors}
            each.tensors = {k: p for k, p in each.all.items() if id(p) not in shared}
            each.still = {k for k, p in each.tensors.items() if p.requires_grad and p.numel() > 1}
            each.last = each.sample()
        self._handles: list[Any] = []
        for role, several in self.optimizers.items():
            for optimizer in several if self._owner(role) == role else ():
                before, after = (partial(x, role, optimizer) for x in (self._before, self._after))
                self._handles += [
                    optimizer.register_step_pre_hook(partial(self._heard, before)),
                    optimizer.register_step_post_hook(partial(self._heard, after)),
                ]
        self._heard_tensors: list[Any] = []
        self.hear()

    def hear(self) -> None:
        """Hook the networks' tensors where the loop is looked at, and not elsewhere: between two
        looks they would cost a tenth of a small loop."""
        if self.on() == bool(self._heard_tensors):
            return
        for handle in self._heard_tensors:
            handle.remove()
        self._heard_tensors.clear()
        for each in self.networks.values() if self.on() else ():
            each.whole = False
            for key, p in each.tensors.items():
                if p.requires_grad:
                    taken = p.register_hook(partial(self._arrives, each, key))
                    self._heard_tensors.append(taken)

    def close(self) -> None:
        """Take all hooks away."""
        for handle in (*self._handles, *self._heard_tensors):
            handle.remove()
        self._handles.clear()
        self._heard_tensors.clear()

    def mark(self, role: str) -> None:
        """Backward passes are of this role's loss from now on; "": of one that is not marked."""
        self._role, self._marks = role, self._marks or bool(role)

    def findings(self) -> tuple[Finding, ...]:
        """The answers of `CHECKS`."""
        missing = {}
        if self.error:
            missing = dict.fromkeys(("optimizers", "targets", "critics"), self.error)
        elif not self.optimizers:
            missing = {"optimizers": 'Hand over `optimizers={"actor": …}`'}
        if not self.leaders:
            missing["targets"] = 'Hand over `networks={"critic": …, "target_critic": …}`'
        if "critic" not in {each.role for each in self.networks.values()}:
            missing["critics"] = 'Hand over `networks={"critic": …}`'
        return run_checks(CHECKS, self, missing)

    def _owner(self, role: str) -> str:
        """The first role with an optimiser of this role's; the role itself where it has none."""
        mine = {id(x) for x in self.optimizers.get(role, ())}
        alike = (r for r, several in self.optimizers.items() if mine & {id(x) for x in several})
        return next(alike, role)

    def own(self) -> list[_Network]:
        """Networks whose optimiser is known."""
        return [x for x in self.networks.values() if x.role in self.optimizers]

    # Hooks. None may raise, and none does anything while the loop is not looked at.

    def _heard(self, work: Callable[[], None], *_: object) -> None:
        if self.error:
            return
        try:
            work()
        except Exception as error:  # the user's step goes on
            self.error = f"{type(error).__name__}: {error}"
            warn("looks no more at who moved", error)

    def _before(self, role: str, optimizer: Any) -> None:
        looked = self.on()
        if looked or not self._stale:
            self._compare(BETWEEN)
        self._stale = not looked
        for group in optimizer.param_groups if looked else ():
            for key in _SETTINGS.keys() & group.keys():
                value, known = float(group[key]), self.settings.get((role, key), 0.0)
                # A rate that a schedule has led below 0 by more than rounding stays.
                below = known < 0 or value < -0.05 * known < 0
                self.settings[role, key] = min(value, known) if below else max(value, known)

    def _after(self, role: str, optimizer: Any) -> None:
        self.steps[role] += 1
        if self._stale:
            return
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        mine = [x for x in self.networks.values() if x.owner == role]
        several = len(self.optimizers[role]) > 1
        stepped = [x for x in mine if not several or any(id(p) in held for p in x.tensors.values())]
        for network in stepped:
            self._judge_gradient(network)
        self._compare(_event(role), stepped)

    def _compare(self, event: str, stepped: Sequence[_Network] = ()) -> None:
        """What moved since the last look; after an update without a look it is nobody's."""
        fresh = not self._stale
        self.looks[event] += fresh
        now = {name: x.sample() for name, x in self.networks.items()}
        for name, network in self.networks.items():
            was, network.last = network.last, now[name]
            change = (now[name] != was) & ~(was.isnan() & now[name].isnan())
            moved = bool(change.any())
            if not fresh:
                network.whole, network.sent = False, []
            known = moved and event == BETWEEN and name not in self.leaders
            projected = known and network.projected(change)
            network.moved[event if fresh and not projected else "unseen"] += moved
            if moved and network in stepped:
                size = (now[name] - was).norm() / was.norm().clamp_min(1e-12)
                network.sizes.append(float(size))
                if network.still:
                    parts = torch.split(change, [len(view) for view in network.views])
                    both = zip(network.tensors, parts, strict=True)
                    network.still -= {key for key, part in both if part.any()}
            network.looks += network in stepped
            if moved and event == BETWEEN and fresh and name in self.leaders:
                self._follow(network, was, now[name], now[self.leaders[name].name])

    def _follow(self, network: _Network, was: Tensor, now: Tensor, leader: Tensor) -> None:
        if leader.shape != was.shape:
            return  # a part of one is shared with a third
        way, move = (leader - was).double(), (now - was).double()
        size, length = float(way @ way), float(move.norm())
        if not 0 < size * length < inf:
            return  # no gap, or no numbers
        rate = float(move @ way) / size
        # Rounding of the target's own numbers is no other way.
        kind = max((torch.finfo(p.dtype).eps for p in network.tensors.values()), default=0.0)
        aside = float((move - rate * way).norm()) - 2 * kind * float(was.norm())
        network.rates.append((rate, aside / length))

    def _arrives(self, network: _Network, key: str, gradient: Tensor) -> None:
        if self.error or OWN_WORK.get():
            return
        if not self.on():
            network.whole = False
            return
        self._heard(partial(self._take, network, key))

    def _take(self, network: _Network, key: str) -> None:
        number = torch._C._current_graph_task_id()  # as torch's own multi-gradient hooks
        if self._pass is None or self._pass.number != number:
            self._pass = _Pass(number, self._role)
        if network.name in self._pass.reached:
            return
        self._pass.reached.add(network.name)
        left = network.tensors[key].grad
        if left is None or not left.any():
            network.sent, network.cleared = [], True
        network.sent.append(self._pass)

    def _judge_gradient(self, network: _Network) -> None:
        """Has it what other losses have sent since it was cleared, or has it never been?"""
        actors = {name for name, x in self.networks.items() if x.role in _ACTORS}
        sent, complete, network.whole = network.sent, network.whole, True
        cleared, network.sent, network.cleared = network.cleared, [], False
        if not sent:
            return
        network.judged += 1
        if network.name not in actors:
            network.alone |= any(not x.reached & actors for x in sent)
        foreign = [self._is_foreign(network, x, actors) for x in sent]
        if any(foreign):
            # An optimiser of several roles steps this one along what it was sent alone, too.
            shared = sum(self._owner(x) == network.owner for x in self.optimizers) > 1
            network.mixed += shared or not all(foreign)
        else:
            network.uncleared += complete and not cleared

    def _is_foreign(self, network: _Network, each: _Pass, actors: set[str]) -> bool:
        """Is a pass another network's loss?"""
        if network.name not in actors:
            return network.alone and bool(each.reached & actors)
        if self.leaders.keys() & each.reached:
            return True  # a loss whose targets are not made under no_grad
        return self._marks and not each.role and bool(each.reached - actors)


def _event(role: str) -> str:
    return f"steps of the {role}'s optimiser"


def _optimizers(role: str, given: Any) -> list[Any]:
    several = list(given) if isinstance(given, list | tuple) else [given]
    for each in several:
        check_watchable(f"optimizers[{role!r}]", each)
    return several


def _networks(given: Mapping[str, Any]) -> dict[str, _Network]:
    found: dict[str, _Network] = {}
    for role, value in given.items():
        several = [*value] if isinstance(value, list | tuple | nn.ModuleList) else [value]
        role = "target_critic" if role == "target" else role
        for k, each in enumerate(several):
            name = role.replace("_", " ") + (f" {k + 1}" if len(several) > 1 else "")
            known = isinstance(each, nn.Module) or (isinstance(each, Tensor) and each.is_leaf)
            if not known or not (network := _Network(role, k, name, each)).all:
                raise InputError(
                    f"networks[{role!r}] is a {type(each).__name__}, expected a torch.nn.Module "
                    f"with parameters, the tensor that an optimiser steps, or several"
                )
            found[name] = network
    return found


def _leaders(networks: Mapping[str, _Network]) -> dict[str, _Network]:
    """The network that each target follows."""
    found, known = {}, {(x.role, x.number): x for x in networks.values()}
    for name, each in networks.items():
        if not each.role.startswith("target_"):
            continue
        role = each.role.removeprefix("target_")
        leader = known.get((role, each.number))
        shapes = [[p.shape for p in x.all.values()] for x in (each, leader) if x]
        if leader is None or shapes[0] != shapes[1]:
            raise InputError(
                f"networks[{each.role!r}] has no network of its shapes beside it: hand over "
                f"networks[{role!r}] in the same order, one for each target"
            )
        found[name] = leader
    return found


# Checks. Each yields what is wrong, or what cannot be said yet.


def _waits(code: str, network: _Network, looks: int) -> Finding:
    return Finding(code, "undecided", network.name, n=looks, at=f"{looks} of {_WARM} looks so far")


def _fails(code: str, network: _Network, times: int, looks: int, at: str = "") -> Finding:
    return Finding(code, "fail", network.name, value=times, threshold=looks, n=times, at=at)


def _own_steps(movements: Movements) -> Iterator[Finding]:
    for each in movements.own():
        if not each.tensors:
            continue
        if each.looks < _WARM:
            yield _waits("moved_own", each, each.looks)
        elif not each.sizes:
            yield Finding("moved_still", "fail", each.name, value=0, n=each.looks)
        elif each.still:
            names = sorted(each.still)
            at = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield Finding(
                "moved_in_part", "fail", each.name, value=len(names), n=len(each.sizes), at=at
            )


def _others(movements: Movements) -> Iterator[Finding]:
    for each in movements.own():
        own, followed = _event(each.owner), each.name in movements.leaders
        if each.looks < _WARM:
            yield _waits("moved_alone", each, each.looks)
            continue
        if followed or any(_is_same(movements.networks[k], each) for k in movements.leaders):
            continue  # of a target, and of what is one itself, another check tells
        for event, times in each.moved.items():
            if event in (own, "unseen") or times <= _MOST * each.looks:
                continue
            code = "moved_between" if event == BETWEEN else "moved_by_another"
            yield _fails(code, each, times, movements.looks[event], event)


def _sizes(movements: Movements) -> Iterator[Finding]:
    low, high = _STEP
    for each in movements.own():
        if len(each.sizes) < _WARM:
            continue  # the check of own steps says so
        mean, n = sum(each.sizes) / len(each.sizes), len(each.sizes)
        if mean > high:
            yield Finding("moved_far", "fail", each.name, value=mean, threshold=high, n=n)
        elif mean < low and movements.steps[each.owner] >= _NEVER:
            yield Finding("moved_little", "fail", each.name, value=mean, threshold=low, n=n)


def _settings(movements: Movements) -> Iterator[Finding]:
    for (role, key), value in movements.settings.items():
        low, high = _SETTINGS[key]
        if value > high or value < 0 or (value < low and movements.steps[role] >= _NEVER):
            yield Finding(
                "moved_unusual", "fail", role, value=value, threshold=high if value > high else low,
                at=f"`{key}`",
            )  # fmt: skip


def _gradients(movements: Movements) -> Iterator[Finding]:
    for each in movements.own():
        if not each.sizes:
            continue  # what does not move is told as such
        if each.judged < _WARM:
            yield _waits("moved_gradient", each, each.judged)
            continue
        for code, times in (("moved_mixed", each.mixed), ("moved_uncleared", each.uncleared)):
            if 4 * times > each.judged:
                yield _fails(code, each, times, each.judged)


def _is_same(one: _Network, other: _Network) -> bool:
    """Do they share all memory?"""
    a, b = ({p.data_ptr() for p in x.all.values() if p.numel()} for x in (one, other))
    return a == b


def _targets(movements: Movements) -> Iterator[Finding]:
    for name, leader in movements.leaders.items():
        target = movements.networks[name]
        if _is_same(target, leader):
            yield Finding("moved_target_same", "fail", name, at=leader.name)
            continue
        by = {e: n for e, n in target.moved.items() if e not in (BETWEEN, "unseen")}
        event, steps = max(by, key=lambda e: by[e], default=""), movements.steps[leader.owner]
        if by.get(event, 0) > _MOST * (looks := movements.looks[event]):
            yield _fails("moved_target_stepped", target, by[event], looks, event)
        elif target.moved[BETWEEN] or target.moved["unseen"]:
            yield from _followed(target, leader)
        elif steps >= _NEVER and leader.moved:
            yield Finding("moved_target_frozen", "fail", name, n=steps, at=leader.name)
        else:
            yield Finding("moved_targets", "undecided", name, n=steps, at=f"{name} rests so far")


def _followed(target: _Network, leader: _Network) -> Iterator[Finding]:
    rates = [rate for rate, aside in target.rates if aside < 0.05]
    n = len(target.rates)
    if n >= 3 and 2 * len(rates) < n:
        yield Finding("moved_target_astray", "fail", target.name, n=n, at=leader.name)
    elif rates and median(rates) > 0.5 and n > 0.3 * max(leader.looks, _WARM / 2):
        # A hard copy is right where it is rare, a soft one where it is small.
        yield Finding(
            "moved_target_fast", "fail", target.name, value=median(rates), threshold=0.5, n=n,
            at=leader.name,
        )  # fmt: skip


def _twins(movements: Movements) -> Iterator[Finding]:
    for role in {x.role: 0 for x in movements.own() if x.role not in _ACTORS}:
        mine = [x for x in movements.own() if x.role == role and len(x.sizes) >= _WARM]
        members = [(x.name, [*x.all.values()]) for x in mine]
        members += [
            (f"{x.name}.{key}", [*child.parameters()])
            for x in mine if x.module is not None for key, child in x.module.named_modules() if key
        ]  # fmt: skip
        for (one, a), (other, b) in combinations(members, 2):
            alike = [p.shape for p in a] == [p.shape for p in b] and any(p.ndim > 1 for p in a)
            nested = other.startswith(f"{one}.")
            if alike and not nested and all(torch.equal(p, q) for p, q in zip(a, b, strict=True)):
                yield Finding("moved_twins_equal", "fail", one, at=other)
                return


CHECKS: tuple[Check[Movements], ...] = (
    Check("moved_own", ("optimizers",), _own_steps),
    Check("moved_alone", ("optimizers",), _others),
    Check("moved_gradient", ("optimizers",), _gradients),
    Check("moved_targets", ("targets",), _targets),
    Check("moved_twins", ("critics",), _twins),
    Check("moved_size", ("optimizers",), _sizes),
    Check("moved_settings", ("optimizers",), _settings),
)
