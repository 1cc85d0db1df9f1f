"""The callback of Stable-Baselines3 beside a model that learns: its rows, and what it survives."""

import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from gradlab.errors import InputError
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.storage import journal
from tests.integrations.bits import Integrator, integrator_task, same

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


@pytest.mark.slow
def test_learning_again_goes_on_in_the_same_file(sb3, tmp_path):
    model, callback = sb3.made("TD3"), sb3.ProbeCallback(tmp_path / "run.h5", **ALWAYS)
    counts = []
    for _ in range(3):
        model.learn(120, callback=callback, reset_num_timesteps=False)
        vitals = journal.read(tmp_path / "run.h5").groups["vitals"]
        counts.append(vitals["update"].values[-1])
        assert (
            not model.actor._forward_hooks and not model.actor.optimizer._optimizer_step_post_hooks
        )
    assert counts == [55, 115, 175] and callback.probe is not None
    assert (np.diff(vitals["step"].values) > 0).all() and not callback.probe.alarms


def test_another_model_needs_another_callback(sb3):
    callback = sb3.ProbeCallback()
    sb3.made("TD3").learn(20, callback=callback)
    with pytest.raises(InputError, match="callback has watched another model"):
        sb3.made("TD3").learn(20, callback=callback)


def test_a_model_is_saved_and_loaded_while_it_is_watched(sb3, tmp_path):
    model, rows = sb3.made("TD3"), []
    probe = sb3.ProbeCallback(rows.append, **ALWAYS)
    model.learn(91, callback=[probe, sb3.Saving(tmp_path / "model.zip")])
    loaded = sb3.TD3.load(tmp_path / "model.zip", env=model.get_env())
    assert not loaded.actor._forward_hooks
    again = sb3.ProbeCallback(rows.append, **ALWAYS)
    loaded.learn(220, callback=again, reset_num_timesteps=False)
    assert again.probe is not None and again.probe.spent == 0.0 and rows


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


@pytest.mark.slow
def test_headlines_and_alarms_reach_the_models_logger(sb3, tmp_path):
    model = sb3.made("TD3")
    model.set_logger(sb3.configure(str(tmp_path), ["csv"]))
    seen: dict[str, Any] = {}
    record = model.logger.record
    model.logger.record = lambda name, value, exclude=None: (
        seen.__setitem__(name, (value, exclude)), record(name, value, exclude))  # fmt: skip
    callback = sb3.ProbeCallback(task=integrator_task(), **ALWAYS)

    def ring():
        callback.probe.alarm_log.report(Alarm("dead path", "look for a detach"), 3, 30)

    model.learn(35, callback=[callback, sb3.At(30, ring)])
    assert {"gradlab/best_horizon", "gradlab/lyapunov_steps"} & set(seen)
    assert seen["gradlab/dead path"] == ("look for a detach", ("stdout", "log", "json", "csv"))
    model.logger.close()  # else its file is found open by whatever test runs when it is collected


def test_a_user_gets_file_and_function_at_once(sb3, tmp_path):
    rows: list[dict[str, Any]] = []
    callback = sb3.ProbeCallback([tmp_path / "run.h5", rows.append], **ALWAYS)
    sb3.made("TD3").learn(250, callback=callback)
    groups = journal.read(tmp_path / "run.h5").groups
    kept = sum(len(groups[name]["step"].values) for name in ("vitals", "successive"))
    told = [row for row in rows if "checks/number" not in row]  # the newest of each is kept
    assert kept == len(told) > 2 and set(groups["checks"]) >= {"check", "state", "proof"}


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


def test_the_models_discount_is_the_tasks(sb3):
    callback = sb3.ProbeCallback(task=integrator_task())
    sb3.made("TD3", gamma=0.7).learn(5, callback=callback)
    assert callback.probe._updates.measurements.subject(0)[0].task.discount == 0.7


@pytest.mark.slow
def test_discrete_actions_and_gsde_are_watched_without_a_task(sb3):
    for model in (sb3.discrete("PPO", n_steps=64), sb3.made("SAC", use_sde=True)):
        rows: list[dict[str, Any]] = []
        model.learn(200, callback=sb3.ProbeCallback(rows.append, **ALWAYS))
        assert any("successive/cosine" in row for row in rows)


def test_a_failing_log_leaves_the_model_learning(sb3):
    def broken(row):
        raise OSError("disk is full")

    plain, model = sb3.made("TD3").learn(300), sb3.made("TD3")
    with pytest.warns(RuntimeWarning, match="disk is full"):
        model.learn(300, callback=sb3.ProbeCallback(broken, **ALWAYS))
    assert same(plain.policy.state_dict(), model.policy.state_dict())


def test_critic_loss_and_return_stand_beside_the_gradients(sb3):
    rows: list[dict[str, Any]] = []
    model = sb3.model_of("TD3", sb3.REPLAYED, sb3.monitored)
    callback = sb3.ProbeCallback(log=rows.append, **ALWAYS)
    model.learn(250, callback=callback)
    row = [each for each in rows if "vitals/looked" in each][-1]
    assert row["vitals/critic_loss"] > 0
    returns = [each["r"] for each in model.ep_info_buffer]
    assert min(returns) <= row["vitals/episode_return"] <= max(returns)
    bare = sb3.model_of("TD3", sb3.REPLAYED, sb3.monitored).learn(250)
    assert same(model.policy.state_dict(), bare.policy.state_dict())


@pytest.mark.slow
def test_a_loaded_model_goes_on_in_its_log(sb3, tmp_path):
    model, log = sb3.made("TD3"), tmp_path / "run.h5"
    first = sb3.ProbeCallback(log=log, **ALWAYS)
    model.learn(250, callback=first)
    model.save(tmp_path / "model")
    loaded = sb3.TD3.load(tmp_path / "model", env=model.get_env())
    with pytest.raises(InputError, match="go on in it with resume=True"):
        loaded.learn(10, callback=sb3.ProbeCallback(log=log, **ALWAYS), reset_num_timesteps=False)
    with pytest.raises(InputError, match="a log of its own or resume=True"):
        loaded.learn(10, callback=first, reset_num_timesteps=False)
    again = sb3.ProbeCallback(log=log, resume=True, **ALWAYS)
    loaded.learn(250, callback=again, reset_num_timesteps=False)
    steps = journal.read(log).groups["vitals"]["step"].values
    assert (np.diff(steps) > 0).all() and steps[-1] == 500


def test_two_callbacks_on_one_log_leave_the_model_learning(sb3, tmp_path):
    model = sb3.made("TD3")
    callbacks = [sb3.ProbeCallback(log=tmp_path / "run.h5", **ALWAYS) for _ in range(2)]
    with pytest.warns(RuntimeWarning, match="is being written"):
        model.learn(250, callback=callbacks)
    bare = sb3.made("TD3").learn(250)
    assert same(model.policy.state_dict(), bare.policy.state_dict())


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
