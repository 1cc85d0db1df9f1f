"""Five outcomes of a claim: from planted parts, and of the forty frozen ones."""

import json
import re
from dataclasses import replace
from math import nan
from pathlib import Path

import pandas as pd
import pytest

from analyses.claims import __main__ as claims
from analyses.claims import parts as claim_parts
from analyses.harness import criteria, verdicts
from analyses.harness.criteria import Part, deciding, outcome, read_verdicts, sized

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
        ([MET, replace(MISSED, of="size")], "direction shown, size not"),
        ([MET, replace(OPEN, of="size")], "direction shown, size not"),
        ([OPEN, replace(MISSED, of="size")], "undecided"),
        ([MET, replace(MISSED, of="time"), replace(MISSED, of="beside")], "holds"),
    ],
)
def test_the_sentence_decides_and_a_size_of_ours_refutes_nothing(parts, expected):
    assert outcome(parts) == expected


def test_a_direction_and_its_size_are_one_number_with_two_thresholds():
    direction, size = sized(MET, 3.0)
    assert (direction.state, size.state) == ("met", "missed")
    assert outcome([direction, size]) == "direction shown, size not"
    assert outcome([replace(MISSED, of="time")], "time") == "refuted"


def test_a_number_on_its_threshold_without_error_is_met():
    assert criteria.exact("violations", 0.0, "below", 0.0).state == "met"
    assert criteria.exact("violations", 1.0, "below", 0.0).state == "missed"


def test_the_missing_trials_follow_from_the_distance_in_standard_errors():
    # Half a width of 1.5 is Student's t times the standard error; 80% power wants (1.96 + .84)².
    for n, student in ((5, 2.7764), (20, 2.0930), (80, 1.9905)):
        error = 1.5 / student
        needed = n * ((1.96 + 0.8416) * error) ** 2 - n
        assert replace(OPEN, n=n).more(20) == pytest.approx(needed, abs=1)
    assert OPEN.more(20) == replace(OPEN, n=20).more(5)
    squared = Part("ratio", 4.0, 0.25, 64.0, "above", 1.0, ratio=True)
    assert squared.more(20) == pytest.approx(20 * 2.8016**2 * 2**2 / 2.093**2 - 20, abs=1)


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
        ("SN-VAR", "more trials"), ("TWO-MODEL", "more seeds"), ("PRED-COST", "more trials"),
        ("CAPACITY", "more seeds"), ("MULTISTEP", "more trials"), ("EARLY-LATE", "more starts"),
        ("TAB1-PEND", "more seeds"), ("DP-VS-DR", "more wrong models"), ("U-SHAPE", "cells of 32"),
    ],
)  # fmt: skip
def test_what_is_undecided_has_the_number_that_would_decide(claim, unit):
    row = next(each for each in claims.CLAIMS if each.id == claim)
    undecided = [part for part in row.parts() if part.state == "undecided"]
    assert undecided and unit in claims.still_open(row)


def test_forty_claims_each_with_its_outcome_and_its_number():
    ids = [claim.id for claim in claims.CLAIMS]
    assert len(ids) == len(set(ids)) == 40
    for claim in claims.CLAIMS:
        tried = claim.outcome != "not tried"
        assert tried == bool(claim.parts()), claim.id
        assert not tried or (claim.n and claim.scale and claim.file), claim.id
    verdicts_of = {Path(claim.file).name.upper() for claim in claims.CLAIMS}
    beside = {"EARLY-LATE-ARMS", "TWO-MODEL-BIAS", "CAPACITY-ERRORS", "SN-TRAIN-SWING-UP"}
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
    beside |= {"COND1-LEARNED", "HOPPER-SN", "LANDSCAPE-LEARNED", "U-SHAPE-LEARNED"}
    beside |= {"VAR-EXP-LEARNED"}
    assert set(claim_parts.PARTS) | set(claim_parts.PREMISES) <= {*ids, *verdicts_of, *beside}


