"""The campaign in small; in full with `-m slow`, or by `python -m tests.robustness.campaign`.

No flipped bit in any file of gradlab's ends a process, raises a traceback or passes unseen.
"""

import pytest

from tests.robustness import adversity, calls, flips, kills
from tests.robustness.campaign import KINDS, run


@pytest.mark.slow
def test_hostile_arguments_of_public_functions_are_taken_or_refused():
    told: list[str] = []
    found = calls.call_outcomes(150, told=told)
    assert set(found) <= calls.ALLOWED, told


def test_kills_of_a_writer_and_of_its_folds_lose_nothing():
    found = kills.kill_outcomes(6)
    assert found == {"kept": 6}


@pytest.mark.parametrize("name", ["a disk that fills", "a disk full at saving", "a read-only disk"])
def test_a_disk_that_cannot_be_written_costs_nothing_that_was_there(name):
    work, _ = adversity.ADVERSITIES[name]
    assert set(work(1, 0)) <= adversity.ALLOWED


def test_a_clock_set_back_and_torn_journals_lose_nothing():
    assert adversity.clocks_set_back(20) == {"kept": 20}
    assert adversity.torn_journals(3) == {"kept": 3}


def test_outcomes_are_written_as_they_are_found_and_not_tried_again(tmp_path, capsys):
    table = tmp_path / "outcomes.csv"
    for _ in range(2):
        assert run(["a clock set back"], 0.1, 0, table) == 0
    assert table.read_text().splitlines()[1].startswith("a clock set back,10,10 kept,0,")
    assert capsys.readouterr().out == "a clock set back: 10 kept\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_whole_campaign_meets_nothing_that_is_not_allowed(name, tmp_path):
    assert run([name], 1.0, 1, tmp_path / "outcomes.csv") == 0


@pytest.mark.parametrize("kind", flips.KINDS)
def test_a_flipped_bit_is_refused_or_noticed(kind):
    found = flips.flip_outcomes(kind, 40)
    assert found.total() == 40
    assert set(found) <= flips.ALLOWED, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", flips.FORGED)
def test_a_forged_file_ends_a_child_process_at_worst(kind):
    found = flips.flip_outcomes(kind, 300)
    assert set(found) <= {*flips.ALLOWED, "silent"}, found
