"""What the callback takes a model of Stable-Baselines3 for, and which models it refuses."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from tests.integrations.bits import integrator_task

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
