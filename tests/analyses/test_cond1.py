import pytest

from analyses.harness.verdicts import save
from analyses.lemmas import cond1
from gradlab.fitting import policies

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def verdict():
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(policies, "UPDATES", 200)
        return cond1.measure(small=True)


def test_the_open_loop_pendulum_is_called_a_violation(verdict):
    rows = verdict.table.query("task == 'inverted pendulum' and loop == 'open'")
    angle = rows[rows["coordinate"].str.startswith("θ [")]
    assert set(angle["law"]) == {"exponential"}
    still = rows[(rows["noise"] == cond1.NOISES[1]) & (rows["coordinate"] == cond1.NORM)]
    assert still["condition"].item().startswith("violated: exponential")


def test_the_push_on_y_grows_linearly_in_open_loop(verdict):
    rows = verdict.table.query("task == 'path tracking' and loop == 'open'")
    published = rows[rows["noise"] == cond1.NOISES[0]]
    assert published[published["coordinate"] == "δy [m]"]["law"].item() == "linear"


def test_the_first_step_of_the_pushed_pendulum_is_off_by_its_push(verdict):
    rows = verdict.table.query("task == 'inverted pendulum' and coordinate == 'x [m]'")
    pushed = rows[rows["noise"] == cond1.NOISES[0]]["error_1"]
    assert (pushed > 0.3).all()  # N(0.1, 0.5)
    assert (rows[rows["noise"] == cond1.NOISES[1]]["error_1"] < 0.02).all()


def test_only_linear_norms_meet_the_criterion(verdict):
    assert not verdict.holds
    linear = verdict.table.assign(law="linear")
    assert cond1.judge(linear).holds
    assert "Does not hold" in verdict.sentence


def test_the_verdict_is_saved_with_figure_and_numbers(verdict, tmp_path):
    save(verdict, tmp_path, "python -m analyses.lemmas.cond1")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv"}
