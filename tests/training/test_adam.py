"""Adam on given gradients, beside torch's."""

import pytest
import torch

from gradlab.training.trained import Adam

RATES = (1e-2, 1e-3, 1e-3)


def leaves(dtype):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=dtype) for shape in ((2, 3, 4), (2, 1, 4))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_torch_optim(dtype):
    ours, theirs = leaves(dtype), leaves(dtype)
    own, other = Adam(ours, 0.0), torch.optim.Adam(theirs, fused=False, foreach=False)
    torch.manual_seed(1)
    for rate in RATES:
        gradients = [torch.randn_like(x) for x in ours]
        own.rate = other.param_groups[0]["lr"] = rate
        own.step(gradients)
        for leaf, gradient in zip(theirs, gradients, strict=True):
            leaf.grad = gradient
        other.step()
    eps = torch.finfo(dtype).eps
    for k, leaf in enumerate(theirs):
        torch.testing.assert_close(ours[k], leaf, rtol=10 * eps, atol=10 * eps)
        for name, value in own.state(k).items():
            torch.testing.assert_close(value, other.state[leaf][name], rtol=10 * eps, atol=eps)


LAYOUTS = {
    "transposed": lambda g: g.transpose(-1, -2).contiguous().transpose(-1, -2),
    "strided": lambda g: torch.stack([g, -g], dim=-1)[..., 0],
    "expanded": lambda g: g[:, :1].expand(g.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("transposed", [False, True], ids=["parameters", "transposed parameters"])
def test_a_gradient_is_applied_entry_by_entry_whatever_its_strides(layout, transposed):
    ours, theirs = leaves(torch.float64), leaves(torch.float64)
    if transposed:
        ours = [LAYOUTS["transposed"](x) for x in ours]
    own, other = Adam(ours, 0.01), torch.optim.Adam(theirs, 0.01, fused=False, foreach=False)
    torch.manual_seed(1)
    for _ in range(5):
        gradients = [LAYOUTS[layout](torch.randn_like(x)) for x in theirs]
        own.step(gradients)
        for leaf, gradient in zip(theirs, gradients, strict=True):
            leaf.grad = gradient
        other.step()
    for mine, leaf in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, leaf, rtol=1e-14, atol=1e-14)


def test_a_saved_state_goes_on_bit_for_bit():
    first, gradients = leaves(torch.float32), leaves(torch.float32)
    adam = Adam(first, 1e-2)
    adam.step(gradients)
    second = [x.clone() for x in first]
    again = Adam(second, 1e-2)
    for k in range(len(second)):
        again.load(k, {name: value.clone() for name, value in adam.state(k).items()})
    for each in (adam, again):
        each.step(gradients)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
