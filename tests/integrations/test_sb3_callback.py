"""The callback of Stable-Baselines3 beside a model that learns: its rows, and what it survives."""

import sys
import warnings
from typing import Any

import pytest
import torch

from gradlab.errors import InputError
from gradlab.storage import journal
from tests.integrations.bits import Integrator, integrator_task

ALWAYS: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}


@pytest.mark.parametrize("kind", ["TD3", "SAC"])
def test_saturation_is_counted_in_the_models_own_units(sb3, kind):
    model, rows = sb3.made(kind), []
    last = model.actor.mu[-2] if kind == "TD3" else model.actor.mu
    torch.nn.init.constant_(last.bias, 50.0)
    model.learn(120, callback=sb3.ProbeCallback(rows.append, **ALWAYS))
    assert next(row for row in rows if "vitals/looked" in row)["vitals/saturation/0"] == 1.0


@pytest.mark.slow
def test_gradients_are_those_before_clipping(sb3):
    rows: list[dict[str, Any]] = []
    sb3.made("PPO", max_grad_norm=1e-6).learn(
        1000, callback=sb3.ProbeCallback(rows.append, **ALWAYS)
    )
    vitals = next(row for row in rows if "vitals/looked" in row)
    assert vitals["vitals/marked"] == 1 and vitals["vitals/grad_norm"] > 1e-3


def test_steps_are_the_models_and_updates_are_the_optimisers(sb3):
    rows: list[dict[str, Any]] = []
    model = sb3.made("TD3").learn(250, callback=sb3.ProbeCallback(rows.append, **ALWAYS))
    vitals = [row for row in rows if "vitals/looked" in row]
    assert [row["update"] for row in vitals] == [100, (model._n_updates) // 2]
    assert vitals[-1]["step"] in (249, 250)


def test_an_interrupted_run_goes_on(sb3, tmp_path):
    model, callback = sb3.made("TD3"), sb3.ProbeCallback(tmp_path / "run.h5", **ALWAYS)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(100, callback=[callback, sb3.At(60, interrupt)])
    model.learn(100, callback=callback)
    assert len(model.actor._forward_hooks) == 0
    vitals = journal.read(tmp_path / "run.h5").groups["vitals"]
    assert vitals["update"].values[-1] == model._n_updates // 2


@pytest.mark.parametrize(
    "kind, normalised", [("TD3", False), ("TD3", True), ("PPO", True), ("PPO", False)]
)
def test_the_loops_first_step_is_held_against_the_simulator(sb3, kind, normalised):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3.made(kind, normalised).learn(2, callback=sb3.ProbeCallback(task=integrator_task()))
    with pytest.warns(
        RuntimeWarning, match=r"task .* is not the loop's environment.* ends 0\."
    ) as w:
        sb3.made(kind, normalised).learn(2, callback=sb3.ProbeCallback(task=integrator_task(1.5)))
    assert len(w) == 1


def test_without_the_package_the_remedy_is_said(monkeypatch):
    for name in [k for k in sys.modules if k.startswith("gradlab.integrations.stable")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.callbacks", None)
    with pytest.raises(InputError, match=r"^stable-baselines3 is not installed: pip install 'g"):
        import gradlab.integrations.stable_baselines3  # noqa: F401


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TD3", "DDPG", "SAC"])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_sign_of_a_models_own_objective_is_checked(sb3, kind, flipped, monkeypatch):
    """SAC's is flipped behind its critics, in the least of them; TD3's behind the first."""
    model, rows = sb3.made(kind), []
    if flipped:
        first, least = model.critic.q1_forward, torch.min
        monkeypatch.setattr(model.critic, "q1_forward", lambda *given: -first(*given))
        monkeypatch.setattr(torch, "min", lambda x, **given: _flipped(least(x, **given)))
    model.learn(700, callback=sb3.ProbeCallback(rows.append, **ALWAYS))
    name = "actor's steps raise their objective"
    found = [row for row in rows if row.get("checks/check") == name]
    assert (found[-1]["checks/state"] == "fault") == flipped and found[-1]["checks/looks"] > 0


def _flipped(found):
    return (-found[0], found[1]) if isinstance(found, tuple) and found[0].requires_grad else found


@pytest.mark.parametrize("kind", ["TD3", "DDPG", "SAC", "PPO", "A2C"])
def test_whole_episodes_of_a_model_are_played_beside_it(sb3, kind):
    rows: list[dict[str, Any]] = []
    given = ALWAYS | {"env": Integrator}
    sb3.made(kind).learn(200, callback=sb3.ProbeCallback(rows.append, **given))
    assert sum("returns/value" in row for row in rows) >= 1
