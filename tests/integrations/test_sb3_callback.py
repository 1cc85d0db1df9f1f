"""The callback of Stable-Baselines3: what it takes a model for, what it refuses and survives."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import gradlab
from gradlab.errors import InputError
from gradlab.integrations.stable_baselines3 import ProbeCallback
from gradlab.integrations.stable_baselines3_models import check_measurable, parts_of
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.storage import journal
from tests.integrations.bits import Integrator, integrator_task, same, seeded

SMALL = {"policy_kwargs": {"net_arch": [8]}, "gamma": 0.5}
REPLAYED = SMALL | {"learning_starts": 10, "batch_size": 16, "buffer_size": 500}
ON = SMALL | {"n_steps": 40}
ALWAYS: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}
GIVEN = {TD3: REPLAYED, DDPG: REPLAYED, SAC: REPLAYED, A2C: ON, PPO: ON | {"batch_size": 20}}


def made(kind: Any, normalised: bool = False, **more: Any) -> Any:
    environment: Any = DummyVecEnv([Integrator])
    if normalised:
        environment = VecNormalize(environment)
    seeded()
    return kind("MlpPolicy", environment, seed=0, **copy.deepcopy(GIVEN[kind] | more))


def doubled(module: Any) -> Any:
    return copy.deepcopy(module).double()


def states(n: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", list(GIVEN))
def test_the_policy_is_what_the_model_predicts(kind: Any, normalised: bool) -> None:
    model = made(kind, normalised).learn(60)
    policy, s = doubled(parts_of(model).policy), states()
    shown = model.get_vec_normalize_env().normalize_obs(s) if normalised else s
    expected, _ = model.predict(shown, deterministic=True)
    given = [torch.as_tensor(s).double()]
    if hasattr(policy, "noise_dim"):
        given.append(torch.zeros(5, policy.noise_dim, dtype=torch.float64))
    found = policy(*given).detach().numpy()
    assert np.abs(found - expected).max() < 1e-5 and np.abs(expected).max() > 1e-3


def test_sacs_noise_is_that_of_its_distribution() -> None:
    model, s = made(SAC), torch.as_tensor(states(7))
    torch.manual_seed(3)
    expected = 2 * model.actor(s)  # limits are ±2
    torch.manual_seed(3)
    found = parts_of(model).policy(s, torch.randn(7, 1))
    assert torch.allclose(found, expected, atol=1e-6)


def test_ppos_noise_is_that_of_its_distribution() -> None:
    model, s = made(PPO), torch.as_tensor(states(7))
    torch.manual_seed(3)
    expected = model.policy(s)[0].clamp(-2, 2)
    torch.manual_seed(3)
    assert torch.allclose(parts_of(model).policy(s, torch.randn(7, 1)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_the_critic_has_the_environments_units(kind: Any) -> None:
    """Normalised observations and rewards, scaled actions: Q in units of the true reward."""
    model, s = made(kind, True).learn(60), states()
    a = np.linspace(-2, 2, 5)[:, None].astype(np.float32)
    normalizer = model.get_vec_normalize_env()
    shown = torch.as_tensor(normalizer.normalize_obs(s))
    values = torch.cat(model.critic(shown, torch.as_tensor(a / 2)), dim=1)
    expected = values[:, 0] if kind is TD3 else values.min(dim=1)[0]
    unit = float(np.sqrt(normalizer.ret_rms.var + normalizer.epsilon))
    critic = doubled(parts_of(model).critic)
    found = critic(torch.as_tensor(s).double(), torch.as_tensor(a).double())
    assert torch.allclose(found, unit * expected.double(), rtol=1e-5) and unit != 1.0


def test_only_what_actions_depend_on_is_watched() -> None:
    names = {k: {n for n, _ in parts_of(made(k)).policy.named_parameters()} for k in GIVEN}
    assert names[TD3] == {"mu.0.weight", "mu.0.bias", "mu.2.weight", "mu.2.bias"} == names[DDPG]
    assert names[SAC] == {
        f"{part}.{end}" for part in ("latent_pi.0", "mu", "log_std") for end in ("weight", "bias")
    }
    assert names[PPO] == names[A2C]
    assert names[PPO] == {"log_std"} | {
        f"{part}.{end}" for part in ("policy_net.0", "action_net") for end in ("weight", "bias")
    }


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_saturation_is_counted_in_the_models_own_units(kind: Any) -> None:
    model, rows = made(kind), []
    last = model.actor.mu[-2] if kind is TD3 else model.actor.mu
    torch.nn.init.constant_(last.bias, 50.0)
    model.learn(120, callback=ProbeCallback(rows.append, **ALWAYS))
    assert next(row for row in rows if "vitals/looked" in row)["vitals/saturation/0"] == 1.0


def test_gradients_are_those_before_clipping() -> None:
    rows: list[dict[str, Any]] = []
    made(PPO, max_grad_norm=1e-6).learn(1000, callback=ProbeCallback(rows.append, **ALWAYS))
    vitals = next(row for row in rows if "vitals/looked" in row)
    assert vitals["vitals/marked"] == 1 and vitals["vitals/grad_norm"] > 1e-3


def test_steps_are_the_models_and_updates_are_the_optimisers() -> None:
    rows: list[dict[str, Any]] = []
    model = made(TD3).learn(250, callback=ProbeCallback(rows.append, **ALWAYS))
    vitals = [row for row in rows if "vitals/looked" in row]
    assert [row["update"] for row in vitals] == [100, (model._n_updates) // 2]
    assert vitals[-1]["step"] in (249, 250)


def test_learning_again_goes_on_in_the_same_file(tmp_path: Path) -> None:
    model, callback = made(TD3), ProbeCallback(tmp_path / "run.h5", **ALWAYS)
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


def test_another_model_needs_another_callback() -> None:
    callback = ProbeCallback()
    made(TD3).learn(20, callback=callback)
    with pytest.raises(InputError, match="callback has watched another model"):
        made(TD3).learn(20, callback=callback)


class Saving(BaseCallback):
    """Saves in the middle of training, and pickles the policy."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def _on_step(self) -> bool:
        if self.num_timesteps == 90:
            self.model.save(self.path)
            pickle.dumps(self.model.policy)
        return True


