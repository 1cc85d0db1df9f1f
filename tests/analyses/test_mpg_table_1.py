"""Table I on runs with known curves, and small runs of its own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analyses.mpg_table_1 import claims as mpg_claims
from analyses.mpg_table_1 import runs as mpg_table_1
from gradlab.runs.training.results import load
from gradlab.storage.journal import read

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, clip in (("mpg-v2", None), ("mpg-v2", 3.0), ("td3", None), ("sac", None)):
        mpg_table_1.training(name, "inverted_pendulum", 4, 2, evaluate_every=2, clip=clip,
                             folder=folder)  # fmt: skip
    return folder


def test_a_run_is_repeated_by_its_command(trained):
    command = read(trained / "td3-inverted_pendulum.h5").attributes["command"]
    assert command.endswith("--algorithm td3 --task inverted_pendulum --iterations 4 --seeds 2")
    clipped = read(trained / "mpg-v2-clip3-inverted_pendulum.h5").attributes["command"]
    assert clipped.endswith("--seeds 2 --clip 3")


def test_the_table_has_every_seed_and_the_papers_numbers(trained, tmp_path):
    mpg_table_1.table(trained, tmp_path)
    folder = tmp_path / "inverted-pendulum-training"
    rows = pd.read_csv(folder / "table.csv")
    names = ["mpg-v2", "mpg-v2, clip 3", "td3", "sac"]
    assert rows.groupby("algorithm")["seed"].apply(list).to_dict() == {n: [0, 1] for n in names}
    lines = (folder / "table.md").read_text().splitlines()[2:]
    cells = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert list(cells) == names
    assert "-0.08 ± 0.16" in cells["mpg-v2"] and "/ 14000" in cells["mpg-v2"]
    medians = rows.groupby("algorithm")["return"].median()
    assert f" | {medians['td3']:.3g} | " in cells["td3"]
    assert (folder / "report.html").is_file()


def test_the_paper_has_one_number_per_goal():
    for (task, _), numbers in mpg_table_1.PAPER.items():
        assert len(numbers) == 1 + len(mpg_table_1.GOALS[task])


def planted(trained, finals, reached):
    """Runs with these final returns, at `reached` from the middle evaluation on."""
    run = load(trained / "td3-inverted_pendulum.h5")
    runs = {}
    for name, final in finals.items():
        final = np.array(final)
        returns = np.stack([np.full_like(final, -200.0), reached[name] + 0 * final, final])
        ends, rms = np.zeros_like(returns), np.ones((3, len(final), 4))
        runs[name] = replace(
            run,
            config=run.config | {"algorithm": {"name": name}, "task": "path_tracking"},
            seeds=np.arange(len(final)), returns=returns, errors=ends, ends=ends, rms=rms,
            updates={
                key: np.repeat(value[:, :1], len(final), axis=1)
                if value.ndim == 2 and key != "weight" else value
                for key, value in run.updates.items()
            },
        )  # fmt: skip
    return runs


GOOD = {
    "mpg-v1": [-4.0, -4.2, -3.9],
    "mpg-v2": [-5.0, -4.5, -4.8],
    "n-step-adp": [-57.0, -55.0, -58.0],
    "n-step-dpg": [-20.0, -22.0, -18.0],
    "td3": [-13.0, -15.0, -12.0],
    "sac": [-33.0, -30.0, -34.0],
}
EARLY = {"mpg-v1": -20.0, "mpg-v2": -20.0}


def test_what_the_paper_says_is_found_where_it_is_so(trained):
    reached = dict.fromkeys(GOOD, -100.0) | EARLY
    assert mpg_claims.path_tracking(planted(trained, GOOD, reached)).holds
    slow = reached | {"mpg-v2": -100.0}
    assert not mpg_claims.path_tracking(planted(trained, GOOD, slow)).holds
    good_adp = GOOD | {"n-step-adp": [-57.0, -29.0, -58.0]}
    assert not mpg_claims.path_tracking(planted(trained, good_adp, reached)).holds
    diverged = GOOD | {"mpg-v1": [-4.0, -4.0, -190.0]}
    assert not mpg_claims.path_tracking(planted(trained, diverged, reached)).holds


def test_the_pendulums_claim_needs_a_better_v2_and_a_failing_v1(trained):
    finals = GOOD | {"mpg-v1": [-9.0, -8.0, -7.0], "mpg-v2": [-0.1, -0.05, -0.02]}
    finals |= {"n-step-adp": [-8.2, -8.0, -7.0]}
    reached = dict.fromkeys(finals, -100.0)
    assert mpg_claims.inverted_pendulum(planted(trained, finals, reached)).holds
    learns = finals | {"mpg-v1": [-1.0, -8.0, -7.0]}
    assert not mpg_claims.inverted_pendulum(planted(trained, learns, reached)).holds


def test_intervals_of_differences_are_welchs():
    one, other = np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5, 0.0, -0.5])
    value, low, high = mpg_claims.difference(one, other)
    a, b = one.var(ddof=1) / 3, other.var(ddof=1) / 4
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 3)
    half = stats.t.ppf(0.975, freedom) * (a + b) ** 0.5
    np.testing.assert_allclose([low, high], [value - half, value + half])
    assert value == pytest.approx(one.mean() - other.mean())
