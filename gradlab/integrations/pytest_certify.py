"""`pytest --gradlab-certify FILE.py:NAME`: a test for every block and stratum of a certificate.

    engine.py:simulator::B [free]         FAILED   ∂s′/∂a: v′ by force is off by 3.1%: …

The examination is made as the tests are collected; JUnit's XML has an entry each, as of any test.
A plugin of pytest's by an entry point of this package; without the option it does nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradlab.errors import Failure, InputError, imported


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of a certificate."""
    group = parser.getgroup("gradlab", "certificates of differentiable simulators")
    group.addoption(
        "--gradlab-certify", action="append", default=[], metavar="FILE.py:NAME",
        help="a System, a gradlab.Task, or a function that returns one; several times for several",
    )  # fmt: skip
    group.addoption("--gradlab-samples", type=int, default=2048, help="states of each [2048]")
    group.addoption(
        "--gradlab-fail-above", type=float, default=1e-3, metavar="ERROR",
        help="relative error from which a derivative is wrong [0.001]",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Certify, and add an item for every block and stratum."""
    for target in config.getoption("--gradlab-certify"):
        try:
            certificate = imported("gradlab.tools.certify.compute:certify")(
                imported("gradlab.tools.certify.compute:simulator_of")(target),
                samples=config.getoption("--gradlab-samples"),
                fail_above=config.getoption("--gradlab-fail-above"),
            )
        except (InputError, Failure) as error:
            raise pytest.UsageError(f"--gradlab-certify {target}: {error}") from None
        whole = _Certificate.from_parent(session, name=target, nodeid=target)
        items += _entries(whole, certificate)


class _Certificate(pytest.Collector):
    """One target; its entries are made with it."""

    def collect(self) -> list[pytest.Item]:
        return []


class _WrongError(Exception):
    """Findings of one entry, in words."""


class _Entry(pytest.Item):
    """One block at one stratum."""

    def __init__(self, *, wrong: list[str], facts: dict[str, Any], **given: Any) -> None:
        super().__init__(**given)
        self.wrong = wrong
        self.user_properties += facts.items()

    def runtest(self) -> None:
        if self.wrong:
            raise _WrongError("\n".join(self.wrong))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, _WrongError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return Path(self.parent.name if self.parent else ""), None, self.name


def _entries(whole: _Certificate, certificate: Any) -> list[pytest.Item]:
    """Blocks by strata in the order of the table, and what is left: the step itself."""
    table, entries = certificate.table(), certificate.table("entries")
    found: list[pytest.Item] = []
    wrong = {k: x for k, x in enumerate(certificate.findings) if x.decision == "fail"}
    left = set(wrong)
    for (block, stratum), rows in table.groupby(["block", "stratum"], sort=False):
        here = (entries["block"] == block) & entries["stratum"].isin([stratum, ""])
        numbers = set(entries.loc[here, "finding"]) & wrong.keys()
        facts = {
            f"{row['source']} {name}": row[name]
            for _, row in rows.iterrows() for name in ("states", "judged", "p95", "largest")
        }  # fmt: skip
        mine = [wrong[k] for k in sorted(numbers)]
        found.append(_entry(whole, f"{block} [{stratum}]", mine, facts))
        left -= numbers
    return [*found, _entry(whole, "step", [wrong[k] for k in sorted(left)], {})]


def _entry(whole: _Certificate, name: str, wrong: list[Any], facts: dict[str, Any]) -> pytest.Item:
    node = f"{whole.name}::{name}"
    said = [each.said for each in wrong]
    return _Entry.from_parent(whole, name=name, nodeid=node, wrong=said, facts=facts)
