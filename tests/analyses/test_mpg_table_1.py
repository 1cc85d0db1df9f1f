"""Table I on runs with known curves, and one small run of its own."""

import pandas as pd
import pytest

from analyses import mpg_table_1
from gradlab.journal import read


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("mpg-v2", "td3"):
        mpg_table_1.Train(
            name, "inverted_pendulum", iterations=4, seeds=2, evaluate_every=2, folder=folder
        ).run()
    return folder


def test_a_run_is_repeated_by_its_command(trained):
    run = read(trained / "td3-inverted_pendulum.h5")
    assert "--algorithm td3 --task inverted_pendulum --iterations 4" in run.attributes["command"]


def test_the_table_has_every_seed_and_the_papers_numbers(trained, tmp_path):
    mpg_table_1.Table(trained, tmp_path).run()
    rows = pd.read_csv(tmp_path / "table.csv")
    assert rows.groupby("algorithm")["seed"].apply(list).to_dict() == {
        "mpg-v2": [0, 1],
        "td3": [0, 1],
    }
    lines = (tmp_path / "inverted-pendulum.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["mpg-v2", "td3"]
    assert "-0.08 ± 0.16" in lines[2] and "/ 14000" in lines[2]
    medians = rows.groupby("algorithm")["return"].median()
    assert lines[3].split(" | ")[2] == f"{medians['td3']:.3g}"


def test_the_paper_has_one_number_per_goal():
    for (task, _), numbers in mpg_table_1.PAPER.items():
        assert len(numbers) == 1 + len(mpg_table_1.GOALS[task])
