"""The table of claims is consistent, and its page is that of the table."""

from dataclasses import replace
from pathlib import Path

import pytest

from analyses.claims.__main__ import VERDICTS, contradiction, faults, page, read

REPORTS = Path(__file__).parents[2] / "reports"
CLAIMS = read(REPORTS / "claims.csv")
RATIO = replace(CLAIMS[0], number="1.2", low="1.1", high="1.3", asked="≤ 1", verdict="refuted")


def test_every_claim_has_a_verdict_that_its_numbers_bear_out(monkeypatch):
    monkeypatch.chdir(REPORTS.parent)
    assert list(faults(CLAIMS, REPORTS)) == []
    assert {claim.verdict for claim in CLAIMS} == set(VERDICTS)


def test_the_committed_page_is_that_of_the_table():
    assert (REPORTS / "claims/README.md").read_text() == page(CLAIMS)


@pytest.mark.parametrize(
    ("changes", "sound"),
    [
        ({}, True),
        ({"verdict": "holds"}, False),
        ({"verdict": "undecided"}, False),
        ({"low": "0.9", "verdict": "undecided"}, True),
        ({"low": "0.9"}, False),
        ({"asked": "≥ 1", "verdict": "holds"}, True),
        ({"asked": "≥ 1.2", "verdict": "direction shown, size not"}, False),
        ({"low": "1.25"}, False),
        ({"number": "0", "low": "", "high": "", "asked": "≤ 0", "verdict": "holds"}, True),
        ({"number": "1", "low": "", "high": "", "asked": "≤ 0", "verdict": "holds"}, False),
    ],
)
def test_a_verdict_against_its_interval_is_refused(changes, sound):
    assert (contradiction(replace(RATIO, **changes)) == "") is sound


def test_a_claim_without_page_or_commit_and_one_that_stands_twice_are_named(monkeypatch):
    monkeypatch.chdir(REPORTS.parent)
    lost = replace(RATIO, claim="X", page="nowhere", commit="0123456789")
    found = list(faults([lost, replace(lost, verdict="true")], REPORTS))
    assert "X stands 2 times" in found and "X: no page nowhere/README.md" in found
    assert any(line.startswith("X: verdict 'true'") for line in found)
