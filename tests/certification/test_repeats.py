"""Steps that depend on more than the row of their arguments."""

import itertools
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.systems import Certificate, Linearization, Transition, from_function
from gradlab.tools.certify.result import Deviation, merged
from tests.certification.steps import codes, found, wrong


def certified(step):
    return gradlab.certify(from_function(step, 2, 2), samples=64)


def smooth(s, a):
    return torch.sin(s) + 0.1 * a, -s.square().sum(1)


def test_a_value_that_is_kept_from_a_first_call_is_found_in_one_batch():
    """Of as many rows as the whole sample has, so that no call before had another."""
    kept: dict[int, Tensor] = {}

    def step(s, a):
        after, reward = smooth(s, a)
        return kept.setdefault(len(s), after.detach()) + after - after.detach(), reward

    assert codes(certified(step)) == {"stale"}


class Flipped(torch.autograd.Function):
    """x, whose derivative has the wrong sign where the mask says so."""

    @staticmethod
    def forward(ctx, x, mask):
        ctx.save_for_backward(mask)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.where(ctx.saved_tensors[0], -gradient, gradient), None


@pytest.mark.parametrize("of", ["step", "derivative"])
def test_rows_that_mix_in_large_batches_alone_are_no_earlier_calls(of):
    """Twice as many substeps where some row is fast: of 2,048 one is, of 64 none."""

    def step(s, a):
        fast = bool((s.detach().abs().max() > 6).item())
        if of == "step":
            s = s + 0.1 * fast * torch.cos(s)
        return smooth(Flipped.apply(s, torch.full((len(s), 1), fast)) if of != "step" else s, a)

    torch.manual_seed(0)
    states, actions = torch.randn(2, 2048, 2, dtype=torch.float64)
    states[1003] = 7
    made = {
        each.code for each in wrong(gradlab.certify(from_function(step, 2, 2), states, actions))
    }
    assert "rows_mix" in made and "stale" not in made


def test_a_memory_that_converges_is_as_large_as_another_call_makes_it():
    """A call that is made again moves by 1e-6 alone, one after another call by 1e-2."""
    last = torch.zeros(2, dtype=torch.float64)

    def step(s, a):
        nonlocal last
        last = 1e-4 * last + s.detach()[-1]  # of the newest call
        return smooth(s + 0.1 * last, a)

    (kept,) = (x for x in wrong(certified(step)) if not x.block)
    assert kept.value > 1e-3


def test_a_clamp_with_a_straight_through_gradient_is_no_multiple_of_zero():
    def step(s, a):
        return smooth(s, a + (a.clamp(-1, 1) - a).detach())

    torch.manual_seed(0)
    states, actions = torch.randn(2, 256, 2, dtype=torch.float64)
    made = wrong(gradlab.certify(from_function(step, 2, 2), states, actions))
    assert float("inf") in {entry.ratio for each in made for entry in each.entries}


@pytest.mark.parametrize("every", [4, 50])
def test_a_derivative_that_is_wrong_by_the_number_of_a_row_is_named_as_that(every):
    """A 50th of the rows passed, and a fourth "depends on earlier calls: a buffer"."""

    def step(s, a):
        mask = torch.arange(len(s))[:, None] % every == 0
        return smooth(Flipped.apply(s, mask), a)

    made = certified(step)
    assert not made.passed and "place" in codes(made) and "stale" not in codes(made)


def test_a_step_whose_rows_have_parameters_of_their_own_is_named():
    mass = torch.linspace(1, 2, 4096).double()

    def step(s, a):
        after, reward = smooth(s, a)
        return after / mass[: len(s), None], reward

    (made,) = wrong(certified(step))
    assert (made.code, made.block) == ("place", "")