@pytest.mark.parametrize(
    "claim, expected, word",
    [
        ("BIAS-DEC", "holds", "violations of the bounds in 4,000: 0"),
        ("COND1", "refuted", "inverted pendulum, open loop, push removed"),
        ("LANDSCAPE", "direction shown, size not", "≥ 3"),
        ("OPT-H", "direction shown, size not", "≥ 0.9"),
        ("BIAS-LIN", "direction shown, size not", "≥ 5"),
        ("SN-VAR", "refuted", "h = 2, pendulum"),
        ("U-SHAPE", "undecided", "cells of 32 with a U: 11"),
        ("THM1-MPG", "refuted", "as printed"),
        ("LEMMA-A1", "refuted", "the model's own states"),
        ("MONOTONE", "refuted", "as printed"),
        ("CAPACITY", "undecided", "mean return over the run"),
        ("MULTISTEP", "refuted", "equal steps"),
        ("DD-VS-MSE", "refuted", "equal steps"),
        ("GRADLOSS", "undecided", "equal steps"),
        ("TWO-MODEL", "undecided", "mean return over the run"),
        ("EARLY-LATE", "refuted", "bias²(25) − bias²(0) at iteration 0, seed 2"),
        ("SN-TRAIN", "not tried", "premise"),
    ],
)
def test_a_verdict_is_about_the_papers_sentence(claim, expected, word):
    row = next(each for each in claims.CLAIMS if each.id == claim)
    assert row.outcome == expected
    assert word in claims.decided_by(row)


def test_equal_time_has_a_column_of_its_own():
    table = claims.rows().set_index("id")["equal time"]
    told = table[table != "–"]
    assert set(told.index) == {"GRADLOSS", "MULTISTEP", "DD-VS-MSE"}
    assert told.str.startswith("refuted").all() and told.str.contains("equal time").all()


def test_best_of_table_1_is_compared_with_every_row():
    path, pendulum = (
        {part.label for part in claim.parts()}
        for claim in claims.CLAIMS
        if claim.id in ("TAB1-PATH", "TAB1-PEND")
    )
    others = ("n-step-dpg", "n-step-adp", "td3", "sac")
    assert {f"{mpg} − {other}" for mpg in ("mpg-v1", "mpg-v2") for other in others} <= path
    assert {f"mpg-v2 − {other}" for other in (*others, "mpg-v1")} <= pendulum


def test_a_note_has_the_numbers_of_the_verdict_that_it_names():
    notes = [text for claim in claims.CLAIMS for text in (claim.beside, claim.deviation)]
    named = re.findall(r"\{([\w/-]+)\|([^}]+)\}", " ".join(notes))
    assert len(named) > 20 and "{" not in "".join(map(claims.told, notes))
    rate = read_verdicts(REPORTS / "bounds")["bias-dec"]["numbers"]["rate"]
    assert claims.told("by {bounds/bias-dec|rate} a step") == f"by −{-rate:.3g} a step"


def test_cells_of_the_page_are_short():
    cells = [
        cell
        for line in claims.page(claims.rows()).splitlines()
        if " | " in line and not line.startswith("- ")
        for cell in line.split(" | ")
    ]
    assert max(map(len, cells)) < 240


@pytest.mark.skipif(not (REPORTS.parent / ".git").exists(), reason="no history here")
def test_the_commit_of_every_verdict_is_in_the_history_or_marked():
    known = {
        folder.name: [
            (claim, made["environment"]["commit"])
            for claim, made in read_verdicts(folder).items()
            if "in history" not in made["environment"]
            and not verdicts.in_history(made["environment"]["commit"])
        ]
        for folder in {path.parent for path in REPORTS.rglob("verdicts.json")}
    }
    assert not any(known.values()), known


def test_a_verdict_of_a_commit_that_is_in_no_history_says_so(tmp_path):
    assert verdicts.checked({"commit": "0123456789ab"})["in history"] == "no"
    assert verdicts.checked({"commit": "abc+changes"})["in history"] == "no"
    made = {
        "claim": "X", "paper": "-", "holds": False, "command": "x",
        "environment": {"commit": "0123456789ab", "in history": "no"},
    }  # fmt: skip
    assert "0123456789ab (in no history)" in verdicts.row(made, tmp_path)
    assert "**undecided**" in verdicts.row(made, tmp_path)


