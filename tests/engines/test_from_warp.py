"""Warp kernels as Systems, against the same step in torch."""

import pytest
import torch
import warp as wp

from gradlab.errors import InputError
from gradlab.systems import from_function, from_warp
from gradlab.systems.system import BLOCKS


@wp.kernel
def pushed(
    state: wp.array2d(dtype=wp.float64),
    action: wp.array2d(dtype=wp.float64),
    after: wp.array2d(dtype=wp.float64),
):
    i = wp.tid()
    speed = state[i, 1] + wp.float64(0.1) * (wp.sin(state[i, 0]) + action[i, 0])
    after[i, 1] = speed
    after[i, 0] = state[i, 0] + wp.float64(0.1) * speed


MIDDLE = [wp.zeros((16, 2), dtype=wp.float64, device="cpu", requires_grad=True) for _ in range(2)]


def twice(state, action, after):
    """Two substeps, through an array that every call writes."""
    wp.launch(pushed, 16, [state, action], [MIDDLE[0]], device="cpu")
    wp.launch(pushed, 16, [MIDDLE[0], action], [after], device="cpu")


def reward(s, a, after):
    return -after.square().sum(1) - s[:, 0] * a[:, 0]


def in_torch(s, a):
    x, speed = s[:, 0], s[:, 1]
    for _ in range(2):
        speed = speed + 0.1 * (x.sin() + a[:, 0])
        x = x + 0.1 * speed
    after = torch.stack([x, speed], 1)
    return after, reward(s, a, after)


def inputs(n):
    draws = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws[:, :2], draws[:, 2:]


def test_steps_and_jacobians_are_those_of_torch_call_after_call():
    system = from_warp(twice, 2, 1, reward, dtype="float64", rows=16)
    truth = from_function(in_torch, 2, 1)
    for n in (5, 40):  # arrays between the kernels keep nothing from call to call
        out, want = system.step(*inputs(n)), truth.step(*inputs(n))
        torch.testing.assert_close(out.state, want.state, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(out.reward, want.reward, rtol=1e-14, atol=1e-14)
        linear, expected = system.linearize(*inputs(n)), truth.linearize(*inputs(n))
        for block in BLOCKS:
            torch.testing.assert_close(
                getattr(linear, block), getattr(expected, block), rtol=1e-13, atol=1e-13
            )


def test_wrong_arguments_are_one_line():
    with pytest.raises(InputError, match=r"^dtype is 'half', expected one of float32, float64"):
        from_warp(twice, 2, 1, reward, dtype="half")
    with pytest.raises(InputError, match=r"^device is 'cuda:7', which this machine does not have"):
        from_warp(twice, 2, 1, reward, device="cuda:7")
    with pytest.raises(InputError, match=r"^reward is None, expected a function"):
        from_warp(twice, 2, 1, None)
