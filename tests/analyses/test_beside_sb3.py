"""Both sides have the same task and settings, and planted gaps are seen."""

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch

from analyses.beside_sb3 import runs as beside_sb3
from analyses.beside_sb3 import settings as beside_sb3_settings
from analyses.beside_sb3 import verdict as beside_sb3_verdict
from analyses.beside_sb3.runs import CONTROL, HERE, NAMES, THERE
from gradlab.data.noise import stream

UPDATES = np.arange(0, 4001, 500)


def curves(shift, spread, seeds=6, sides=(HERE, THERE)):
    """Curves that rise from −1,200 to −150, even around it and half as wide there; here moved."""
    frames = [
        pd.DataFrame(
            {"algorithm": name, "side": side, "seed": seed, "update": UPDATES}
            | {"return": -1200 + 1050 * UPDATES / 4000 + place * spread / (1 + (side == THERE))
               + shift * (side == HERE)}
        )
        for name in NAMES for side in sides for seed, place in enumerate(np.linspace(-1, 1, seeds))
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_both_sides_are_the_same(name):
    pytest.importorskip("stable_baselines3")
    for what, there, here in beside_sb3_settings.read(name):
        assert there == here, what


def test_a_setting_that_differs_is_listed_as_such(monkeypatch):
    pytest.importorskip("stable_baselines3")
    right = beside_sb3.options
    monkeypatch.setattr(beside_sb3, "options", lambda name: right(name) | {"tau": 0.1})
    lines = beside_sb3_settings.listed().splitlines()
    assert "| τ | 0.1 | 0.005 | no |" in lines
    assert "| γ | 0.95 | 0.95 | yes |" in lines


@pytest.mark.slow
def test_its_untrained_policy_earns_the_same_from_the_same_starts_in_gymnasium():
    pytest.importorskip("stable_baselines3")
    model = beside_sb3.learner("td3", 0)
    environment = gymnasium.make("Pendulum-v1")
    task, kept = beside_sb3.task(), beside_sb3.settings("td3")
    earned = []
    starts = task.starts(kept.evaluation_starts, stream(0, "evaluation starts"))
    for cos, sin, spin in starts.tolist():
        environment.reset(seed=0)
        environment.unwrapped.state = np.array([np.arctan2(sin, cos), spin])
        seen, total, truncated = np.array([cos, sin, spin], dtype=np.float32), 0.0, False
        while not truncated:
            seen, reward, _, truncated, _ = environment.step(
                model.predict(seen, deterministic=True)[0]
            )
            total += float(reward)
        earned.append(total)
    assert beside_sb3.evaluated(model) == pytest.approx(np.mean(earned), rel=1e-3)


def test_it_is_trained_once_for_every_step_after_the_warm_up():
    pytest.importorskip("stable_baselines3")
    torch.set_num_threads(1)
    frame = beside_sb3.theirs("td3", 0, updates=3, warmup=5)
    assert list(frame["update"]) == [0, 3]
    assert np.isfinite(frame["return"]).all() and frame["return"].nunique() == 2


@pytest.mark.parametrize(
    ("shift", "spread", "words"),
    [
        (10.0, 10.0, {"the same"}),
        (300.0, 10.0, {"not the same"}),
        (0.0, 200.0, {"undecided"}),
    ],
)
def test_planted_gaps_are_judged(shift, spread, words):
    made = curves(shift, spread)
    assert {gap.word for gap in beside_sb3_verdict.differences(made)} == words
    assert beside_sb3_verdict.judged(made).holds == (words == {"the same"})


def test_a_control_that_is_judged_the_same_spoils_the_verdict():
    made = curves(0.0, 10.0, sides=(HERE, THERE, CONTROL))
    assert {gap.word for gap in beside_sb3_verdict.differences(made)} == {"the same"}
    assert not beside_sb3_verdict.judged(made).holds


def test_differences_have_welchs_interval():
    made = curves(40.0, 30.0, seeds=5)
    gap = beside_sb3_verdict.differences(made)[0]
    assert gap.quantity == beside_sb3_verdict.END
    last = made[(made["algorithm"] == gap.algorithm) & (made["update"] >= 2500)]
    here, there = (last[last["side"] == s].groupby("seed")["return"].mean() for s in (HERE, THERE))
    a, b = here.var() / 5, there.var() / 5
    freedom = (a + b) ** 2 / (a**2 / 4 + b**2 / 4)
    # Student's quantile by its own definition: a normal over the root of a χ² over its freedom.
    draw = np.random.default_rng(1)
    root = np.sqrt(draw.chisquare(freedom, 2_000_000) / freedom)
    student = draw.standard_normal(2_000_000) / root
    reach = np.quantile(student, 0.975) * (a + b) ** 0.5
    assert gap.high - gap.value == pytest.approx(reach, rel=0.01)
    assert gap.value == pytest.approx(here.mean() - there.mean())
