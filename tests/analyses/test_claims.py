"""Four outcomes of a claim: from planted parts, and of the forty frozen ones."""

import json
from dataclasses import replace
from math import nan
from pathlib import Path

import pandas as pd
import pytest

from analyses.claims import parts as claim_parts
from analyses.claims import table as claims
from analyses.harness import criteria, verdicts
from analyses.harness.criteria import Part, deciding, outcome

MET = Part("met", 2.0, 1.5, 2.5, "above", 1.0)
MISSED = Part("missed", 2.0, 1.5, 2.5, "below", 1.0)
OPEN = Part("open", 2.0, 0.5, 3.5, "above", 1.0)
LOST = Part("lost", nan, nan, nan, "above", 1.0)
REPORTS = Path(__file__).parents[2] / "reports"


@pytest.mark.parametrize(
    "parts, expected",
    [
        ([], "not tried"),
        ([MET, MET], "holds"),
        ([MET, OPEN], "undecided"),
        ([MET, LOST], "undecided"),
        ([MET, OPEN, MISSED], "refuted"),
    ],
)
def test_a_part_missed_refutes_and_an_open_one_decides_nothing(parts, expected):
    assert outcome(parts) == expected


def test_a_number_on_its_threshold_without_error_is_met():
    assert criteria.exact("violations", 0.0, "below", 0.0).state == "met"
    assert criteria.exact("violations", 1.0, "below", 0.0).state == "missed"


def test_the_missing_trials_follow_from_the_distance_in_standard_errors():
    # Half a width of 1.5 is .77 standard errors from 1; 80% power wants (1.96 + .84)² of them.
    needed = OPEN.more(20)
    assert needed == pytest.approx(20 * ((1.96 + 0.8416) * 1.5 / 1.96) ** 2 - 20, rel=0.03)
    assert replace(OPEN, n=80).more(20) == pytest.approx(4 * needed, rel=0.03)
    squared = Part("ratio", 4.0, 0.25, 64.0, "above", 1.0, ratio=True)
    assert squared.more(20) == pytest.approx(20 * 2.8016**2 * 2**2 / 1.96**2 - 20, rel=0.03)


def test_one_part_on_the_wrong_side_settles_a_claim_and_all_on_the_right_one_have_to():
    against = Part("against", 0.5, -1.0, 2.0, "above", 1.0)
    dear = Part("dear", 1.1, -1.0, 3.2, "above", 1.0)
    assert deciding([MET], 20) is None
    assert deciding([OPEN, dear], 20) == (dear, dear.more(20))
    assert deciding([OPEN, dear, against], 20) == (against, against.more(20))
    assert deciding([OPEN, LOST], 20) == (LOST, None)
    assert deciding([against, LOST], 20) == (against, against.more(20))


@pytest.mark.parametrize(
    "claim, unit",
    [
        ("SN-VAR", "trials more"), ("TWO-MODEL", "trials more"), ("PRED-COST", "trials more"),
        ("CAPACITY", "trials more"), ("MULTISTEP", "trials more"), ("EARLY-LATE", "starts more"),
        ("TAB1-PEND", "seeds more"), ("DP-VS-DR", "wrong models more"),
    ],
)  # fmt: skip
def test_what_is_undecided_has_the_number_that_would_decide(claim, unit):
    row = next(each for each in claims.CLAIMS if each.id == claim)
    undecided = [part for part in row.parts() if part.state == "undecided"]
    assert undecided and unit in claims.decided_by(row)


def test_forty_claims_each_with_its_outcome_and_its_number():
    ids = [claim.id for claim in claims.CLAIMS]
    assert len(ids) == len(set(ids)) == 40
    for claim in claims.CLAIMS:
        tried = claim.outcome != "not tried"
        assert tried == bool(claim.parts()), claim.id
        assert not tried or (claim.n and claim.scale and claim.file), claim.id
    verdicts_of = {Path(claim.file).name.upper() for claim in claims.CLAIMS}
    beside = {"EARLY-LATE-ARMS", "TWO-MODEL-RETURNS", "SN-TRAIN-SWING-UP"}
    beside |= {
        "SHAC-WINDOW",
        "WINDOW-GAIN",
        "DMO-JACOBIANS",
        "RACE",
        "AHAC-THRESHOLD",
        "PWM-GRADIENTS",
        "FRONTIER",
        "STALENESS",
    }
    assert set(claim_parts.PARTS) | set(claim_parts.PREMISES) <= {*ids, *verdicts_of, *beside}


def test_what_the_audit_found_alike_is_told_apart():
    by_id = {claim.id: claim for claim in claims.CLAIMS}
    assert by_id["TWO-MODEL"].outcome == by_id["PRED-COST"].outcome == "undecided"
    assert by_id["N-W-SENS"].outcome == by_id["EARLY-LATE"].outcome == "undecided"
    assert by_id["CAPACITY"].outcome == by_id["COND1"].outcome == "refuted"
    assert by_id["SN-TRAIN"].outcome == "not tried"
    cells = {part.label: part.state for part in by_id["SN-VAR"].parts()}
    assert cells["variance plain/normalised at h = 15, cart-pole"] == "undecided"


def test_the_committed_table_is_that_of_the_files():
    table = claims.rows()
    kept = pd.read_csv(REPORTS / "claims.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(kept, table.astype(str))
    assert claims.page(table) in (REPORTS / "README.md").read_text()


def test_a_page_of_a_folder_has_the_outcomes_of_its_own_numbers(tmp_path):
    numbers = {"violations": 3.0, "violations_total_variation": 0.0}
    made = {
        "claim": "LEMMA-A1", "paper": "MAAC", "holds": True, "sentence": "True", "command": "x",
        "numbers": numbers, "environment": {"commit": "0"},
    }  # fmt: skip
    (tmp_path / "verdicts.json").write_text(json.dumps({"lemma-a1": made}))
    assert "**refuted**" in verdicts.row(made, tmp_path)
    repaired = made | {"numbers": {**numbers, "violations": 0.0}}
    (tmp_path / "verdicts.json").write_text(json.dumps({"lemma-a1": repaired}))
    assert "**holds**" in verdicts.row(made, tmp_path)
