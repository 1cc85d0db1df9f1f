"""Warp kernels as Systems: what is no argument. Their steps: test_engines_in_use.py."""

import pytest

from gradlab.errors import InputError
from gradlab.systems import from_warp


def reward(s, a, after):
    return -after.square().sum(1) - s[:, 0] * a[:, 0]


def test_wrong_arguments_are_one_line():
    with pytest.raises(InputError, match=r"^dtype is 'half', expected one of float32, float64"):
        from_warp(print, 2, 1, reward, dtype="half")
    with pytest.raises(InputError, match=r"^device is 'cuda:7', which this machine does not have"):
        from_warp(print, 2, 1, reward, device="cuda:7")
    with pytest.raises(InputError, match=r"^reward is None, expected a function"):
        from_warp(print, 2, 1, None)