@pytest.mark.parametrize(
    ("how", "code"), [("generator", "restless"), ("clock", "restless"), ("kept", "stale")]
)
def test_a_buffer_is_told_from_a_generator_or_a_clock_and_the_output_is_named(how, code):
    draw, held = torch.Generator().manual_seed(0), {"calls": 0, "last": torch.zeros(())}

    def step(s, a):
        after, _ = smooth(s, a)
        held["calls"] += 1
        moved = {
            "generator": 0.1 * torch.randn(len(s), generator=draw, dtype=s.dtype),
            "clock": 0.01 * torch.sin(torch.tensor(0.1 * held["calls"])),
            "kept": held["last"],
        }[how]
        held["last"] = 0.1 * s.detach().mean()
        after = after + torch.stack([0 * s[:, 0], 0 * s[:, 0] + moved], 1)
        return after, -after.square().sum(1)

    (made,) = wrong(certified(step))
    assert (made.code, made.finding.at) == (code, "in s1′")


def test_a_clock_that_strikes_seldom_is_no_dependence_on_rows_or_places():
    """Derivatives that were taken at its stroke seem to depend on these."""
    calls = [0]

    def step(s, a):
        calls[0] += 1
        after, reward = smooth(s, a)
        return (1.3 if calls[0] % 50 == 0 else 1.0) * after, reward

    assert {(each.code, each.block) for each in wrong(certified(step))} == {("restless", "")}


def test_an_argument_that_is_written_into_is_found():
    def step(s, a):
        result = smooth(s, a.detach() + (a - a.detach()))
        a.data.mul_(0.5)
        return result

    assert "arguments_changed" in codes(certified(step))


@pytest.mark.parametrize("reused", ["next state", "reward", "nothing"])
def test_a_buffer_that_is_returned_at_every_call_is_a_finding_of_its_own(reused):
    """`np.add(…, out=buffer)` beside right Jacobians: at its own call every result is right."""
    A, B = 0.9 * torch.eye(2).double(), 0.1 * torch.eye(2).double()

    class Reusing:
        state_dim, action_dim, noise_dim, differentiable = 2, 2, 0, False
        buffers: ClassVar[dict[str, Tensor]] = {}

        def step(self, state, action, noise=None):
            made = {"next state": state @ A + action @ B, "reward": -state.square().sum(1)}
            if reused in made:
                rows = self.buffers.setdefault(f"{reused} {len(state)}", made[reused].clone())
                made[reused] = rows.copy_(made[reused])
            return Transition(made["next state"], made["reward"], torch.ones(len(state)).bool())

        def linearize(self, state, action, noise=None):
            J = A.expand(len(state), -1, -1), B.expand(len(state), -1, -1)
            return Linearization(*J, -2 * state, 0 * action, Certificate.exact(state))

        def sample_noise(self, n, generator, dtype=torch.float64):
            return torch.zeros(n, 0, dtype=dtype)

    made = gradlab.certify(Reusing(), samples=64)
    assert made.passed == (reused == "nothing")
    said = [(each.code, each.finding.at) for each in wrong(made)]
    assert said == [("result_changed", reused)] * (not made.passed)


def test_a_state_that_is_written_into_is_no_change_of_what_the_action_was():
    """The clamp's derivative keeps the action, which is a tensor of its own in a loop."""

    def step(s, a):
        limited = a.clamp(-1, 1)
        with torch.no_grad():
            s[:, 1].clamp_(-1, 1)
        return smooth(s, limited)

    assert "arguments_changed" in codes(certified(step))


class Cached:
    """Derivatives read what the last step of as many rows has left."""

    state_dim, action_dim, noise_dim, differentiable = 2, 2, 0, True

    def step(self, state, action, noise=None):
        self.cosine = torch.cos(state)
        after, reward = smooth(state, action)
        return Transition(after, reward, torch.ones(len(state), dtype=torch.bool))

    def linearize(self, state, action, noise=None):
        own = len(self.cosine) == len(state)
        cosine = self.cosine if own else torch.cos(state)
        B = 0.1 * torch.eye(2, dtype=state.dtype).expand(len(state), 2, 2)
        zero = torch.zeros_like(action)
        exact = Certificate.exact(state)
        return Linearization(torch.diag_embed(cosine), B, -2 * state, zero, exact)

    def sample_noise(self, n, generator, dtype=torch.float64):
        return torch.zeros(n, 0, dtype=dtype)


