"""An engine's System, as a simulator and as a model, gives the numbers of the same one in torch.

Every file of examples/engines is a sound System: its derivatives are those of its own step. Warp
kernels as Systems: what is no argument.
"""

import copy
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.storage.journal import read
from gradlab.systems import from_warp
from gradlab.systems.system import BLOCKS
from tests.engines import worlds


@pytest.fixture(scope="module", params=worlds.ALL, ids=lambda world: world.__name__)
def world(request):
    return request.param()


def task(simulator, model):
    def starts(n, generator):
        return 0.3 * torch.randn(n, simulator.state_dim, generator=generator, dtype=torch.float64)

    limits, exploration = (1.0,) * simulator.action_dim, (0.1,) * simulator.action_dim
    return gradlab.Task(
        "world", simulator, model, starts, 0.9, 3, action_limit=limits, exploration=exploration
    )


def policy(system):
    linear = nn.Linear(system.state_dim, system.action_dim).double()
    with torch.no_grad():
        linear.weight.copy_(torch.linspace(-0.5, 0.5, linear.weight.numel()).view_as(linear.weight))
        linear.bias.zero_()
    return linear


def critic(state, action):
    return -2 * state.square().sum(1) - action.square().sum(1)


def measured(simulator, model):
    profile = gradlab.measure(
        task(simulator, model), policy(model), critic, horizon=3, starts=16, batch=16
    )
    rows = profile.table().query("quantity == 'mean_norm'")
    return {(r.estimator, r.horizon): r.value for r in rows.itertuples()}


def trained(algorithm, system, path):
    """Returns before and after three updates, with norms of the first and the last."""
    record = read(
        gradlab.train(
            algorithm, task(system, system), path, overwrite=True, precision="float64",
            iterations=3, episode=10, warmup=16, evaluation_starts=4, evaluate_every=3,
            log_every=1, keep=(),
        )
    )  # fmt: skip
    returns = record.groups["evaluations"]["return_mean"].values.ravel()
    norms = record.groups["updates"]["policy_norm"].values.ravel()
    assert returns[0] != returns[-1]
    return [*returns, norms[0], norms[-1]]


def test_steps_and_both_modes_are_those_of_the_closed_form(world):
    system, truth, error = world
    for n in (5, 70):  # arrays between kernels keep nothing from call to call
        generator = torch.Generator().manual_seed(n)
        widths = system.state_dim, system.action_dim
        s, a = (torch.randn(n, k, generator=generator, dtype=torch.float64) for k in widths)
        a = a.clamp(-0.9, 0.9)
        out, want = system.step(s, a), truth.step(s, a)
        torch.testing.assert_close(out.state, want.state, rtol=error, atol=error)
        torch.testing.assert_close(out.reward, want.reward, rtol=error, atol=10 * error)
        linear, expected = system.linearize(s, a), truth.linearize(s, a)
        for block in BLOCKS:
            got, wanted = getattr(linear, block), getattr(expected, block)
            torch.testing.assert_close(got, wanted, rtol=error, atol=10 * error)
        x = s.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(system.step(x, a).state[:, -1].sum(), x)
        torch.testing.assert_close(gradient, expected.A[:, -1], rtol=error, atol=10 * error)


def test_a_measurement_is_that_of_the_same_system_in_torch(world):
    system, truth, error = world
    # A prior that is the simulator itself is no model, and has no estimators of its own.
    ours, theirs = measured(system, truth), measured(truth, copy.deepcopy(truth))
    assert ours.keys() == theirs.keys() and ("true_dynamics", 3) in ours
    assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=error)


def test_jacobians_are_those_of_the_same_system_in_torch(world):
    system, truth, error = world
    first = task(truth, truth).starts(16, torch.Generator().manual_seed(0))
    compared = gradlab.compare_jacobians(system, truth, first, policy(truth), horizon=3)
    errors = compared.rows("block", quantity="relative error")["value"]
    assert len(errors) and (errors < error).all()


def test_training_through_an_engine_is_training_through_torch(world, tmp_path):
    """MPG-v2 with the engine as simulator and as the model through which gradients flow."""
    system, truth, error = world
    ours, theirs = (trained("mpg-v2", s, tmp_path / "run.h5") for s in (system, truth))
    assert ours == pytest.approx(theirs, rel=error)


def test_a_model_is_learned_on_an_engines_transitions(tmp_path):
    """SVG(∞) fits a model of its own: no number of it is known."""
    before, after, *norms = trained("svg-inf", worlds.jax()[0], tmp_path / "run.h5")
    assert np.isfinite([before, after, *norms]).all()


def reward(s, a, after):
    return -after.square().sum(1) - s[:, 0] * a[:, 0]


def test_wrong_arguments_are_one_line():
    with pytest.raises(InputError, match=r"^dtype is 'half', expected one of float32, float64"):
        from_warp(print, 2, 1, reward, dtype="half")
    with pytest.raises(
        InputError, match=r"^device is 'cuda:7', expected one that this machine has"
    ):
        from_warp(print, 2, 1, reward, device="cuda:7")
    with pytest.raises(InputError, match=r"^reward is None, expected a function"):
        from_warp(print, 2, 1, None)


FOLDER = Path(__file__).parents[2] / "examples/engines"
NEEDED = {
    "mjx_cart": "mujoco.mjx", "mujoco_torch_cart": "mujoco_torch", "newton_ball": "newton",
    "vmas_transport": "vmas",
}  # fmt: skip


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("*.py"))])
def test_the_derivatives_of_an_example_are_those_of_its_step(name):
    pytest.importorskip(NEEDED[name])
    system = importlib.import_module(f"examples.engines.{name}").simulator()
    assert gradlab.certify(system, samples=64).passed
