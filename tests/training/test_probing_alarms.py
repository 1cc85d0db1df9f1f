"""Alarms of a training's probe name their seed and their cause."""

import contextlib
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradlab.probe import sampler
from gradlab.probe.budget import Budget
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training import probe, seed_rows
from gradlab.training.loop import train
from gradlab.training.parts.context import FixedWeights
from gradlab.training.run import Diverged
from tests.training.probed_runs import ARMS, SMALL, push, row, same_runs, task, wild


@pytest.mark.usefixtures("unhurried")
def test_an_alarm_names_its_seed_and_is_told_on_the_terminal(tmp_path, monkeypatch, capsys):
    def saturate(policy):
        last = [m for m in policy.network if isinstance(m, torch.nn.Linear)][-1]
        last.bias[1] = 50.0

    wild(monkeypatch, 1, saturate)
    path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    alarms = read(path).groups["probe_alarms"]
    told = [
        message
        for kind, message in zip(alarms["alarm"].values, alarms["message"].values, strict=True)
        if kind == "saturated actor"
    ]
    assert told and all("action 1 is at its limit in 100%" in each for each in told)
    seeds = alarms["seed"].values[alarms["alarm"].values == "saturated actor"]
    assert (seeds == 1).all()
    assert "gradlab probe, td3, seed 1, step 40: saturated actor" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_a_horizon_that_is_never_rolled_out_is_told_of_the_run_not_of_a_seed(tmp_path):
    lazy = replace(row("mpg-v2"), weights=FixedWeights((1.0, 0.0)))
    told, groups = (
        read(train(chosen, task(), tmp_path / f"{k}.h5", **SMALL, probe_budget=1.0)).groups
        for k, chosen in enumerate((row("mpg-v2"), lazy))
    )
    assert "horizon never rolled out" not in told["probe_alarms"]["alarm"].values.tolist()
    assert told["probe_horizons"]["updates"].values[-1] == 30
    np.testing.assert_array_equal(groups["probe_horizons"]["made"].values[-1], [1.0, 0.0])
    alarms = groups["probe_alarms"]
    at = alarms["alarm"].values.tolist().index("horizon never rolled out")
    assert np.isnan(alarms["seed"].values[at]) and alarms["update"].values[at] == 40
    assert "horizon 3 is asked for, but none of 20" in alarms["message"].values[at]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("far", "early"), [(0.4, True), (50.0, False)])
def test_model_paths_that_end_early_are_told(tmp_path, far, early):
    wide = replace(row("mpg-v2"), batch=256)
    path = train(wide, task(far), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    groups = read(path).groups
    reached = groups["probe_horizons"]["reached"].values
    lasted = groups["probe_horizons"]["lasted"].values
    assert (reached[:, :, 0] == 1).all()
    assert (reached[:, :, 1] < 0.4).all() if early else (reached[:, :, 1] == 1).all()
    assert (lasted < 2).all() if early else (lasted == 3).all()
    assert (lasted >= 3 * reached[:, :, 1] - 1e-6).all()
    kinds = groups["probe_alarms"]["alarm"].values.tolist()
    assert ("model paths end early" in kinds) is early


@pytest.mark.usefixtures("unhurried")
def test_what_an_event_of_the_run_tells_is_not_told_twice(tmp_path, monkeypatch):
    wild(monkeypatch, 1, lambda policy: next(policy.parameters()).fill_(float("nan")))
    path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    groups = read(path).groups
    assert any("seed 1 diverged" in text for text in groups["events"]["message"].values)
    assert (groups["probe_vitals"]["nonfinite_updates"].values[:, 1] > 0).all()
    assert (groups["probe_vitals"]["nonfinite_updates"].values[:, 0] == 0).all()
    assert not (groups["probe_alarms"]["seed"].values == 1).any()


def lossy():
    """A task whose model takes a logarithm that an action below −0.5 makes NaN."""

    def fragile(state, action, noise):
        after, reward = push(state, action, noise)
        return after, reward + 0 * torch.log(action[:, 0] + 0.5)

    world = from_function(
        fragile, state_dim=3, action_dim=2, noise_dim=3, alive=lambda s: s[:, 0].abs() < 4
    )
    return replace(task(), prior=world)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_operation_that_lost_a_seed_is_named(tmp_path, monkeypatch, seeds):
    def decline(policy):  # actions near 0, which fall as it learns
        last = [m for m in policy.network if isinstance(m, torch.nn.Linear)][-1]
        last.weight.mul_(0.01)

    wild(monkeypatch, 0, decline)
    falling = row("mpg-v2", policy_rate=(3e-2, 3e-2), value_rate=(1e-3, 1e-3))
    options = SMALL | {"seeds": seeds, "log_every": 20, "probe_budget": 1.0}
    path = tmp_path / "run.h5"
    with contextlib.suppress(Diverged):
        train(falling, lossy(), path, **options)
    groups = read(path).groups
    event = next(text for text in groups["events"]["message"].values if "seed 0" in text)
    update = re.search(r"not finite in update (\d+)", event)[1]
    alarms = groups["probe_alarms"]
    origin = [
        message
        for kind, message in zip(alarms["alarm"].values, alarms["message"].values, strict=True)
        if kind == "origin of a non-finite gradient"
    ]
    assert int(update) > 0
    assert any("NaN first out of log (rows" in text for text in origin)
    assert any(f"of 16), in update {update}: fix" in text for text in origin)


def measured_once(value):
    def row_of(self):
        bound = dict(value_se=0.1, return_bound=1.0, reward_max=0.1, seconds=0.0)
        return 0, dict(starts=64.0, batch=16.0, value=value) | bound

    return row_of


@pytest.mark.parametrize("excessive", [True, False])
def test_a_critic_beyond_its_bound_is_told_once(tmp_path, monkeypatch, excessive):
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(probe.SeedMeasurements, "row", measured_once(30.0))
    if excessive:
        report = probe.Probing.before

        def before(self):
            self.run.excessive[0] = True
            report(self)

        monkeypatch.setattr(probe.Probing, "before", before)
    path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    kinds = read(path).groups["probe_alarms"]["alarm"].values.tolist()
    assert ("critic beyond its bound" in kinds) is not excessive


# A probed run is the run without a probe, and every seed's columns are those of the seed alone.


@pytest.mark.parametrize("updates", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_probed_run_is_bit_for_bit_the_run_without_a_probe(tmp_path, monkeypatch, arm, updates):
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(seed_rows, "PART", 1.0)
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
