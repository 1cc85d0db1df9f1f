"""Records given as arrays or files, read as they were or refused."""

import numpy as np
import pytest
import torch

from gradlab.errors import InputError
from gradlab.tools.logs.arguments import read
from tests.logs.carts import recorded
from tests.logs.columns import arrays


def test_arrays_are_read_as_they_were(tmp_path):
    data, found = recorded(60, 12), read(arrays(tmp_path / "logs.npz"))
    for name in ("state", "action", "reward", "next_state", "trajectory", "step"):
        assert torch.equal(getattr(found, name), getattr(data, name)), name
    assert torch.equal(read(data.save(tmp_path / "logs.h5")).state, data.state)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"reward": np.full(720, np.nan)}, "reward is not finite"),
        ({"action": np.zeros(720)}, "action has shape"),
        ({"episode": np.arange(720) * 0.5}, "episode"),
        ({"state": np.array([object()])}, "no readable .npz"),
    ],
)
def test_broken_arrays_are_refused(tmp_path, changed, says):
    with pytest.raises(InputError, match=says):
        read(arrays(tmp_path / "logs.npz", **changed))


def test_files_that_hold_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "part.npz", state=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"part.npz has no action"):
        read(tmp_path / "part.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="no readable"):
        read(tmp_path / "text.npz")
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.npz")
