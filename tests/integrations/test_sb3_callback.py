"""The callback of Stable-Baselines3 beside a model that learns: its rows, and what it survives."""

import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from gradlab.errors import InputError
from gradlab.storage import journal
from tests.integrations.bits import Integrator, integrator_task, often, same, streams
from tests.integrations.bits import trained as modules_of

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


# A model of Stable-Baselines3 learns the same bits with a probe as without one.


SMALL = {"policy_kwargs": {"net_arch": [8]}, "gamma": 0.5}
REPLAYED = {"learning_starts": 20, "batch_size": 16, "buffer_size": 2000}
# Name → settings, steps beside those of the updates, observations normalised.
CASES: dict[str, tuple[dict[str, Any], int, bool]] = {
    "TD3": (SMALL | REPLAYED | {"policy_delay": 1}, 25, True),
    "SAC": (SMALL | REPLAYED, 25, False),
    "PPO": (SMALL | {"n_steps": 64, "batch_size": 8, "n_epochs": 5}, 64, True),
}


def left(model):
    """All that a run leaves: networks, optimisers, buffers, environment, streams."""
    stored = getattr(model, "replay_buffer", None) or model.rollout_buffer
    arrays = {k: v for k, v in vars(stored).items() if isinstance(v, np.ndarray | int | bool)}
    environment = model.get_env().unwrapped.envs[0].unwrapped
    normalizer = model.get_vec_normalize_env()
    owners = [model.policy, *(getattr(model, k, None) for k in ("actor", "critic"))]
    optimizers = [getattr(each, "optimizer", None) for each in owners]
    optimizers.append(getattr(model, "ent_coef_optimizer", None))
    return {
        "modules": modules_of(model.policy),
        "optimizers": [each.state_dict() for each in optimizers if each],
        "stored": arrays,
        "environment": [environment.state, environment.np_random.bit_generator.state],
        "normalizer": None if normalizer is None else
        [vars(normalizer.obs_rms), vars(normalizer.ret_rms)],
        "counted": [model.num_timesteps, model._n_updates],
        "streams": streams(),
    }  # fmt: skip


def learned(sb3, name, updates, callback):
    settings, beside, normalised = CASES[name]
    steps = beside + (64 * (updates // 40) if name == "PPO" else updates)
    model = sb3.model_of(name, settings, normalised=normalised)
    model.learn(steps, callback=callback)
    return left(model)


@pytest.mark.parametrize("updates", [240, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(CASES))
def test_a_model_learns_the_same_bits_with_a_probe(sb3, name, updates, tmp_path, monkeypatch):
    often_enough = often(monkeypatch, updates // 4)
    callback = sb3.ProbeCallback(tmp_path / "run.h5", integrator_task(), **often_enough)
    without = learned(sb3, name, updates, None)
    with_one = learned(sb3, name, updates, callback)
    assert same(without, with_one)
    tables = journal.read(tmp_path / "run.h5").groups
    assert tables["vitals"]["update"].values[-1] >= updates
    assert len(tables["successive"]["update"].values) >= updates // 100
    assert len(tables["measured"]["update"].values) >= 4
