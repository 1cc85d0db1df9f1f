"""Windows of recorded trajectories hold the whole return of their first state."""

import pytest
import torch

from gradlab.data.trajectories import first, segments
from gradlab.errors import InputError
from gradlab.tools.logs.arguments import windows
from tests.logs.carts import fallen, recorded


def test_windows_of_whole_trajectories_are_segments():
    data = recorded(6, 5)
    cut, known = windows(data, 5).path, segments(data, 5)
    for name in ("states", "rewards", "alive", "group"):
        assert torch.equal(getattr(cut, name), getattr(known, name)), name
    assert torch.equal(cut.actions[:-1], known.actions[:-1])
    assert cut.actions[-1].isnan().all()


def test_a_fallen_trajectory_goes_on_dead_and_its_return_is_that_of_the_rows():
    data, _ = fallen()
    lengths = torch.bincount(data.trajectory)
    early = int((lengths < 4).nonzero()[0])
    cut = windows(data, 6)
    assert cut.trajectories == 40 and cut.left_out == 0
    column = cut.path.group.tolist().index(early)
    n = int(lengths[early])
    assert cut.path.alive[:, column].tolist() == [True] * n + [False] * (7 - n)
    assert not cut.path.rewards[n:, column].any()
    last = data.next_state[data.trajectory == early][-1]
    assert torch.equal(cut.path.states[n:, column], last.expand(7 - n, -1))
    ended = float(data.terminated.sum()) / 40
    assert cut.ended == pytest.approx(ended)
    rewards = windows(data, 6).path.rewards.sum(dim=0)
    known = torch.zeros(40, dtype=torch.float64).index_add_(0, data.trajectory, data.reward)
    torch.testing.assert_close(rewards, known)


def test_a_trajectory_that_merely_stops_is_left_out():
    short = first(recorded(6, 5), 28)  # the last has 3 steps
    assert windows(short, 5).left_out == 1
    assert windows(short, 3).left_out == 0


def test_windows_begin_every_so_many_steps():
    cut = windows(recorded(5, 10), 4, every=3)
    assert cut.path.group.tolist() == [k for k in range(5) for _ in range(3)]
    first_rows = recorded(5, 10).state.reshape(5, 10, 2)[:, [0, 3, 6]].reshape(15, 2)
    assert torch.equal(cut.path.states[0], first_rows)


@pytest.mark.parametrize(
    ("count", "steps", "every", "told"),
    [
        (3, 5, None, "3 trajectories, of which 3"),
        (6, 9, None, "of which 0 have 9 steps"),
        (6, 0, None, "steps is 0"),
        (6, 5, 0, "every is 0"),
    ],
)
def test_too_little_is_refused_with_numbers(count, steps, every, told):
    with pytest.raises(InputError, match=told):
        windows(recorded(count, 5), steps, every)
