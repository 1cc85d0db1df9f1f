"""A second replay that the model fills, and MBPO, which trains on it."""

from dataclasses import replace

import torch

from gradlab.data.replay import Replay
from gradlab.systems import from_function
from gradlab.training.collection import Branches, Branching
from gradlab.training.parts.context import Draws
from gradlab.training.parts.sources import Branched, Stores
from tests.training.small_runs import row

DRAWS = Draws((0, 1), torch.float64, "cpu")


def small(**changes):
    branching = replace(Branching(every=20, rollouts=30, first=1, last=3, end=40), **changes)
    return replace(row("mbpo"), source=Branched(branching, 0.25))


def drift(state, action):
    """One coordinate that moves by the action and counts steps, and one that stays."""
    return state + torch.cat([action, torch.zeros_like(action)], dim=1), state[:, 0]


def model(end=100.0):
    return from_function(drift, state_dim=2, action_dim=1, alive=lambda s: s[:, 0] < end)


def replayed(rows=50):
    """Transitions whose states are their numbers, apart for each seed."""
    replay = Replay(2, 100, 2, 1, torch.float64)
    number = torch.arange(2.0 * rows, dtype=torch.float64).view(2, rows, 1) / 1000
    flat = number[..., 0]
    state, after = torch.cat([0 * number, number], 2), torch.cat([number, number], 2)
    replay.add(state, number, flat, after, 0 * flat)
    return replay


def forward(state, noise):
    """One to the right."""
    return torch.ones_like(state[..., :1]), None


def filled(branching, **model_options):
    branches = Branches(branching, replayed(), DRAWS)
    table_row = branches.fill(replayed(), model(**model_options), forward, None, 0)
    return branches, table_row


def test_rollouts_branch_off_replayed_states_of_their_own_seed_and_follow_the_model():
    branches, told = filled(Branching(rollouts=20, first=3, last=3))
    rows = branches.replay.rows[:, : len(branches.replay)].view(2, 3, 20, -1)
    assert told["scheduled"] == 3 and told["realised"].tolist() == [3.0, 3.0]
    assert (rows[0, 0, :, 1] < 0.05).all() and (rows[1, 0, :, 1] >= 0.05).all()
    for step in range(3):
        assert (rows[:, step, :, 0] == step).all() and (rows[:, step, :, 4] == step + 1).all()
        assert torch.equal(rows[:, step, :, 1], rows[:, 0, :, 1])


def test_a_step_without_numbers_is_not_stored():
    def breaks(state, action):
        after, reward = drift(state, action)
        return torch.where(state[:, :1] > 0.5, torch.nan, after), reward

    branches = Branches(Branching(rollouts=20, first=4, last=4), replayed(), DRAWS)
    broken = from_function(breaks, state_dim=2, action_dim=1)
    told = branches.fill(replayed(), broken, forward, None, 0)
    assert branches.replay.rows.isfinite().all()
    assert told["realised"].tolist() == [2.0, 2.0]


def test_the_length_follows_its_schedule_and_never_shrinks_below_one():
    schedule = Branching(first=1, last=15, begin=20, end=160)
    assert [schedule.length(k) for k in (0, 20, 29, 30, 90, 160, 10**6)] == [1, 1, 1, 2, 8, 15, 15]


def test_a_batch_has_the_share_of_real_rows_and_the_newest_of_the_model():
    branching = Branching(every=10, rollouts=20, kept=2, first=1, last=2, begin=0, end=20)
    branches = Branches(branching, replayed(), DRAWS)
    for k in range(0, 50, 10):
        branches.fill(replayed(), model(), lambda s, n, k=k: (0 * s[..., :1] + k, None), None, k)
    batch = Branched(branching, 0.25)(Stores(replayed(), branches.replay, DRAWS, 40), 45)
    assert (batch.action[:, :10] < 1).all()
    assert set(batch.action[:, 10:].flatten().tolist()) == {30.0, 40.0}
