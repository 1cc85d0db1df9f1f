"""Results of the checks beside a measurement: plain values that travel with its profile.

They may be missing, of a measurement without checks: that is "not recorded", not "passed".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Names by which the verdict finds some checks again in a file.
FINITE = "finite and non-zero gradients of every sample"
EFFECT = "effect of the first action on rewards"
IDLE = "actions that move nothing"
ALIVE = "states that are alive where gradients are taken"
SEEN = "states that the model has seen"
RARE = "starts rarer than the sample"
SATURATED = "saturated actions"
UNDRAWN = "starts rarer than the sample, of a law that is not drawn from"
PREMISE = "premises of every decision"
DETACHED = f"{PREMISE}, derivatives of the "  # policy's action, simulator's step, …
WRONG = f"{PREMISE}, Jacobians of the simulator against differences"


@dataclass(frozen=True)
class CheckResult:
    """One check.

    Attributes:
        check: what was tried, and on what.
        result: the numbers, in words.
        meaning: what they mean, or what to do.
        passed: False needs attention.
    """

    check: str
    result: str
    meaning: str
    passed: bool

    @property
    def sentence(self) -> str:
        """The numbers and what they mean."""
        return f"{self.result[:1].upper()}{self.result[1:]}: {self.meaning}."


def failed_premises(results: Sequence[CheckResult] | None) -> tuple[CheckResult, ...]:
    """Why nothing can be decided from a measurement, the first reason first: a derivative that is
    lost explains what else fails."""
    failed = [e for e in results or () if not e.passed and e.check.startswith(PREMISE)]
    simulated = f"{DETACHED}simulator"  # whose gradient is the truth
    failed.sort(key=lambda e: (not e.check.startswith(DETACHED), simulated not in e.check))
    return tuple(failed)


def detached(results: Sequence[CheckResult] | None) -> frozenset[str]:
    """Whose Jacobians are lost, as an identity says it; a policy's are in those of all systems."""
    failed = [e.check for e in failed_premises(results) if e.check.startswith(DETACHED)]
    if any(f"{DETACHED}policy" in each for each in failed):
        return frozenset(("simulator", "model"))
    simulated = [each.startswith(f"{DETACHED}simulator") for each in failed]
    return frozenset("simulator" if each else "model" for each in simulated)


def other_derivative(results: Sequence[CheckResult] | None) -> bool:
    """Is the simulator's derivative none, or one of something else than its step?"""
    wrong = any(each.check == WRONG for each in failed_premises(results))
    return wrong or "simulator" in detached(results)


def no_gradient(results: Sequence[CheckResult] | None) -> tuple[CheckResult, ...]:
    """Of these, that the true gradient is 0: an absurd critic may still be
    compared with another, and its error attributed."""
    return tuple(e for e in failed_premises(results) if e.check.endswith(("reward", "policy")))


def saturated(results: Sequence[CheckResult] | None) -> str:
    """That most actions are at their limits, and what to do; "" where they are not."""
    failed = (each for each in results or () if each.check == SATURATED and not each.passed)
    return next((f"{each.meaning[:1].upper()}{each.meaning[1:]}." for each in failed), "")


def rare_starts(results: Sequence[CheckResult] | None) -> CheckResult | None:
    """Whether starts that no sample of N holds carry the variance; None where it is not known."""
    return next((each for each in results or () if each.check == RARE), None)
