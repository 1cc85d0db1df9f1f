"""Faults of derivatives that were met elsewhere: named where they are, and not where they are not.

What is right of each stands on top of its file.
"""

import warnings

import pytest
import torch

import gradlab
from gradlab.tools.certify.compute import certify_function
from tests.cases import damped_last_step, time_of_impact
from tests.cases.actuator_limit import cart
from tests.cases.friction_ones import slide
from tests.cases.model_of_the_action_before import spring
from tests.cases.recomputed_clock import plate
from tests.cases.time_of_impact import cushion
from tests.cases.velocity_product import rod


def wrong(certificate):
    return [each for each in certificate.findings if each.severity == "wrong"]


@pytest.mark.parametrize(
    ("task", "blocks"),
    [
        (cart(slot=1), {"A", "r_s"}), (cart(slot=2), set()),
        (rod(whole=False), {"A", "r_s"}), (rod(whole=True), set()),
        (slide("ones"), {"A", "r_s"}), (slide("chain"), {"A", "r_s"}), (slide("whole"), set()),
        (plate(by_argument=False), {"A", "B", "r_s", "r_a"}), (plate(by_argument=True), set()),
    ],
    ids=lambda each: each.name if isinstance(each, gradlab.Task) else "",
)  # fmt: skip
def test_a_derivative_is_named_where_it_is_wrong_and_passes_where_it_is_right(task, blocks):
    certificate = gradlab.certify(task, samples=512)
    assert {each.block for each in wrong(certificate)} == blocks, certificate.sentences
    assert certificate.shown == (not blocks)


def test_a_term_of_velocities_is_named_at_their_columns():
    found = [each for each in wrong(gradlab.certify(rod(whole=False), samples=512)) if each.entries]
    assert {entry.column for each in found for entry in each.entries} == {"s2", "s3"}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (damped_last_step.newton(0.5), "Every wrong entry is 0.5 times its difference."),
        (damped_last_step.newton(1.0), None),
        (damped_last_step.gauss_newton, "∂y/∂x is wrong"),
        (damped_last_step.implicit, None),
    ],
)
def test_a_layer_is_judged_by_its_last_step_and_without_a_warning_of_torch_s(function, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        certificate = certify_function(function, damped_last_step.INPUTS)
    assert certificate.shown == (said is None), certificate.sentences
    assert said is None or said in certificate.sentences[1]


def test_forward_mode_of_a_step_with_a_moving_clock_is_right_and_not_blamed():
    task, generator = plate(by_argument=False), torch.Generator().manual_seed(0)
    s = task.starts(32, generator)
    a, u = torch.randn(2, 32, 1, generator=generator, dtype=torch.float64)
    _, along = torch.func.jvp(lambda a: task.simulator.step(s, a).state, (a,), (u,))
    h = 1e-5
    up, down = (task.simulator.step(s, a + sign * h * u).state for sign in (1, -1))
    torch.testing.assert_close(along, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)
    said = " ".join(gradlab.certify(task, samples=256).sentences)
    assert "jvp" not in said and "orward mode" not in said


@pytest.mark.parametrize("step", [time_of_impact.plain, time_of_impact.impact, time_of_impact.free])
@pytest.mark.parametrize("samples", [512, 2048])
def test_where_rollouts_bounce_a_right_step_sends_to_measure(step, samples):
    headline = gradlab.certify(cushion(step), samples=samples).headline
    assert headline.startswith("Use the derivatives of cushion: they are those of its step.")
    assert headline.endswith("ask `gradlab measure` whether the return follows these derivatives.")


def test_without_its_time_of_impact_the_return_has_another_sign_than_its_derivative():
    """What the certificate cannot see, by autograd and by differences over .15 of velocity."""

    def returns(step, s):
        total, a = 0.0, torch.zeros(len(s), 1).double()
        for t in range(12):
            s, r = step(s, a)
            total = total + 0.99**t * r
        return total

    agree = {}
    for step in (time_of_impact.plain, time_of_impact.impact):
        s = cushion(step).starts(2000, torch.Generator().manual_seed(0)).requires_grad_()
        (slope,) = torch.autograd.grad(returns(step, s).sum(), s)
        move = torch.tensor([0.0, 0.15]).double()
        change = returns(step, s.detach() + move) - returns(step, s.detach() - move)
        agree[step] = float((slope[:, 1] * change > 0).double().mean())
    assert agree[time_of_impact.plain] < 0.6 and agree[time_of_impact.impact] > 0.95


@pytest.mark.slow
def test_measure_names_the_jump_and_no_other_problem_where_a_ball_flies_off():
    found = {}
    for step in (time_of_impact.plain, time_of_impact.free):
        found[step] = gradlab.measure(
            cushion(step), time_of_impact.policy(), lambda s, a: 0 * s[:, 0], horizon=2, starts=64,
            judges=64, rehearse=False,
        )  # fmt: skip
    broken, free = found.values()
    assert broken.truth["status"] == "jumps" and broken.jumps.kind == "harmful"
    reasons = [each.reason for each in free.realised.disagreements(free.table(), free.jumps)]
    assert set(reasons) <= {"step"}


def test_a_model_of_the_action_before_is_wrong_in_the_action_s_block():
    errors = {}
    for late in (True, False):
        task = spring(late)
        torch.manual_seed(0)
        policy = torch.nn.Linear(2, 1).double()
        starts = task.starts(64, torch.Generator().manual_seed(0))
        run = gradlab.compare_jacobians(task.simulator, task.prior, starts, policy, horizon=6)
        rows = run.rows("block", quantity="relative error")
        errors[late] = dict(zip(rows["block"], rows["value"], strict=True))
    assert max(errors[True], key=errors[True].get) == "B"
    assert errors[False]["B"] < 0.5 * errors[True]["B"]
