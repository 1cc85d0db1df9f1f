"""Who an estimator is: whose states, whose Jacobians, which actions carry θ, which tail.

Made once from the objects that are measured (`measurement.arguments.identify`) and stored with
every number; whatever decides, says or draws reads these fields, never a name. Without torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

States = Literal["simulator", "model", "recorded"]
Jacobians = Literal["none", "simulator", "model"]
Cell = tuple[str, int]  # an estimator's name and a horizon


_COUNTED = ("decay", "stop")  # cuts that a number goes with


@dataclass(frozen=True)
class Identity:
    """
    Attributes:
        name: a label that nothing reads.
        states: whose; any system that is not the task's simulator is a model.
        jacobians: whose; "none" where no dynamics are differentiated.
        actions: which carry θ, a name of `gradients.ways.WAYS`.
        tail: what values the last state.
        control: does it need the simulator's derivatives although there is a model?
        gradient_model: are the Jacobians those of another model than the states?
        cut: derivatives that are taken as zero, in words; "" for none.
        ambiguous: has another estimator of the measurement the same fields? Then words need names.
    """

    name: str
    states: States
    jacobians: Jacobians
    actions: str
    tail: Literal["Q", "V", "none"] = "Q"
    control: bool = False
    gradient_model: bool = False
    cut: str = ""
    ambiguous: bool = False

    @property
    def counted(self) -> bool:
        """Is the cut named by a number, as decays and stops are?"""
        return self.cut.startswith(_COUNTED)

    @property
    def data(self) -> bool:
        """Is it J_0, of the critic alone: no dynamics are differentiated, nor densities?"""
        return self.jacobians == "none" and self.actions != "score"

    @property
    def needs_states(self) -> bool:
        """Does it need the simulator's states, and at most a model's derivatives?"""
        return self.states == "simulator" and not self.data and not self.control

    @property
    def systems(self) -> tuple[str, str]:
        """Whose states and whose Jacobians."""
        return self.states, self.jacobians


def mark_ambiguous(identities: Sequence[Identity]) -> dict[str, Identity]:
    """By name, with `ambiguous` where two have the same fields and with `control` where there is
    a model beside the simulator's derivatives."""
    modelled = any("model" in each.systems for each in identities)
    plain = [
        replace(
            each, control=each.control or (modelled and each.jacobians == "simulator"),
            ambiguous=False,
        )
        for each in identities
    ]  # fmt: skip
    often = Counter(replace(each, name="") for each in plain)
    return {each.name: replace(each, ambiguous=often[replace(each, name="")] > 1) for each in plain}


_UNROLLED: Mapping[str, tuple[States, Jacobians]] = {
    "model": ("model", "model"),
    "mixed": ("simulator", "model"),
    "true_dynamics": ("simulator", "simulator"),
}
_FIRST: Mapping[str, tuple[States, Jacobians]] = {"data": ("simulator", "none"), **_UNROLLED}
_EVERY = {f"{name}_all": systems for name, systems in _UNROLLED.items()}
_IMAGINED = tuple(f"model_{way}" for way in ("replayed", "score", "ivw", "ddcg", "total"))
_BESIDE = "true_dynamics_"  # of the simulator, beside the default ones


def by_default(
    names: Sequence[str], actions: Mapping[str, str] | None = None
) -> dict[str, Identity]:
    """The identities behind the default names, for what stores nothing but names; any other name
    is a model's. `actions`: which actions carry θ, by name, where that is known."""
    carry = {name: str((actions or {}).get(name, "")) for name in names}
    known = by_known_name(names)
    found = [
        known.get(name, Identity(name, "model", "model", carry[name] or "first")) for name in names
    ]
    carrying = [replace(each, actions=carry[each.name] or each.actions) for each in found]
    return mark_ambiguous(carrying)


def by_known_name(names: Sequence[str]) -> dict[str, Identity]:
    """The identities behind those of the names that are default ones."""
    return {each.name: each for name in names if (each := _known(name)) is not None}


def _known(name: str) -> Identity | None:
    if name in _FIRST:
        return Identity(name, *_FIRST[name], "first")
    if name in _EVERY:
        return Identity(name, *_EVERY[name], "all")
    if name in _IMAGINED:
        way = name.removeprefix("model_")
        return Identity(name, "model", "none" if way == "score" else "model", way)
    if not name.startswith(_BESIDE):
        return None
    way = name.removeprefix(_BESIDE)
    edge = way.removeprefix("cut_")
    for kind in _COUNTED:
        edge = edge.replace(f"{kind}_", f"{kind} ")
    if edge != way:
        return Identity(name, "simulator", "simulator", "all", cut=edge)
    jacobians: Jacobians = "none" if way == "score" else "simulator"
    return Identity(name, "simulator", jacobians, way)


def data_of(identities: Mapping[str, Identity]) -> str | None:
    """The name of the data gradient J_0; None where it was not measured."""
    return next((name for name, each in identities.items() if each.data), None)


def same_as(identities: Mapping[str, Identity], wanted: Identity) -> tuple[str, ...]:
    """Estimators with these fields, whatever they are called and whoever controls whom."""
    kind = _kind(wanted)
    return tuple(name for name, each in identities.items() if _kind(each) == kind)


def _kind(identity: Identity) -> Identity:
    return replace(identity, name="", control=False, ambiguous=False)


def competing(identities: Mapping[str, Identity]) -> tuple[str, ...]:
    """Those of the measured gradients among which one is recommended, in their order.

    The data gradient and all that need nothing of the simulator; where there are none but the
    data's, those along the simulator's states, too; where there are none of these, all.
    """
    for also_states in (True, False):
        among = tuple(
            name
            for name, each in identities.items()
            if not each.control and not (also_states and each.needs_states)
        )
        if not all(identities[name].data for name in among):
            return among
    return tuple(identities)


def needs_states(identities: Mapping[str, Identity]) -> tuple[str, ...]:
    """Those that do not compete because they need the simulator's states."""
    own = competing(identities)
    return tuple(name for name, each in identities.items() if each.needs_states and name not in own)
