"""A probed run is the run without a probe, and every seed's columns are those of the seed alone."""

import numpy as np
import pytest

from gradlab.probe import sampler
from gradlab.probe.budget import Budget
from gradlab.storage.journal import read
from gradlab.training.loop import train
from gradlab.training.probe import probe
from gradlab.training.probe import update_statistics as probe_signal
from tests.training.probed_runs import ARMS, SMALL, same_runs, task


@pytest.mark.parametrize("updates", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_probed_run_is_bit_for_bit_the_run_without_a_probe(tmp_path, monkeypatch, arm, updates):
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(probe_signal, "PART", 1.0)
    two = iter([True, True])  # one of each seed, whatever they cost
    monkeypatch.setattr(sampler.Measurements, "due", lambda self, seed: next(two, False))
    options = SMALL | {"iterations": updates, "log_every": 20, "checkpoint_every": updates // 2}
    plain = train(ARMS[arm], task(), tmp_path / "plain.h5", **options)
    probed = train(ARMS[arm], task(), tmp_path / "probed.h5", **options, probe_budget=1.0)
    same_runs(plain, probed)
    groups = read(probed).groups
    assert groups["probe_vitals"]["looked"].values.sum() == updates / ARMS[arm].delay
    assert len(groups["probe_successive"]["update"].values) == updates / 20
    assert len(groups["probe_measured"]["update"].values) == 2
    assert not any(name.startswith("probe") for name in read(plain).groups)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_seeds_together_show_what_seeds_apart_show(tmp_path):
    options = SMALL | {"precision": "float64", "probe_budget": 1.0}
    together = read(train(ARMS["mpg-v2"], task(), tmp_path / "all.h5", **options)).groups
    alone = options | {"seeds": 1, "first_seed": 1}
    apart = read(train(ARMS["mpg-v2"], task(), tmp_path / "apart.h5", **alone)).groups
    for table, column in (
        ("vitals", "layer_norm"), ("vitals", "layer_ratio"), ("vitals", "saturation"),
        ("successive", "signal_share"), ("horizons", "reached"),
    ):  # fmt: skip
        ours, theirs = (groups[f"probe_{table}"][column].values for groups in (together, apart))
        assert len(ours) and np.isfinite(ours).all()
        assert not np.array_equal(ours[:, 0], ours[:, 1]) or column in ("saturation", "reached")
        np.testing.assert_allclose(ours[:, 1], theirs[:, 0], rtol=1e-6, atol=1e-12)
