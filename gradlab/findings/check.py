"""Checks are rows of a table: what one claims, what it needs, and its test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gradlab.findings.finding import Finding

T = TypeVar("T")


@dataclass(frozen=True)
class Check(Generic[T]):
    """One question about something.

    Attributes:
        code: of what it claims: a finding that passes, waits or is skipped has it.
        needs: names of what must have been handed over.
        test: what is wrong (fail), or cannot be said yet (undecided); nothing where all is well.
    """

    code: str
    needs: tuple[str, ...]
    test: Callable[[T], Iterable[Finding]]


def run_checks(
    checks: Sequence[Check[T]], about: T, missing: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The answers of all checks; one that raises is undecided, and ends nothing.

    Args:
        missing: of every need that was not handed over, the line to write.
    """
    found: list[Finding] = []
    for check in checks:
        line = next((missing[name] for name in check.needs if name in missing), "")
        if line:
            found.append(Finding(check.code, "skipped", at=line))
            continue
        try:
            answers = list(check.test(about))
        except Exception as error:
            answers = [Finding(check.code, "undecided", at=f"{type(error).__name__}: {error}")]
        found += answers or [Finding(check.code, "pass")]
    return tuple(found)