def test_the_committed_table_is_that_of_the_files():
    table = claims.rows()
    kept = pd.read_csv(REPORTS / "claims.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(kept, table.astype(str))
    assert claims.page(table) in (REPORTS / "README.md").read_text()


def test_a_page_of_a_folder_has_the_outcomes_of_its_own_numbers(tmp_path):
    numbers = {
        "violations": 0.0, "violations_total_variation": 0.0, "violations_own_states": 3.0
    }  # fmt: skip
    made = {
        "claim": "LEMMA-A1", "paper": "MAAC", "holds": True, "sentence": "True", "command": "x",
        "numbers": numbers, "environment": {"commit": "0"},
    }  # fmt: skip
    (tmp_path / "verdicts.json").write_text(json.dumps({"lemma-a1": made}))
    assert "**refuted**" in verdicts.row(made, tmp_path)
    repaired = made | {"numbers": {**numbers, "violations_own_states": 0.0}}
    (tmp_path / "verdicts.json").write_text(json.dumps({"lemma-a1": repaired}))
    assert "**holds**" in verdicts.row(made, tmp_path)


def test_a_page_lists_the_numbers_that_decide_one_a_line_what_was_missed_first():
    folder = REPORTS / "lemmas"
    made = read_verdicts(folder)["cond1"]
    text = verdicts.decided(made, folder)
    lines = [line for line in text.splitlines() if line.startswith("| exponent")]
    assert text.strip().startswith("**COND1: refuted.** Asked: ")
    assert [line.split(" | ")[-1] for line in lines] == ["missed |", *["met |"] * 7]
    assert text.index("<details>") < text.index("- Does not hold in general\n")
    assert text.endswith("hides them in the norm\n\n</details>\n")


def test_a_sentence_of_many_numbers_is_a_list_under_its_title():
    said = "Partly. Error: at h = 1: 0.5 (bias: 0.1; noise: 2); at h = 4: 6. By eq. 5; not by (6)."
    assert list(verdicts.one_a_line(said)) == [
        "- Partly", "- Error:", "  - at h = 1: 0.5 (bias: 0.1; noise: 2)", "  - at h = 4: 6",
        "- By eq. 5", "- not by (6)",
    ]  # fmt: skip


def test_a_clause_of_several_intervals_has_a_line_for_each():
    said = "Bias: equal time: cart-pole, no noise 0.35 [0.19, 0.64] needed, pendulum 3 [1, 9]; 4."
    assert list(verdicts.one_a_line(said)) == [
        "- Bias:", "  - equal time:", "    - cart-pole, no noise 0.35 [0.19, 0.64] needed",
        "    - pendulum 3 [1, 9]", "  - 4",
    ]  # fmt: skip
    one = "Bias: 0.3 [0.1, 0.6] at first, then lost"
    assert list(verdicts.one_a_line(one)) == [f"- {one}"]


@pytest.mark.parametrize(
    "folder, stem, expected",
    [("scale", "staleness", "not tried"), ("remedies", "sn-train", "not tried"),
     ("horizon-claims", "early-late-return", "holds")],
)  # fmt: skip
def test_a_page_says_what_was_not_tried_and_what_has_no_parts(folder, stem, expected):
    assert verdicts.word(read_verdicts(REPORTS / folder)[stem], REPORTS / folder) == expected


def test_no_page_and_no_print_of_a_study_has_a_second_word_for_refuted():
    """Holds, direction shown, refuted, undecided, not tried: "not met" would be a sixth outcome."""
    folders = ((REPORTS, "*.md"), (REPORTS.parent / "analyses", "*.py"))
    texts = {path: path.read_text() for folder, kind in folders for path in folder.rglob(kind)}
    assert len(texts) > 100
    words = r"[Cc]riterion (is |was )?(not )?met\b|\bnot met\b[:.*'\"]"
    found = [path for path, text in texts.items() if re.search(words, text)]
    assert not found, found
