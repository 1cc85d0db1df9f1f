"""Faults are found far from the origin, and beside states that are a million times larger.

Certified differences: their errors hold, and kinks and jumps are seen.

Where a NaN comes from, kinks, and what rollouts meet.

Steps that compute in less than their numbers show, or to a tolerance: nobody is accused wrongly.

Fixed before any tuning: at 512 states of seed 0 the certificate passes, and finds nothing wrong,
dead, mixed or stale; a kink or jump at a tenth of the states at most, where the step has none.
Changed after a first look, which accused 4 of 67: two solvers at 1e-9 had run out of steps (1e-8
in its place), two at 1e-3, the threshold itself, are rightly named (1e-6 in its place).

Whether a certificate names a planted fault, and whether it alarms where nothing is wrong.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_function
from gradlab.tasks import Task
from gradlab.tools.certify.comparison import SAFETY
from gradlab.tools.certify.evaluation import SIZE, Points, noise_of, reference
from gradlab.tools.certify.page import page
from tests.certification.faults import FAULTS, Fault, with_derivative_of
from tests.certification.inexact_steps import DA, DS, INEXACT, adaptive, cost, network
from tests.certification.sound_systems import elsewhere, mujoco_tasks, sound_tasks
from tests.certification.steps import codes, found, wrong

REFUSED = {"step has hidden randomness": "random"}  # a certificate of it would be of no function


def named(fault: Fault, samples: int) -> bool:
    """A finding that fails is of the fault's codes, and none of a block that it does not break."""
    try:
        certificate = gradlab.certify(fault.task(), samples=samples)
    except InputError as refused:
        said = {code for words, code in REFUSED.items() if str(refused).startswith(words)}
        return bool(said & set(fault.codes))
    told = [
        each for each in found(certificate) if each.decision == "fail" or each.code in fault.codes
    ]  # fmt: skip
    # A step that is no function of its arguments has no Jacobian: any block may differ there.
    right_blocks = not fault.blocks or {each.block for each in told} <= set(fault.blocks)
    return right_blocks and any(each.code in fault.codes for each in told)


FAR = dict(elsewhere())["far"]


def broken(s, a):
    """∂s0′/∂s0 lacks a hundredth."""
    out = FAR.simulator.step(s, a)
    first = with_derivative_of(out.state[:, 0], 0.99 * (out.state[:, 0] - s[:, 1]) + s[:, 1])
    return torch.stack([first, out.state[:, 1]], 1), out.reward


def wrong_blocks(task):
    return {each.block for each in wrong(gradlab.certify(task, samples=128))}


def test_fault_is_found_a_thousand_kilometres_from_the_origin():
    """The position's own rounding is no noise of the reward."""
    assert wrong_blocks(FAR) == set()
    fault = replace(FAR, simulator=from_function(broken, 2, 1))
    assert wrong_blocks(fault) == {"A"}
    assert gradlab.certify(fault, samples=128).facts["precision"] == torch.finfo(torch.float64).eps


def test_fault_is_found_beside_states_that_left():
    """One start in twenty is a million times larger than the others."""

    def starts(n, generator):
        near = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return near * torch.where(torch.arange(n) % 20 == 0, 1e6, 1.0)[:, None]

    def step(s, a):
        pull = torch.sin(3 * s)
        return 0.5 * s + with_derivative_of(pull, 0.99 * pull) + a, -s.square().sum(1)

    task = Task("heavy tails", from_function(step, 2, 1), None, starts, 0.98, 4)
    assert wrong_blocks(task) == {"A"}


