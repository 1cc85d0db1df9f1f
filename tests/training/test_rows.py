"""Every row of the table trains on the analytic pendulum, with gradients that are finite."""

import numpy as np
import pytest

import gradlab
from gradlab.storage.journal import read
from gradlab.training import ALGORITHMS
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, row


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_trains_on_the_pendulum(tmp_path, name):
    options = SMALL | {"iterations": 4, "log_every": 4, "evaluate_every": 4, "gradient_every": 0}
    pendulum = gradlab.tasks.inverted_pendulum(engine="analytic")
    updates = read(train(row(name), pendulum, tmp_path / "run.h5", **options)).groups["updates"]
    assert (updates["policy_norm"].values > 0).all()
    for column in ("policy_norm", "policy_loss", "critic_norm"):
        assert np.isfinite(updates[column].values).all(), column
    assert (updates["nonfinite"].values == 0).all()