def test_a_model_is_saved_and_loaded_while_it_is_watched(tmp_path: Path) -> None:
    model, rows = made(TD3), []
    probe = ProbeCallback(rows.append, **ALWAYS)
    model.learn(91, callback=[probe, Saving(tmp_path / "model.zip")])
    loaded = TD3.load(tmp_path / "model.zip", env=model.get_env())
    assert not loaded.actor._forward_hooks
    again = ProbeCallback(rows.append, **ALWAYS)
    loaded.learn(220, callback=again, reset_num_timesteps=False)
    assert again.probe is not None and again.probe.spent == 0.0 and rows


class Interrupting(BaseCallback):
    def _on_step(self) -> bool:
        if self.n_calls == 60:
            raise KeyboardInterrupt
        return True


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    model, callback = made(TD3), ProbeCallback(tmp_path / "run.h5", **ALWAYS)
    with pytest.raises(KeyboardInterrupt):
        model.learn(100, callback=[callback, Interrupting()])
    model.learn(100, callback=callback)
    assert len(model.actor._forward_hooks) == 0
    vitals = journal.read(tmp_path / "run.h5").groups["vitals"]
    assert vitals["update"].values[-1] == model._n_updates // 2


def test_headlines_and_alarms_reach_the_models_logger(tmp_path: Path) -> None:
    model = made(TD3)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    seen: dict[str, Any] = {}
    record = model.logger.record
    model.logger.record = lambda name, value, exclude=None: (
        seen.__setitem__(name, (value, exclude)), record(name, value, exclude))  # fmt: skip
    callback = ProbeCallback(task=integrator_task(), **ALWAYS)

    class Ringing(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 30:
                callback.probe.desk.ring(Alarm("dead path", "look for a detach"), 3, 30)
            return True

    model.learn(35, callback=[callback, Ringing()])
    assert {"gradlab/best_horizon", "gradlab/lyapunov_steps"} & set(seen)
    assert seen["gradlab/dead path"] == ("look for a detach", ("stdout", "log", "json", "csv"))


def test_a_user_gets_file_and_function_at_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    callback = ProbeCallback([tmp_path / "run.h5", rows.append], **ALWAYS)
    made(TD3).learn(250, callback=callback)
    groups = journal.read(tmp_path / "run.h5").groups
    kept = sum(len(groups[name]["step"].values) for name in ("vitals", "successive"))
    assert kept == len(rows) > 2


@pytest.mark.parametrize("kind, normalised", [(TD3, False), (TD3, True), (PPO, True), (PPO, False)])
def test_the_loops_first_step_is_held_against_the_simulator(kind: Any, normalised: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(kind, normalised).learn(2, callback=ProbeCallback(task=integrator_task()))
    with pytest.warns(
        RuntimeWarning, match=r"task .* is not the loop's environment.* ends 0\."
    ) as w:
        made(kind, normalised).learn(2, callback=ProbeCallback(task=integrator_task(1.5)))
    assert len(w) == 1


def test_the_models_discount_is_the_tasks() -> None:
    callback = ProbeCallback(task=integrator_task())
    made(TD3, gamma=0.7).learn(5, callback=callback)
    assert callback.probe._updates.measurements.question.task.discount == 0.7


def discrete() -> Any:
    return DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])


