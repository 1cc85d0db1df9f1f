"""`pytest --gradlab-certify FILE.py:NAME`: a test for every block and stratum of a certificate.

    engine.py:simulator::B [free]         FAILED   ∂s′/∂a: v′ by force is off by 3.1%: …

The examination is made as the tests are collected; JUnit's XML has an entry each, as of any test.
A plugin of pytest's by an entry point of this package; without the option it does nothing.
"""

from __future__ import annotations

import functools
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
            system = imported("gradlab.tools.certify.examination:simulator_of")(target)
            examine = functools.partial(
                imported("gradlab.tools.certify.compute:certify"),
                system,
                samples=config.getoption("--gradlab-samples"),
                fail_above=config.getoption("--gradlab-fail-above"),
            )
            anew = imported("gradlab.tools.certify.repeats:certified_anew")
            certificate = anew(system, 0, examine)
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
    found: list[pytest.Item] = []
    wrong = [
        each for each in certificate.findings
        if each.severity == "wrong" and each.size > certificate.fail_above
    ]  # fmt: skip
    rows: dict[tuple[str, str], list[Any]] = {}
    for row in certificate.rows:
        rows.setdefault((row["block"], row["stratum"]), []).append(row)
    left = list(wrong)
    for (block, stratum), mine in rows.items():
        here = [x for x in wrong if x.block == block and x.stratum in (stratum, None)]
        left = [x for x in left if x not in here]
        facts = {
            f"{row['source']} {name}": row[name]
            for row in mine for name in ("states", "judged", "p95", "largest")
        }  # fmt: skip
        found.append(_entry(whole, f"{block} [{stratum}]", here, facts))
    return [*found, _entry(whole, "step", left, {})]


def _entry(whole: _Certificate, name: str, wrong: list[Any], facts: dict[str, Any]) -> pytest.Item:
    sentences = [each.sentence for each in wrong]
    node = f"{whole.name}::{name}"
    return _Entry.from_parent(whole, name=name, nodeid=node, wrong=sentences, facts=facts)