def test_derivatives_that_read_what_the_last_step_has_left_are_found():
    made = gradlab.certify(Cached(), samples=1100)
    assert [(each.code, each.block) for each in wrong(made)] == [("stale", "A")]


def test_of_a_derivative_that_depends_on_earlier_calls_nothing_else_is_said():
    """That a velocity of the last call is wrong "at a kink" led astray."""
    stale = Deviation("stale", 1.0, block="A", source="linearize")
    at_kinks, other = replace(stale, code="wrong"), replace(stale, code="wrong", block="B")
    step = replace(stale, block="", source="")
    assert merged([at_kinks, stale, other]) == [stale, other]
    assert at_kinks in merged([at_kinks, step])


def test_a_derivative_of_other_rows_is_found_in_its_block():
    def step(s, a):
        after, reward = smooth(s, a)
        others = a.mean(0, keepdim=True)
        return after + 0.1 * (others - others.detach()), reward

    assert {each.block for each in wrong(certified(step))} == {"B"}


def test_random_state_of_the_caller_is_kept():
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    certified(smooth)
    assert torch.equal(torch.rand(1), wanted)


class Memo(torch.autograd.Function):
    """sin, whose derivative is kept for a batch's size."""

    kept: ClassVar[dict[int, Tensor]] = {}

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, *gradients):
        (x,) = ctx.saved_tensors
        return gradients[0] * Memo.kept.setdefault(len(x), x.cos())


def test_a_derivative_that_is_kept_for_a_batch_size_is_found():
    step = from_function(lambda s, a: (Memo.apply(s) + 0.1 * a, -s.square().sum(1)), 2, 2)
    made = found(gradlab.certify(step, samples=512))
    assert ("stale", "A") in {(each.code, each.block) for each in made}


@pytest.mark.parametrize("every", [50, 400])
def test_a_step_that_is_another_one_now_and_then_is_found(every):
    calls = itertools.count(1)

    def step(s, a):
        after, reward = smooth(s, a)
        return after * (1.01 if next(calls) % every == 0 else 1.0), reward

    assert not certified(step).passed


@pytest.mark.parametrize("size", [3e-7, 1e-3])
def test_sums_in_another_order_are_no_fault_in_float32(size):
    """As of a GPU's atomic additions: the order is another one at each call."""
    signs = itertools.cycle([1.0, -1.0, 0.0])

    def step(s, a):
        after, reward = smooth(s, a)
        single = after.float() * (1 + size * next(signs))
        return single.double(), reward

    assert certified(step).passed is (size < 1e-6)


def test_the_operation_whose_derivative_is_infinite_is_named_not_what_makes_nan_of_it():
    """∂√x²: the root sends back infinity, which the square times 0 makes NaN."""

    def step(s, a):
        square = s * s
        return torch.sin(s) + 0.1 * a + torch.sqrt(square), -s.square().sum(1)

    torch.manual_seed(0)
    states, actions = torch.randn(2, 256, 2, dtype=torch.float64)
    states[::8, 1] = 0.0
    made = gradlab.certify(from_function(step, 2, 2), states, actions)
    said = [each.at for each in made.findings if each.code == "not_finite"]
    assert any("sqrt (test_repeats.py:" in each for each in said)
    assert not any("mul (" in each for each in said)


@pytest.mark.parametrize("of", ["one action", "all actions", "all of the state"])
def test_a_root_at_zero_is_found_where_policies_and_rests_are(of):
    """The norm of what is 0 in an untrained policy's actions, or at the origin."""

    def step(s, a):
        taken = {"one action": a[:, :1], "all actions": a, "all of the state": s}[of]
        after, reward = smooth(s, a)
        return after, reward - 0.1 * taken.square().sum(1).sqrt()

    certificate = gradlab.certify(from_function(step, 2, 2))
    assert any("sqrt (" in each.at for each in certificate.findings)