def test_wide_step_that_aliases_is_not_the_best():
    """sin in single precision: ten times the usual step, and its quarter, are whole periods."""
    epsilon = torch.finfo(torch.float32).eps
    usual = 2 * math.pi / 2.5
    size = torch.full((2,), usual / (SIZE * epsilon ** (1 / 3)), dtype=torch.float64)

    def step(s, a):
        after = torch.sin(s.float() + a.float()).to(s.dtype)
        return after, after[:, 0]

    z = torch.linspace(-3, 3, 64, dtype=torch.float64)[:, None] * torch.ones(2)
    z = z.float().double()
    differences = reference(from_function(step, 1, 1), Points(z, None), size, 1e-3, epsilon)
    gap = (differences.D - z.sum(1).cos()[:, None, None]).abs()
    assert (gap <= SAFETY * differences.error).all()


def test_errors_of_blocks_in_units_a_million_times_apart_are_those_of_rounding():
    """s1′ has ∂/∂a of 1e-9 of its ∂/∂s in spreads: what differences make of it says nothing."""

    def step(s, a):
        return torch.stack([0.9 * s[:, 0], 1e6 * s[:, 1] + 1e-3 * a[:, 0]], 1), -(s[:, 0] ** 2)

    certificate = gradlab.certify(from_function(step, 2, 1), samples=256)
    assert certificate.passed and certificate.table()["p95"].max() < 1e-3


def test_a_cast_inside_the_step_is_named_with_its_line():
    def step(s, a):
        low = torch.sin(s.float()).double()
        return s + 0.1 * a + 0.05 * low, -s.square().sum(1)

    certificate = gradlab.certify(from_function(step, 1, 1), samples=128)
    (said,) = (each.at for each in certificate.findings if each.code == "low_precision")
    line = step.__code__.co_firstlineno + 1
    assert f"float32, first at {Path(__file__).name}:{line} (`low = torch.sin(s.float())" in said
    assert certificate.passed


def test_constants_and_masks_in_single_precision_are_no_cast():
    """They are promoted, or no part of the values."""

    def step(s, a):
        mask = s.float() > 0
        return torch.where(mask, 0.9 * s, 0.8 * s) + torch.tensor([0.1]) * a, -s.square().sum(1)

    exact = gradlab.certify(from_function(step, 1, 1), samples=64)
    assert "low_precision" not in codes(exact)


# The certificate names the forty planted faults, and is silent where nothing is wrong.


# In the fast suite, where a second batch of derivatives follows the first; of `certify`.
SAMPLES, DEFAULT = 288, 2048
SOUND = dict(sound_tasks())
SOME = list(SOUND)[::23]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found_and_its_block_named(fault):
    assert named(fault, SAMPLES)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.sampled(4)
def test_sound_system_passes(name):
    certification = gradlab.certify(SOUND[name], samples=SAMPLES)
    assert certification.passed, certification


@pytest.mark.slow
def test_at_least_39_of_40_faults_are_found_with_the_default_number_of_states():
    missed = [fault.name for fault in FAULTS if not named(fault, DEFAULT)]
    assert len(missed) <= 1, missed


@pytest.mark.slow
def test_at_most_one_false_alarm_in_two_hundred_sound_systems():
    systems = SOUND | dict(mujoco_tasks())
    raised = [name for name, task in systems.items() if not gradlab.certify(task).passed]
    assert len(systems) >= 200
    assert len(raised) <= 1, raised


DOUBLE = torch.finfo(torch.float64).eps
SINGLE = torch.finfo(torch.float32).eps


def differenced(step, z, epsilon=DOUBLE):
    system = from_function(step, 1, 1)
    return reference(system, Points(z, None), torch.ones(2, dtype=z.dtype), 1e-3, epsilon)


def line(n=50):
    x = torch.linspace(-2, 2, n, dtype=torch.float64)
    return torch.stack([x, 0.5 * x.flip(0)], 1)


def smooth(s, a):
    return torch.exp(s) * torch.sin(3 * a), (s**3 * a)[:, 0]


def exact(z):
    """∂(s', r)/∂(s, a) of `smooth`."""
    s, a = z.unbind(1)
    after = torch.stack([s.exp() * (3 * a).sin(), 3 * s.exp() * (3 * a).cos()], 1)
    reward = torch.stack([3 * s**2 * a, s**3], 1)
    return torch.stack([after, reward], 1)


