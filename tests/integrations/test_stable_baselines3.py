"""The callback of Stable-Baselines3 beside a model that learns: its rows, and what it survives.

What the callback takes a model of Stable-Baselines3 for, and which models it refuses.

The example scripts run on their real tasks, and CleanRL's loop computes the same bits.

TensorBoard gets the rows that a function gets, and the loop does not notice.
"""

import copy
import csv
import sys
from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.integrations.loggers import to_tensorboard
from gradlab.probe.log import Log
from gradlab.storage import journal
from tests.integrations.bits import (
    Integrator,
    example,
    integrator_task,
    often,
    same,
    seeded,
    streams,
    trained,
)
from tests.integrations.bits import trained as modules_of

ALWAYS: dict[str, Any] = {"every": 50}


@pytest.mark.parametrize("kind", ["TD3", "SAC"])
def test_saturation_is_counted_in_the_models_own_units(sb3, kind):
    model, rows = sb3.made(kind), []
    last = model.actor.mu[-2] if kind == "TD3" else model.actor.mu
    torch.nn.init.constant_(last.bias, 50.0)
    model.learn(120, callback=sb3.ProbeCallback(rows.append, **ALWAYS))
    assert next(row for row in rows if "vitals/looked" in row)["vitals/saturation/0"] == 1.0


