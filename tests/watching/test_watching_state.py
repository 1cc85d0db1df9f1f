"""The numbers of a view are the rows' own, the return first; what is told is what happened."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gradlab.runs.training import probe_results
from gradlab.storage.journal import Journal
from gradlab.watching.state import Event, Progress, Watcher, _paced, document
from tests.probe import planted_probe as planted
from tests.watching import grown


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Watcher(grown.trained(tmp_path_factory.mktemp("state") / "run.h5")).state()


def test_a_view_has_the_reports_recommendation_the_rows_pace_and_events_and_is_json(trained):
    assert trained.view.screen.headline.startswith("mpg-v2 learns pendulum: return -1")
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


def test_alarms_of_a_probe_inside_training_name_their_seed(tmp_path):
    tables = grown.training_tables() | probe_results.tables((0, 1), 2, 3, 4, (0, 25))
    about = grown.training_attributes() | probe_results.attributes(["w", "b"])
    config = json.loads(about["config"])
    config["settings"]["probe_budget"] = 0.1
    with Journal(tmp_path / "run.h5", tables, about | {"config": json.dumps(config)}) as writer:
        for k in range(3):
            writer.append("updates", grown.update_row(k))
            writer.append("evaluations", grown.evaluation_row(k))
            row = {"update": 10 * k, "step": 10 * k, "looked": 10.0, "spent": 0.04}
            row |= {"update_ratio": np.array([1e-3, 3e-3]), "nonfinite_updates": np.zeros(2)}
            writer.append("probe_vitals", row)
        told = planted.alarm(0, 20, "saturated actor", "lower the gain")
        writer.append("probe_alarms", told | {"step": 20, "seed": 1})
    view = Watcher(writer.path).state().view
    assert view.events == [Event(20, "saturated actor", "seed 1: lower the gain")]


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