def in_float32(s, a):
    after, reward = smooth(s.float(), a.float())
    return after.double(), reward.double()


@pytest.mark.parametrize(("step", "epsilon"), [(smooth, DOUBLE), (in_float32, SINGLE)])
def test_errors_hold_the_distance_from_the_closed_form(step, epsilon):
    z = line()
    made = differenced(step, z, epsilon)
    wrong = (made.D - exact(z)).abs()
    assert bool((wrong <= 5 * made.error).all())
    assert not made.kink.any()
    assert float(made.error.median()) < (1e-8 if epsilon == DOUBLE else 1e-2)


def test_a_kink_is_seen_at_its_place_alone():
    z = torch.tensor([[0.0, 0.3], [1e-3, 0.3], [0.3, 0.0]], dtype=torch.float64)
    made = differenced(lambda s, a: (s.abs() + a, s[:, 0]), z)
    assert made.kink.tolist() == [[True, False], [False, False], [False, False]]
    assert made.D[1, 0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("bend", [torch.sin, torch.relu])
def test_rounding_of_a_reward_far_from_its_spread_is_no_kink_and_hides_none(bend):
    """-s² from a million on: its last digit is 1e-10."""

    def step(s, a):
        return s + 0.05 * torch.stack([s[:, 1], bend(s[:, 0]) + a[:, 0]], 1), 1e6 - s[:, 1] ** 2

    onset = gradlab.certify(from_function(step, 2, 1), samples=1024).facts["strata"]["onset"]
    assert onset > 20 if bend is torch.relu else onset == 0


def test_the_noise_of_a_step_is_that_where_it_is_finite():
    def noise(lost):
        def step(s, a):
            single = s[:, 0].float().sin().double()
            return s + a, single + torch.where(a[:, 0] < 0, lost, 0.0)

        return noise_of(from_function(step, 1, 1), Points(random(256, 2), None))

    assert noise(0.0) > 1e-9
    assert noise(torch.nan) == pytest.approx(noise(0.0), rel=0.5)


def test_a_jump_leaves_no_certain_difference():
    z = torch.zeros(1, 2, dtype=torch.float64)
    made = differenced(lambda s, a: ((s > 0).to(s) + 0 * a, s[:, 0]), z)
    assert bool(made.kink[0, 0]) or float(made.error[0, 0, 0]) > 0.1 * float(made.D[0, 0, 0].abs())


def test_a_kink_beside_a_state_is_stepped_over_by_smaller_steps():
    z = torch.tensor([[3e-6, 0.3]], dtype=torch.float64)
    made = differenced(lambda s, a: (s.abs() + a, s[:, 0]), z)
    assert made.D[0, 0, 0] == pytest.approx(1.0) and float(made.error[0, 0, 0]) < 1e-4


def test_a_derivative_that_is_not_finite_has_its_operation_line_and_row():
    def step(s, a):
        drag = torch.where(s[:, :1] > 0, torch.sqrt(s[:, :1]), 0.0)  # NaN below 0
        return torch.cat([0.9 * s[:, :1] + 0.1 * drag, s[:, 1:]], 1) + a, -s.square().sum(1)

    certificate = gradlab.certify(from_function(step, 2, 2), samples=64)
    lost = next(x for x in found(certificate) if x.code == "not_finite" and x.block == "A")
    line = step.__code__.co_firstlineno + 1
    assert f"sqrt (test_certified_scales_and_modes.py:{line}), row " in lost.finding.at


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kink", [True, False])
def test_rollouts_that_cross_a_kink_off_the_limits_send_to_measure(kink):
    """A control that the step clips at the task's limit, where its derivative is that of one side;
    a spring of one side at 0 is a kink that no limit explains."""

    def step(s, a):
        after = 0.9 * s + 0.1 * a.clamp(-1, 1)
        return after, -(after[:, 0] ** 2) + kink * 5 * s[:, 0].clamp(min=0)

    def starts(n, generator):
        return torch.randn(n, 1, generator=generator, dtype=torch.float64)

    task = gradlab.Task(
        "clipped", from_function(step, 1, 1), None, starts, 0.9, 5, action_limit=(1.0,)
    )
    certificate = gradlab.certify(task, samples=256)
    (finding,) = (each for each in certificate.findings if each.code == "rough")
    assert finding.decision == "pass"
    assert finding.at.endswith(f" at {finding.n}") == (not kink)
    said = certificate.recommendation.field("next")
    assert certificate.shown and ("gradlab measure" in said) == kink
    assert page(certificate).advice.field("next") == said


def test_clips_are_found_without_being_named():
    """Beyond a clip at 0.137 the derivative is wrong, in a stratum of its own."""

    def step(s, a):
        clipped = s.clamp(-0.137, 50.0)
        return clipped + 0.1 * a, -(s[:, 0] ** 2)

    certificate = gradlab.certify(from_function(step, 2, 2), samples=256)
    assert certificate.passed, certificate
    strata = certificate.facts["strata"]
    assert strata["saturation"] > 0 and strata["onset"] > 0


def test_the_first_step_that_is_not_finite_is_named():
    def step(s, a):
        return s + 1 + 0 * a + 0 * (20.5 - s).sqrt(), s[:, 0]

    def starts(n, generator):
        return torch.full((n, 1), 10.0, dtype=torch.float64)

    task = gradlab.Task("counter", from_function(step, 1, 1), None, starts, 0.9, 5, ("count",))
    certificate = gradlab.certify(task, samples=2048)
    (note,) = (each for each in found(certificate) if each.code == "left_out")
    assert (note.decision, note.entries[0].row) == ("skipped", "count′")
    assert "at step 11" in note.said  # 10, 11, …, 21: the root of −0.5


USUAL = ("float32 tanh (64, 64)", "torch.bfloat16 tanh × 0.01", "adaptive 1e-05 shared",
         "implicit 1e-06 Newton", "GRUCell torch.float32", "reward in float32")  # fmt: skip
ROUGH = ("relu", "linear", "by row")


def certificate(step, samples=512):
    return gradlab.certify(from_function(step, DS, DA), samples=samples, seed=0)


def accusations(step, name, samples):
    made = certificate(step, samples)
    told = [each.said for each in wrong(made)]
    onset = made.facts["strata"]["onset"] / samples
    if onset > 0.1 and not any(word in name for word in ROUGH):
        told.append(f"an onset at {onset:.0%} of the states")
    return told if made.passed or told else ["not passed"]


@pytest.mark.parametrize("name", USUAL)
def test_an_inexact_step_is_not_accused(name):
    steps = INEXACT | {"adaptive 1e-05 shared": adaptive(1e-5, shared=True, span=0.2)}
    assert accusations(steps[name], name, 128) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", INEXACT)
def test_no_inexact_step_is_accused(name):
    assert accusations(INEXACT[name], name, 512) == []


@pytest.mark.slow
def test_a_solver_as_loose_as_the_threshold_is_named():
    """Its steps are chosen by the state, which backpropagation leaves out: by plain differences the
    derivative is off by more than the threshold in an entry, in a tenth of the states and more."""
    step = adaptive(1e-3, shared=False)
    z = 1.5 * torch.randn(64, DS + DA, generator=torch.Generator().manual_seed(0)).double()
    at = z.clone().requires_grad_()
    after = step(at[:, :DS], at[:, DS:])[0]
    J = torch.stack([torch.autograd.grad(y.sum(), at, retain_graph=True)[0] for y in after.T], 1)
    ends = [[step((z + d)[:, :DS], (z + d)[:, DS:])[0] for d in (move, -move)]
            for move in 1e-5 * torch.eye(DS + DA).double()]  # fmt: skip
    D = torch.stack([(up - down) / 2e-5 for up, down in ends], 2)
    off = (J - D).abs() / torch.maximum(D.abs(), D.square().mean(0).sqrt())
    assert float((off.amax((1, 2)) > 1e-3).double().mean()) > 0.1
    assert accusations(step, "by row", 512) != []


@pytest.mark.parametrize(("rate", "named"), [(6e3, False), (6e5, True)])
def test_derivatives_of_rows_that_a_solver_couples_may_mix_up_to_the_threshold(rate, named):
    """By 5e-8 rate of their size and more, as by a step size that all rows share: the
    derivatives of torchdiffeq's Lorenz system, by 2.5e-4, were accused."""

    def step(s, a):
        after = 0.9 * s + 0.1 * s.roll(1, 1).sin() + 0.1 * a.sum(1, keepdim=True)
        return after + 5e-8 * torch.sin(rate * s.mean(0)), cost(s, a)

    assert ("rows_mix" in {each.code for each in wrong(certificate(step, 128))}) == named


def test_differences_that_err_by_more_than_is_tolerated_show_nothing():
    made = certificate(INEXACT["torch.bfloat16 tanh × 0.1"], 128)
    assert made.passed and not made.shown and "imprecise" in codes(made)
    shown = made.recommendation
    assert shown.light == "choose" and shown.field("usable").startswith("with care")


class Half(torch.autograd.Function):
    """x, whose derivative is wrong by a share."""

    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return (1 - ctx.share) * g, None


def planted(fault, share):
    net = network(7, (32, 32), torch.nn.Tanh)

    def step(s, a):
        x = torch.cat([s, a], 1).float()
        if fault == "A":
            x = torch.cat([Half.apply(x[:, :DS], share), x[:, DS:]], 1)
        elif fault == "B":
            x = torch.cat([x[:, :DS], Half.apply(x[:, DS:], share)], 1)
        after = 0.2 * s + net(x).double()
        if fault == "mixed":
            after = after - share * after.mean(0)
        reward = cost(s.float(), a.float()).double()
        if fault == "r_s":
            reward = cost(Half.apply(s.float(), share), a.float()).double()
        elif fault == "r_a":
            reward = cost(s.float(), Half.apply(a.float(), share)).double()
        return after, reward

    return step


@pytest.mark.parametrize("row", [0, -1])
def test_a_step_that_depends_on_one_row_of_its_batch_is_named(row):
    def step(s, a):
        return 0.9 * s + 0.1 * a[:, :1] + 0.05 * torch.sin(s[row, :1]), cost(s, a)

    assert [each.code for each in wrong(certificate(step, 128))] == ["rows_mix"]


@pytest.mark.parametrize("what", ["state before", "state after", "reward", ""])
def test_a_step_that_rounds_moves_in_stairs_and_is_no_wrong_derivative(what):
    """Torch's derivative of a rounding is 0, and so is that of the step between two stairs."""
    A = 0.3 * torch.randn(DS, DS + DA, generator=torch.Generator().manual_seed(0)).double()

    def step(s, a):
        reward = torch.floor(50 * cost(s, a)) / 50 if what == "reward" else cost(s, a)
        s = torch.cat([s[:, :1].round(decimals=3), s[:, 1:]], 1) if what == "state before" else s
        after = torch.tanh(torch.cat([s, a], 1) @ A.T)
        after = after.round(decimals=4) if what == "state after" else after
        return after, reward

    made = certificate(step, 128)
    assert made.passed and made.shown == (not what), made
    stairs = [entry for each in found(made) if each.code == "stairs" for entry in each.entries]
    first = ("r", "s0") if what == "reward" else ("s0′", "s0")
    assert [(each.row, each.column) for each in stairs[:1]] == [first] * bool(what)


@pytest.mark.parametrize(("share", "told"), [(0.8, True), (0.5, True), (0.0, False)])
def test_stairs_beside_a_smooth_part_are_named_with_what_the_derivative_lacks(share, told):
    """Of the slope of −s² a `share` is in stairs of a hundredth."""

    def step(s, a):
        reward = -(1 - share) * s[:, 0] ** 2 - share * (100 * s[:, 0]).round() ** 2 / 1e4
        return torch.sin(s) + 0.1 * a[:, :1], reward

    made = certificate(step, 256)
    stairs = [each for each in found(made) if each.code == "stairs_beside"]
    assert made.passed and bool(stairs) == told and made.shown == (not told)
    if told:
        assert (stairs[0].entries[0].row, stairs[0].entries[0].column) == ("r", "s0")
        assert stairs[0].value == pytest.approx(1 - share, abs=0.07)


def test_a_reward_at_its_peak_is_no_stair():
    """A policy that gives action 0 everywhere, where a quadratic cost has the derivative 0."""
    task = gradlab.tasks.linear_quadratic([[0.9]], [[0.5]], [[1.0]], [[0.1]])
    still = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(still.weight)
    made = gradlab.certify(task, policy=still, samples=128)
    assert made.shown, made


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_system_has_no_stairs_unless_it_rounds(name):
    said = codes(gradlab.certify(SOUND[name], samples=SAMPLES))
    assert bool(said & {"stairs", "stairs_beside"}) == (name == "rounded sensor")


WRONG = [(fault, share) for fault in ("A", "B", "r_s", "r_a") for share in (0.01, 0.1, 1.0, 2.0)]


@pytest.mark.parametrize(("fault", "share"), [("A", 0.1), ("r_a", 0.1), ("mixed", 0.1)])
def test_a_fault_inside_a_float32_step_is_named(fault, share):
    assert_named(fault, share, 128)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "share"), [*WRONG, ("mixed", 0.01), ("mixed", 1.0)])
