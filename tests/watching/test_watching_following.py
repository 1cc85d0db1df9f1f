"""A reader beside a writer: every acknowledged row is seen, at the price of what is new."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.storage import records
from gradlab.storage.journal import Journal, journal_of, read
from gradlab.watching.state import SILENT, Event, Progress, Watcher, _paced, document
from tests.probe import planted_probe as planted
from tests.watching import grown


def iteration(watcher):
    """That of the last row that a look shows."""
    return watcher.state().view.progress.done


WRITER = """
import sys, time
from pathlib import Path
from gradlab.storage import journal
from tests.watching import grown
journal.SYNC = 0.01
with grown.training(Path(sys.argv[1])) as writer:
    writer.append("evaluations", grown.evaluation_row(0))
    for k in range(10**9):
        writer.append("updates", grown.update_row(k))
        time.sleep(1e-3)
"""


@pytest.mark.slow
def test_beside_a_writer_at_work_no_look_misses_a_row_or_shows_a_wrong_one(tmp_path):
    path, counts = tmp_path / "run.h5", []
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    end = time.monotonic() + 30
    while len(counts) < 80 and time.monotonic() < end:
        try:
            record = read(path)
        except InputError:  # not begun
            continue
        rows = record.groups["updates"]["iteration"].values
        if not len(rows):
            continue
        counts.append(len(rows))
        assert rows.tolist() == [10 * k for k in range(len(rows))]
        norms = record.groups["updates"]["policy_norm"].values
        np.testing.assert_array_equal(norms, np.arange(len(rows))[:, None] + [1.0, 3.0])
        assert not record.attributes.get("damaged_frames", 0)
        time.sleep(0.02)
    writer.kill()
    writer.wait()
    assert counts == sorted(counts) and counts[-1] > counts[0]


def test_a_fold_in_the_middle_of_a_look_hides_no_row(tmp_path, monkeypatch):
    path, real = tmp_path / "run.h5", records.read
    with grown.training(path) as writer:
        writer.append("evaluations", grown.evaluation_row(0))
        writer.append("updates", grown.update_row(0))
    with grown.training(path) as writer:
        writer.append("updates", grown.update_row(1))

        def read_while_folding(place):
            found = real(place)
            monkeypatch.undo()
            writer.append("updates", grown.update_row(2))
            writer.close()
            return found

        monkeypatch.setattr(records, "read", read_while_folding)
        watcher = Watcher(path)
        assert iteration(watcher) == 10
        assert iteration(watcher) == 20


def test_a_torn_row_counts_when_it_is_whole(tmp_path):
    path = tmp_path / "run.h5"
    writer = grown.training(path)
    writer.append("evaluations", grown.evaluation_row(0))
    for k in range(3):
        writer.append("updates", grown.update_row(k))
    writer._file.close()
    whole = journal_of(path).read_bytes()
    journal_of(path).write_bytes(whole[:-5])
    watcher = Watcher(path)
    assert iteration(watcher) == 10
    with journal_of(path).open("ab") as file:
        file.write(whole[-5:])
    assert iteration(watcher) == 20


def test_looking_takes_no_lock_and_changes_no_byte(tmp_path):
    path = tmp_path / "run.h5"
    grown.killed(path)
    before = journal_of(path).read_bytes()
    watcher = Watcher(path, clock=lambda: time.time() + SILENT + 1)
    assert watcher.state().phase == "stopped" and "was not closed" in watcher.state().told
    assert journal_of(path).read_bytes() == before
    with grown.training(path) as writer:  # would refuse to begin if somebody held the lock
        assert watcher.state().phase == "silent"
        writer.append("updates", grown.update_row(9))
        assert watcher.state().view.progress.done == 90


def test_the_phase_says_what_the_writer_does(tmp_path):
    path, now = tmp_path / "run.h5", [time.time()]
    watcher = Watcher(path, clock=lambda: now[0])
    assert (watcher.state().phase, "waiting for it" in watcher.state().told) == ("waiting", True)
    with grown.training(path) as writer:
        assert watcher.state().phase == "empty"
        for k in range(3):
            writer.append("updates", grown.update_row(k))
        assert watcher.state().phase == "running"
        now[0] += SILENT + 5
        assert watcher.state().phase == "silent"
        assert watcher.state().age(now[0]) > SILENT
    assert watcher.state().phase == "ended"
    assert "before its last iteration (--resume" in watcher.state().told


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no HDF5 at all", "not a readable HDF5 file"), (b"GLJ\x01", "not a readable")],
)
def test_a_file_that_is_no_run_is_no_end_of_the_view(tmp_path, content, words):
    path = tmp_path / "run.h5"
    path.write_bytes(content)
    watcher = Watcher(path)
    assert watcher.state().phase == "unreadable" and words in watcher.state().told
    path.unlink()
    with grown.training(path) as writer:
        writer.append("updates", grown.update_row(0))
        assert watcher.state().phase == "running"


# The numbers of a view are the rows' own, the return first; what is told is what happened.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Watcher(grown.trained(tmp_path_factory.mktemp("state") / "run.h5")).state()


def test_a_view_has_the_reports_recommendation_the_rows_pace_and_events_and_is_json(trained):
    headline = trained.view.screen.headline
    assert headline.startswith("Read its 1 event first: mpg-v2 ends higher on pendulum, return -1")
    assert headline.endswith("Run 3 more seeds: with 2 the rise is not shown.")
    assert trained.view.screen.numbers[0].text == "-62"
    progress = trained.view.progress
    assert (progress.done, progress.total, progress.rate) == (400, 1000, 20.0)
    assert progress.left == 30.0 and progress.share == 0.4 and progress.beat == 0.5
    assert _paced("iteration", 10, np.array([5]), np.array([1.0])).left is None
    assert Progress("iteration", 12, 10).share == 1.0
    assert trained.view.events == [Event(300, "", "pendulum diverged")]
    found = json.loads(json.dumps(document(trained), allow_nan=False))
    assert found["title"] == trained.view.title and found["sure"].startswith("◐ Choose")


def test_a_probe_shows_its_screen_and_its_alarms(tmp_path):
    path = planted.written(tmp_path / "run.h5", planted.everything())
    state = Watcher(path).state()
    assert state.view.title == "probe on planted"
    assert state.view.events[-1] == Event(
        1200, "saturated actor", planted.alarm(2, 1200)["message"]
    )
    assert state.view.screen.light == "none"


@pytest.mark.parametrize(
    "broken", [{"iterations": 1e400}, {"iterations": "many"}, {"iterations": None}]
)
def test_a_foreign_configuration_is_told_and_stops_nothing(tmp_path, broken):
    about = grown.training_attributes()
    config = json.loads(about["config"])
    config["settings"] |= broken
    with Journal(
        tmp_path / "run.h5", grown.training_tables(), about | {"config": json.dumps(config)}
    ) as writer:
        writer.append("updates", grown.update_row(1))
    state = Watcher(writer.path).state()
    assert state.phase == "unreadable" and "not a complete" in state.told


def test_the_terminal_starts_without_what_trains_and_draws():
    code = (
        "import sys, gradlab.watching.showing\n"
        "print([each for each in ('torch', 'matplotlib') if each in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
