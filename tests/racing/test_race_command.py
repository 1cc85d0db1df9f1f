"""`gradlab race`: a file and a page, what a stop leaves, and how it goes on."""

import json
from pathlib import Path

import numpy as np
import pytest

from gradlab.cli.program import main
from gradlab.figures import style
from gradlab.reporting import output
from gradlab.tools.race.result import load
from tests.own_files import LQR, OWN

SMALL = [
    "--candidates", "data", "model_all:2", "--updates", "8", "--lr", "0.01", "--refit", "4",
    "--batch", "16", "--starts", "8", "--json",
]  # fmt: skip


def raced(folder, *more):
    own = folder / "own.py"
    own.write_text(OWN)
    networks = ["--policy", f"{own}:policy", "--critic", f"{own}:critic"]
    output = ["--output", str(folder / "race.h5")]
    return main(["race", *LQR, *networks, *SMALL, *output, *more])


def test_a_race_has_a_file_and_a_page(tmp_path, capsys):
    assert raced(tmp_path) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert {row["candidate"] for row in document["table"]} == {"data", "model_all:2"}
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "Which gradient leads farthest?" in page and document["recommendation"] in page
    names = {"data (critic only)", "model, BPTT at h = 2"}
    race, shown = load(tmp_path / "race.h5"), output.page_of(tmp_path / "race.h5")
    curves = {str(each.get_label()): each for each in shown.panels[0].figure.axes[0].lines}
    assert names <= set(curves) and {race.called(name) for name in race.names} == names
    assert curves["data (critic only)"].get_color() == style.VERMILION
    assert curves["model, BPTT at h = 2"].get_color() == style.CYAN
    assert load(tmp_path / "race.h5").config["command"].startswith("gradlab race")
    assert raced(tmp_path) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_race_can_be_read_and_goes_on(tmp_path, capsys, monkeypatch):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert raced(whole) == 0
    from gradlab.tools.race.branches import SharedNetworks

    step, made = SharedNetworks.step, []

    def stopping(self, branch, update):
        made.append(update)
        if update == 5:
            raise KeyboardInterrupt
        step(self, branch, update)

    with monkeypatch.context() as patch:
        patch.setattr(SharedNetworks, "step", stopping)
        assert raced(tmp_path) == 130
    capsys.readouterr()
    partial = load(tmp_path / "race.h5")
    assert partial.updates == 5 and "after 5 of 8" in partial.config["interrupted"]
    assert raced(tmp_path, "--resume") == 0
    again, once = load(tmp_path / "race.h5"), load(whole / "race.h5")
    assert np.array_equal(again.results.change, once.results.change, equal_nan=True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--updates", "0"], "updates is 0"),
        (["--candidates", "data"], "a race needs at least two"),
        (["--candidates", "data", "bogus:3"], "'bogus:3' is unknown"),
        (["--refit", "0"], "refit is 0"),
    ],
)
def test_what_is_no_race_is_refused_before_networks_are_fitted(wrong, told, tmp_path, capsys):
    output = ["--output", str(tmp_path / "race.h5")]
    assert main(["race", *LQR, *output, *wrong]) == 2
    said = capsys.readouterr().err
    assert told in said and "begins" not in said