REFUSED: list[tuple[str, Any, gradlab.Task | None]] = [
    ("model is a DQN, expected", lambda: DQN("MlpPolicy", discrete()), None),
    ("actions are Discrete: leave the task out", lambda: PPO("MlpPolicy", discrete()),
     integrator_task()),
    ("explores with gSDE", lambda: made(SAC, use_sde=True), integrator_task()),
    (r"observations have shape \(2,\), but the states of task .* have shape \(4,\)",
     lambda: made(TD3), gradlab.tasks.mujoco("InvertedPendulum-v5")),
]  # fmt: skip


@pytest.mark.parametrize("words, model, task", REFUSED)
def test_what_cannot_be_done_is_said_before_training(words: str, model: Any, task: Any) -> None:
    with pytest.raises(InputError, match=words) as caught:
        model().learn(10, callback=ProbeCallback(task=task))
    assert "\n" not in str(caught.value)


def test_policies_of_another_make_are_refused() -> None:
    other, own = made(A2C), made(A2C)
    other.__class__ = type("TRPO", (OnPolicyAlgorithm,), {})
    with pytest.raises(InputError, match="model is a TRPO, expected"):
        parts_of(other)
    own.policy.mlp_extractor.policy_net = torch.nn.Identity()
    with pytest.raises(InputError, match=r"without an nn\.Sequential called policy_net"):
        parts_of(own)


def test_observations_of_several_parts_are_no_state() -> None:
    parts = gymnasium.spaces.Dict({"camera": Integrator.observation_space})
    model = SimpleNamespace(observation_space=parts, action_space=Integrator.action_space)
    with pytest.raises(InputError, match="observations are Dict: leave the task out"):
        check_measurable(model)


def test_discrete_actions_and_gsde_are_watched_without_a_task() -> None:
    for model in (PPO("MlpPolicy", discrete(), n_steps=64), made(SAC, use_sde=True)):
        rows: list[dict[str, Any]] = []
        model.learn(200, callback=ProbeCallback(rows.append, **ALWAYS))
        assert any("successive/cosine" in row for row in rows)


def test_a_failing_log_leaves_the_model_learning() -> None:
    def broken(row: dict[str, Any]) -> None:
        raise OSError("disk is full")

    plain, model = made(TD3).learn(300), made(TD3)
    with pytest.warns(RuntimeWarning, match="disk is full"):
        model.learn(300, callback=ProbeCallback(broken, **ALWAYS))
    assert same(plain.policy.state_dict(), model.policy.state_dict())


def test_critic_loss_and_return_stand_beside_the_gradients() -> None:
    def world() -> Any:
        return Monitor(gymnasium.wrappers.TimeLimit(Integrator(), 10))

    seeded()
    rows: list[dict[str, Any]] = []
    model = TD3("MlpPolicy", DummyVecEnv([world]), seed=0, **copy.deepcopy(REPLAYED))
    callback = ProbeCallback(log=rows.append, **ALWAYS)
    model.learn(250, callback=callback)
    row = [each for each in rows if "vitals/looked" in each][-1]
    assert row["vitals/critic_loss"] > 0
    returns = [each["r"] for each in model.ep_info_buffer]
    assert min(returns) <= row["vitals/episode_return"] <= max(returns)
    seeded()
    bare = TD3("MlpPolicy", DummyVecEnv([world]), seed=0, **copy.deepcopy(REPLAYED)).learn(250)
    assert same(model.policy.state_dict(), bare.policy.state_dict())


def test_a_loaded_model_goes_on_in_its_log(tmp_path: Path) -> None:
    model, log = made(TD3), tmp_path / "run.h5"
    first = ProbeCallback(log=log, **ALWAYS)
    model.learn(250, callback=first)
    model.save(tmp_path / "model")
    loaded = TD3.load(tmp_path / "model", env=model.get_env())
    with pytest.raises(InputError, match="go on in it with resume=True"):
        loaded.learn(10, callback=ProbeCallback(log=log, **ALWAYS), reset_num_timesteps=False)
    with pytest.raises(InputError, match="a log of its own or resume=True"):
        loaded.learn(10, callback=first, reset_num_timesteps=False)
    again = ProbeCallback(log=log, resume=True, **ALWAYS)
    loaded.learn(250, callback=again, reset_num_timesteps=False)
    steps = journal.read(log).groups["vitals"]["step"].values
    assert (np.diff(steps) > 0).all() and steps[-1] == 500


def test_two_callbacks_on_one_log_leave_the_model_learning(tmp_path: Path) -> None:
    model = made(TD3)
    callbacks = [ProbeCallback(log=tmp_path / "run.h5", **ALWAYS) for _ in range(2)]
    with pytest.warns(RuntimeWarning, match="is being written"):
        model.learn(250, callback=callbacks)
    bare = made(TD3).learn(250)
    assert same(model.policy.state_dict(), bare.policy.state_dict())


def test_without_the_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [k for k in sys.modules if k.startswith("gradlab.integrations.stable")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.callbacks", None)
    with pytest.raises(InputError, match=r"^stable-baselines3 is not installed: pip install 'g"):
        import gradlab.integrations.stable_baselines3  # noqa: F401