def test_steps_are_the_models_and_updates_are_the_optimisers(sb3):
    rows: list[dict[str, Any]] = []
    model = sb3.made("TD3").learn(250, callback=sb3.ProbeCallback(rows.append, **ALWAYS))
    vitals = [row for row in rows if "vitals/looked" in row]
    assert [row["update"] for row in vitals] == [50, 100, (model._n_updates) // 2]
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


def test_without_the_package_the_remedy_is_said(monkeypatch):
    for name in [k for k in sys.modules if k.startswith("gradlab.integrations.stable")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.callbacks", None)
    with pytest.raises(InputError, match=r"^stable-baselines3 is not installed: .*'\.\[sb3\]'"):
        import gradlab.integrations.stable_baselines3  # noqa: F401


@pytest.mark.parametrize("kind", ["TD3", "SAC"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_models_networks_are_declared(sb3, kind, frozen):
    model, callback = sb3.made(kind), sb3.ProbeCallback(every=50)
    if frozen:
        model.tau = 0.0
    model.learn(620, callback=callback)
    found = {each.code: each.finding for each in callback.probe.alarms}
    told = [each for code, each in found.items() if code == "moved_target_frozen"]
    assert bool(told) == frozen == bool(found)
    assert all("critic" in each.subject for each in told) or kind == "TD3"


@pytest.mark.parametrize("kind", ["TD3", "SAC", "PPO"])
def test_whole_episodes_of_a_model_are_played_beside_it(sb3, kind):
    rows: list[dict[str, Any]] = []
    given = {"every": 2, "env": Integrator}
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
@pytest.mark.sampled(1)
def test_a_model_learns_the_same_bits_with_a_probe(sb3, name, updates, tmp_path):
    often_enough = often(updates)
    callback = sb3.ProbeCallback(tmp_path / "run.h5", integrator_task(), **often_enough)
    without = learned(sb3, name, updates, None)
    with_one = learned(sb3, name, updates, callback)
    assert same(without, with_one)
    tables = journal.read(tmp_path / "run.h5").groups
    assert tables["vitals"]["update"].values[-1] >= updates
    assert len(tables["successive"]["update"].values) >= 1
    assert len(tables["measured"]["update"].values) >= 4


KINDS = ("TD3", "DDPG", "SAC", "A2C", "PPO")


def doubled(module):
    return copy.deepcopy(module).double()


def states(n=5):
    return np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_is_what_the_model_predicts(sb3, kind, normalised):
    model = sb3.made(kind, normalised).learn(60)
    policy, s = doubled(sb3.parts_of(model).policy), states()
    shown = model.get_vec_normalize_env().normalize_obs(s) if normalised else s
    expected, _ = model.predict(shown, deterministic=True)
    given = [torch.as_tensor(s).double()]
    if hasattr(policy, "noise_dim"):
        given.append(torch.zeros(5, policy.noise_dim, dtype=torch.float64))
    found = policy(*given).detach().numpy()
    assert np.abs(found - expected).max() < 1e-5 and np.abs(expected).max() > 1e-3


def test_sacs_noise_is_that_of_its_distribution(sb3):
    model, s = sb3.made("SAC"), torch.as_tensor(states(7))
    torch.manual_seed(3)
    expected = 2 * model.actor(s)  # limits are ±2
    torch.manual_seed(3)
    found = sb3.parts_of(model).policy(s, torch.randn(7, 1))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["TD3", "SAC"])
def test_the_critic_has_the_environments_units(sb3, kind):
    """Normalised observations and rewards, scaled actions: Q in units of the true reward."""
    model, s = sb3.made(kind, True).learn(60), states()
    a = np.linspace(-2, 2, 5)[:, None].astype(np.float32)
    normalizer = model.get_vec_normalize_env()
    shown = torch.as_tensor(normalizer.normalize_obs(s))
    values = torch.cat(model.critic(shown, torch.as_tensor(a / 2)), dim=1)
    expected = values[:, 0] if kind == "TD3" else values.min(dim=1)[0]
    unit = float(np.sqrt(normalizer.ret_rms.var + normalizer.epsilon))
    critic = doubled(sb3.parts_of(model).critic)
    found = critic(torch.as_tensor(s).double(), torch.as_tensor(a).double())
    assert torch.allclose(found, unit * expected.double(), rtol=1e-5) and unit != 1.0


def test_only_what_actions_depend_on_is_watched(sb3):
    names = {k: {n for n, _ in sb3.parts_of(sb3.made(k)).policy.named_parameters()} for k in KINDS}
    assert names["TD3"] == {"mu.0.weight", "mu.0.bias", "mu.2.weight", "mu.2.bias"} == names["DDPG"]
    assert names["SAC"] == {
        f"{part}.{end}" for part in ("latent_pi.0", "mu", "log_std") for end in ("weight", "bias")
    }
    assert names["PPO"] == names["A2C"]
    assert names["PPO"] == {"log_std"} | {
        f"{part}.{end}" for part in ("policy_net.0", "action_net") for end in ("weight", "bias")
    }


REFUSED: list[tuple[str, Callable[[Any], Any], gradlab.Task | None]] = [
    ("model is a DQN, expected", lambda sb3: sb3.discrete("DQN"), None),
    ("actions are Discrete: leave the task out", lambda sb3: sb3.discrete("PPO"),
     integrator_task()),
    ("explores with gSDE", lambda sb3: sb3.made("SAC", use_sde=True), integrator_task()),
    (r"observations have shape \(2,\), but the states of task .* have shape \(4,\)",
     lambda sb3: sb3.made("TD3"), gradlab.tasks.mujoco("InvertedPendulum-v5")),
]  # fmt: skip


@pytest.mark.parametrize("words, model, task", REFUSED)
def test_what_cannot_be_done_is_said_before_training(sb3, words, model, task):
    with pytest.raises(InputError, match=words) as caught:
        model(sb3).learn(10, callback=sb3.ProbeCallback(task=task))
    assert "\n" not in str(caught.value)


def test_rows_go_anywhere(tmp_path, capsys):
    example("anywhere").main(tmp_path, steps=250)
    vitals = journal.read(tmp_path / "run.h5").groups["vitals"]
    with open(tmp_path / "norms.csv") as file:
        rows = [(int(step), float(norm)) for step, norm in csv.reader(file)]
    assert rows == list(zip(vitals["step"].values, vitals["grad_norm"].values, strict=True))
    assert list((tmp_path / "tensorboard").iterdir())
    assert "the probe took" in capsys.readouterr().out


def writer_to(folder):
    from torch.utils.tensorboard import SummaryWriter  # takes a second

    return SummaryWriter(folder)


def events_in(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, state, action):
        return self.layer(torch.cat([state, action], 1))[:, 0]


def climbed(logs, updates, **given):
    """A plain loop, and all that it leaves; without logs there is no probe."""
    seeded()
    policy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Tanh())
    critic = Critic()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    task = integrator_task()
    probe = None
    if logs:
        probe = gradlab.Probe(policy, optimizer, task, critic, log=list(logs), **given)
    for step in range(updates):
        state = torch.randn(16, 2)
        optimizer.zero_grad()
        loss = -critic(state, policy(state)).mean()
        if probe is None:
            loss.backward()
        else:
            with probe(10 * step):
                loss.backward()
        optimizer.step()
    if probe is not None:
        assert not probe.off
        probe.close()
    return {
        "modules": trained(policy, critic),
        "optimizer": optimizer.state_dict(),
        "streams": streams(),
    }


def test_names_are_what_tensorboard_takes_steps_never_fall_and_nan_is_left_out(
    tmp_path, monkeypatch
):
    rows: list[dict[str, Any]] = []
    with writer_to(tmp_path) as writer:
        climbed((to_tensorboard(writer), rows.append), 120, **often(50))
    events = events_in(tmp_path)
    tags = events.Tags()["scalars"]
    given = {
        f"gradlab/{name}" for row in rows if "findings/title" not in row
        for name, value in row.items()
        if name not in ("step", "update") and not isinstance(value, str) and isfinite(value)
    }  # fmt: skip
    assert set(tags) == given  # TensorBoard would have put _ for what it does not take
    assert any(not isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    assert all(isfinite(each.value) for tag in tags for each in events.Scalars(tag))
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)


class Remembering:
    """A writer that only remembers."""

    def __init__(self):
        self.said: list[tuple[Any, ...]] = []

    def add_scalar(self, *given):
        self.said.append(given)

    def add_text(self, *given):
        self.said.append(given)


def test_failures_are_text():
    writer = Remembering()
    log = Log(to_tensorboard(writer, "mine"), {}, (), (0, None, lambda: 0))
    log.report(Finding("dead path", "fail", at="w", n=10), 3, 40)
    said = "The gradient of w was exactly 0 in all of 10 updates. Look for a detach or a"
    ((tag, text, step),) = writer.said
    assert (tag, step) == ("mine/findings/dead path", 40) and text.startswith(said)
