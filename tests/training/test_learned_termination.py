"""Learned models end episodes where the task does; where nobody knows, nothing is begun."""

from dataclasses import dataclass, replace

import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems.system import System, Transition
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, row, task

MASKED = SMALL | {"termination": "mask"}
MESSAGE = "termination is 'mask', but push has no termination function for a learned model: give"


def alive(state):
    return state[:, 0].abs() < 2.5


@pytest.mark.parametrize("name", ["rp-dp", "ddppo", "mbpo"])
def test_a_task_without_a_termination_function_is_refused_and_nothing_overwritten(tmp_path, name):
    path = tmp_path / "run.h5"
    path.write_bytes(b"an earlier run")
    with pytest.raises(InputError, match=MESSAGE) as refused:
        train(row(name), task(), path, **MASKED, overwrite=True)
    assert "\n" not in str(refused.value) and path.read_bytes() == b"an earlier run"
    # The prior ends its own rollouts, and what is ignored needs no end.
    chosen = replace(row("rp-dp"), model=None)
    train(chosen, task(), tmp_path / "prior.h5", **(MASKED | {"iterations": 1}))
    known = replace(task(), alive=alive)
    train(row(name), known, tmp_path / "known.h5", **(MASKED | {"iterations": 1}))


@dataclass(frozen=True)
class Opaque:
    """A simulator that does not show where its episodes end."""

    inner: System
    differentiable = True

    def __getattr__(self, name):
        if name == "alive":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def step(self, state, action, noise=None) -> Transition:
        return self.inner.step(state, action, noise)


def test_a_simulator_that_ends_an_episode_unannounced_is_refused_before_a_model_is_fitted(tmp_path):
    world = Opaque(task().simulator)
    hidden = replace(task(), simulator=world, prior=None)
    with pytest.raises(InputError, match=MESSAGE):
        train(row("rp-dp"), hidden, tmp_path / "run.h5", **MASKED)

    def never(state):
        return torch.ones(len(state), dtype=torch.bool)

    endless = Opaque(replace(task().simulator, alive=never))
    endless = replace(hidden, simulator=endless)
    train(row("rp-dp"), endless, tmp_path / "endless.h5", **(MASKED | {"iterations": 1}))
