"""The world models of `examples/`: what they are for gradlab, and what their losses teach."""

import copy

import pytest
import torch

from tests.integrations.bits import example


@pytest.mark.parametrize("kind", ["tdmpc", "dreamer", "jepa"])
def test_a_loss_moves_every_part(kind):
    torch.manual_seed(0)
    module = example("world_models")
    model = module.KINDS[kind](3, (2.0,), 0.97)
    target = copy.deepcopy(model).requires_grad_(False)
    o, a, r = torch.randn(6, 32, 3), torch.randn(5, 32, 1), torch.randn(5, 32)
    loss = model.loss(target, o, a, r)
    loss.backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    unused = {"jepa": ("paid", "policy"), "dreamer": ("encoder", "dynamics")}.get(kind, ())
    assert loss.isfinite() and {name.split(".")[0] for name in still} == set(unused)


@pytest.mark.parametrize("kind", ["tdmpc", "dreamer", "jepa"])
def test_a_checkpoint_is_a_task_with_its_latents(kind, tmp_path):
    module, file = example("world_models"), tmp_path / "world.pt"
    model = module.KINDS[kind](5, (1.0,), 0.95)
    torch.save({"kind": kind, "task": "cart-pole", "model": model.state_dict()}, file)
    task, policy, critic = module.loaded(str(file))
    begin = task.starts(4, torch.Generator().manual_seed(0))
    assert begin.shape == (4, 5 + module.DZ)
    noise = (torch.zeros(4, 1).double(),) if hasattr(policy, "noise_dim") else ()
    action = policy.double()(begin, *noise)
    after = task.prior.step(begin, action, torch.zeros(4, task.prior.noise_dim).double())
    assert action.shape == (4, 1) and after.state.shape == begin.shape
    assert critic(begin, action).shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tdmpc", "dreamer"])
def test_it_learns_to_swing_the_pendulum_up(kind):
    said: list[str] = []
    for _ in example("world_models").train(kind, "pendulum", 16_000, report=said.append):
        pass
    assert max(float(line.split()[-1]) for line in said) > -400  # at random about −1,100
