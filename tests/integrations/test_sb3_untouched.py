"""A model of Stable-Baselines3 learns the same bits with a probe as without one."""

from typing import Any

import numpy as np
import pytest

from gradlab.storage import journal
from tests.integrations.bits import integrator_task, often, same, streams
from tests.integrations.bits import trained as modules_of

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