def test_every_fault_inside_a_float32_step_is_named(fault, share):
    assert_named(fault, share, 512)


def assert_named(fault, share, samples):
    made = wrong(certificate(planted(fault, share), samples))
    if fault == "mixed":
        assert "rows_mix" in {each.code for each in made}
    else:
        assert {each.block for each in made} == {fault}


@pytest.mark.parametrize("rounded, told", [("action", True), ("a part of it", False), ("", False)])
def test_an_action_of_few_values_moves_the_state_in_stairs(rounded, told):
    """Positions a quarter apart."""

    def step(s, a):
        u = torch.round(4 * a[:, 0].clamp(-1, 1)) / 4 if rounded else a[:, 0].clamp(-1, 1)
        u = 0.5 * (u + a[:, 0]) if "part" in rounded else u
        x, v = s.unbind(1)
        v = v + 0.1 * (u - x)
        return torch.stack([x + 0.1 * v, v], 1), -(x**2) - 0.05 * a[:, 0] ** 2

    made = gradlab.certify(from_function(step, 2, 1), samples=256)
    assert bool(codes(made) & {"stairs", "stairs_beside"}) == told


@pytest.mark.parametrize("read, told", [("nearest", True), ("interpolated", False), ("gap", False)])
def test_a_coarse_table_of_an_action_that_acts_smoothly_elsewhere_moves_in_stairs(read, told):
    """Entries a third of its limit apart; behind a dead zone the derivative is no 0."""

    def step(s, a):
        x, v = s.unbind(1)
        u = a[:, 0].clamp(-1, 1)
        flow = {
            "nearest": torch.tanh(torch.round(3 * u) / 2),
            "interpolated": torch.tanh(1.5 * u),
            "gap": torch.relu(u - 0.8) - torch.relu(-u - 0.8),
        }[read]
        return torch.stack([x + 0.1 * (flow - x), v + 0.1 * (u - v)], 1), -(x**2) - v**2

    made = gradlab.certify(from_function(step, 2, 1), samples=512)
    assert bool(codes(made) & {"stairs", "stairs_beside"}) == told
