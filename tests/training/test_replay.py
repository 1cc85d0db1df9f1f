import torch

from gradlab.data.replay import Replay


def numbered(first: int, count: int, members: int = 2):
    """Transitions whose every entry is their number, members told apart by their sign."""
    number = torch.arange(first, first + count, dtype=torch.float64)
    sign = torch.tensor([1.0, -1.0])[:members, None]
    value = sign * number
    state, action = value[..., None].expand(-1, -1, 3), value[..., None]
    return state, action, value, state + 0.5, torch.zeros(members, count, dtype=torch.bool)


def test_a_batch_is_whole_transitions_of_its_own_member():
    replay = Replay(2, 100, 3, 1, torch.float64)
    replay.add(*numbered(1, 40))
    batch = replay.sample(torch.rand(2, 64))
    assert (batch.state[0] > 0).all() and (batch.state[1] < 0).all()
    for part in (batch.action[..., 0], batch.reward, batch.next_state[..., 2] - 0.5):
        assert torch.equal(part, batch.state[..., 0])


def test_the_oldest_transitions_are_overwritten():
    replay = Replay(2, 10, 3, 1, torch.float64)
    for first in range(0, 28, 4):
        replay.add(*numbered(first, 4))
    batch = replay.sample((torch.arange(10) + 0.5).expand(2, -1) / 10)
    assert sorted(batch.reward[0].tolist()) == list(range(18, 28))


def test_every_stored_transition_is_reached_and_none_other():
    replay = Replay(1, 1000, 3, 1, torch.float64)
    replay.add(*numbered(1, 7, members=1))
    reached = replay.sample(torch.tensor([[0.0, 0.99999999999]], dtype=torch.float64)).reward
    assert reached.tolist() == [[1.0, 7.0]]
