"""Rows of experience as a record: with and without episodes, and what is refused."""

import pytest
import torch

from gradlab.data import trajectories
from gradlab.errors import InputError

STATE = torch.arange(12.0).reshape(6, 2)
NEXT = STATE + 2
ACTION, REWARD = torch.ones(6, 1), torch.arange(6.0)
ENDED = torch.tensor([False, False, True, False, False, False])


def test_rows_follow_one_another_within_an_episode_alone():
    record = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED)
    assert record.step.tolist() == [0] * 6
    assert torch.equal(record.truncated, ~ENDED)
    with pytest.raises(InputError, match="longest trajectory has 1"):
        trajectories.segments(record, 2)
    record = trajectories.from_rows(
        STATE, ACTION, REWARD, NEXT, ENDED, torch.tensor([4, 4, 4, 9, 9, 9])
    )
    assert record.step.tolist() == [0, 1, 2, 0, 1, 2]
    assert record.truncated.tolist() == [False] * 5 + [True]
    assert trajectories.segments(record, 3).states.shape == (4, 2, 2)


def test_records_survive_the_disk(tmp_path):
    record = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED)
    again = trajectories.load(record.save(tmp_path / "data.h5"))
    for name in trajectories.DIMS:
        assert torch.equal(getattr(again, name), getattr(record, name))


def test_joined_records_keep_their_trajectories_apart():
    episode = torch.tensor([0, 0, 0, 1, 1, 1])
    one = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED, episode)
    both = trajectories.joined([one, one])
    assert both.trajectory.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    cut = trajectories.first(both, 5)
    assert len(cut) == 5 and bool(cut.truncated[-1]) and not bool(cut.terminated[-1])


def test_what_is_wrong_is_named():
    broken = STATE.clone()
    broken[3, 1] = torch.nan
    with pytest.raises(InputError, match=r"state is not finite in 1 rows \(first: row 3\)"):
        trajectories.from_rows(broken, ACTION, REWARD, NEXT, ENDED)
    with pytest.raises(InputError, match="jumps"):
        trajectories.from_rows(
            STATE.flip(0), ACTION, REWARD, NEXT, ~ENDED & False, torch.zeros(6).long()
        )
    with pytest.raises(InputError, match=r"terminated is torch\.float32"):
        trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED.float())
    with pytest.raises(InputError, match="expected integers"):
        trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED, REWARD)
    record = trajectories.from_rows(STATE, ACTION, REWARD, NEXT, ENDED)
    with pytest.raises(InputError, match="actions of width 1, expected 2"):
        trajectories.check_widths(record, 2, 2)
