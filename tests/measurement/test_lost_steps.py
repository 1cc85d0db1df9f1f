"""Simulators that leave the finite numbers are refused with step, start, state and action."""

import re

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_function
from gradlab.tasks import Task

GAIN, LIMIT, DISCOUNT = 0.5, 1.5, 0.9
STARTS = torch.tensor([[0.1], [-0.7], [0.4], [1.2], [0.9], [-0.2], [0.3], [0.6]]).double()


def policy():
    found = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(found.weight, GAIN)
    return found


def critic(state, action):
    return -(state[:, 0] ** 2) - action[:, 0] ** 2


def task(step, horizon=4, alive=None):
    system = from_function(step, 1, 1, alive=alive)
    return Task("own", system, None, lambda n, g: STARTS[:n].clone(), DISCOUNT, horizon)


def measured(step, starts=STARTS, alive=None, **given):
    settings = {"judges": 4, "rehearse": False} | given
    return gradlab.measure(task(step, alive=alive), policy(), critic, starts=starts, **settings)


def losing(what, value):
    """s′ = s + a = (1 + GAIN) s, with one number lost from states beyond LIMIT on."""

    def step(s, a):
        after, reward = s + a, -(s[:, 0] ** 2)
        if what == "reward":
            return after, torch.where(s[:, 0].abs() > LIMIT, value, reward)
        return torch.where(s.abs() > LIMIT, value, after), reward

    return step


@pytest.mark.parametrize("what", ["reward", "state"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_none_is_refused_where_it_is_made(what, value):
    path = [STARTS]
    while not (path[-1].abs() > LIMIT).any():
        path.append((1 + GAIN) * path[-1])
    start = int((path[-1].abs() > LIMIT).int().argmax())
    state = float(path[-1][start])
    assert len(path) == 2 and start == 3  # lost on the way, neither at once nor in the first start
    for starts, law in ((STARTS, None), (len(STARTS), "start"), (len(STARTS), "visited")):
        with pytest.raises(InputError) as refused:
            measured(losing(what, value), starts, law=law)
        said = str(refused.value)
        assert said.startswith(
            f"the simulator fails in step 1 from start {start}: its next {what} "
        )
        assert f"at state ({state:.3g}) and action ({GAIN * state:.3g})" in said


def test_a_reward_that_is_lost_beyond_the_horizon_is_refused_too():
    """The truth needs it."""
    steps = next(t for t in range(99) if float(STARTS.abs().max()) * 1.05**t > LIMIT)
    assert steps > 4

    def step(s, a):
        return 1.05 * s + 0 * a, losing("reward", torch.nan)(s, a)[1]

    with pytest.raises(InputError, match=f"fails in step {steps} from start 3: its next reward"):
        measured(step)


def test_a_return_that_overflows_after_finite_steps_says_so():
    largest = torch.finfo(torch.float64).max

    def rich(s, a):
        return 0.5 * s + 0.1 * a, torch.full_like(s[:, 0], 0.6 * largest) + 0 * a[:, 0]

    assert 0.6 < 1 < 0.6 * (1 + DISCOUNT)
    with pytest.raises(InputError, match=r"return overflows in step 1, from 8 of 8 starts \(first"):
        measured(rich)

    def growing(s, a):
        return 1e100 * (s + a), -s[:, 0].abs()

    with pytest.raises(InputError, match=r"in step 3, from 8 of 8 .* states are up to 4.1e\+300"):
        measured(growing)
    found = measured(growing, horizon=2)  # the steps before are measured, their truth is none
    assert "leave the finite numbers on 8 starts, first at step" in found.truth["reason"]


def test_what_comes_after_an_end_is_nobodys_loss():
    step, inside = losing("reward", torch.nan), lambda after: after[:, 0].abs() <= LIMIT
    found = measured(step, alive=inside, termination="mask")
    assert found.table().value.notna().all()
    with pytest.raises(InputError, match="from start 3"):
        measured(step, alive=inside)


def test_the_derivative_is_not_blamed_for_steps_that_are_not_finite():
    """Rewards are finite at integers alone, where the derivative is 0."""

    def step(s, a):
        return s + 0 * a, -(s[:, 0] ** 2) + (1 - 1e30 * (s - s.round()).square()).log().sum(1)

    starts = torch.arange(8).double()[:, None] - 3
    found = measured(step, starts)
    said = " ".join(each.sentence for each in found.sanity)
    assert re.search("beside [0-9]+ states the step is not finite", said)
    assert "backward pass" not in said and "nothing can be decided: correct" not in said
