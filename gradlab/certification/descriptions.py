"""What a certificate compares, where, and how it is made again, in words."""

from __future__ import annotations

from typing import Any

from gradlab import provenance
from gradlab.certification.arguments import Subject
from gradlab.certification.reference import RATIO, SIZE
from gradlab.systems.system import System

VERSIONS = ("gradlab", "commit", "python", "torch", "numpy", "mujoco")


def compared(system: System, epsilon: float) -> list[str]:
    """J and D, a sentence each.

    A system whose `linearize` takes differences itself says which in an attribute `derivatives`.
    """
    own = str(getattr(system, "derivatives", ""))
    by = f"`linearize`: {own}" if own else "`linearize`"
    ways = f"reverse-mode autodiff of the step, and {by}" if system.differentiable else by
    size = SIZE * epsilon ** (1 / 3)
    return [
        f"J is what the system offers: {ways}.",
        f"D is certified central differences of the system's own step as a whole, one coordinate "
        f"of state or action at a time, at {size:.2g} and {size / RATIO:.2g} of its spread.",
    ]


def starts(about: Subject) -> str:
    """Where the examined states come from."""
    if about.states is not None and about.actions is not None:
        return "states and actions are the given ones"
    if about.states is not None:
        return "rollouts begin at the given states"
    if about.task is not None:
        return "rollouts begin at the task's own starts"
    return (
        "rollouts begin at standard normal states, since a System has no start law: give a Task, "
        "or states="
    )


def versions() -> dict[str, str]:
    """Without the time: the same states give the same certificate."""
    found = provenance.environment()
    return {name: found[name] for name in VERSIONS}


def call(settings: dict[str, Any]) -> str:
    """The call in Python."""
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"gradlab.certify(system, {given})"
