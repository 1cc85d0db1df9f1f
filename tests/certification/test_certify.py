"""A certificate: wrong blocks are found and named, sound systems pass.

What it says: entries, where, and how it is made again.
"""

import json
import re
from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.cli.answer import as_text
from gradlab.errors import InputError
from gradlab.reporting.page import render
from gradlab.systems import CartPoleSimulator, System, VehicleModel, from_function
from gradlab.systems.mujoco_pendulum import pendulum_parameters
from gradlab.tasks.task import OTHER_BOUNDS
from gradlab.tools.certify.page import page as page_of
from gradlab.tools.certify.sampling import law, started, visited
from tests.certification.faults import FAULTS, Relinearized
from tests.certification.steps import codes, found, wrong
from tests.planted_tools import PlantedSystem


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def swing(state, action):
    """A damped pendulum with a motor that saturates."""
    angle, speed = state[:, 0], state[:, 1]
    torque = action[:, 0].clamp(-1, 1)
    faster = speed + 0.05 * (-9.8 * angle.sin() - 0.1 * speed + 3 * torque)
    after = torch.stack([angle + 0.05 * faster, faster], 1)
    return after, -(angle**2 + 0.1 * speed**2 + 0.01 * torque**2)


def certified(step, **settings):
    """A two-dimensional step, at few drawn states."""
    system = from_function(step, 2, 1)
    return gradlab.certify(system, samples=256, **settings)


def blocks(certificate):
    return {finding.block for finding in wrong(certificate)}


SOUND: dict[str, System] = {
    "smooth, with a clip": from_function(swing, 2, 1),
    "linear": gradlab.tasks.double_integrator().simulator,
    "cart-pole": CartPoleSimulator(pendulum_parameters()),
    "vehicle": VehicleModel(),
    "contact": from_function(
        lambda s, a: (s + 0.01 * (a + 500 * torch.relu(-s)), -s[:, 0].abs()), 2, 2
    ),
}


@pytest.mark.parametrize("system", SOUND.values(), ids=SOUND)
def test_a_sound_system_passes(system):
    certificate = gradlab.certify(system, samples=256)
    assert certificate.passed, certificate
    table = certificate.table()
    assert table["median"].max() < 1e-6
    assert set(table["block"]) == {"A", "B", "r_s", "r_a"}


def test_the_size_and_the_entry_of_a_wrong_derivative_are_named():
    def step(s, a):
        after, reward = swing(s, a)
        extra = 0.3 * 0.05 * 3 * (a - a.detach())  # ∂s₁'/∂a is 1.3 times what it should be
        return after + torch.cat([0 * extra, extra], 1), reward

    certificate = certified(step, states=0.1 * random(64, 2), actions=0.1 * random(64, 1))
    (finding,) = wrong(certificate)
    assert (finding.code, finding.block, finding.decision) == ("wrong", "B", "fail")
    (entry,) = finding.entries
    assert (entry.row, entry.column, entry.flipped) == ("s1′", "a0", 0)
    assert finding.value == pytest.approx(0.3, rel=1e-6)
    assert entry.ratio == pytest.approx(1.3, rel=1e-6) and finding.source == "both"
    assert not certificate.passed


def test_a_derivative_with_the_wrong_sign_is_named_so():
    def step(s, a):
        after, reward = swing(s, a)
        return after, 2 * reward.detach() - reward

    certificate = certified(step)
    assert blocks(certificate) == {"r_s", "r_a"}
    assert {each.entries[0].flipped for each in wrong(certificate)} == {1}


def test_a_derivative_that_passes_through_a_clip_is_wrong_in_saturation():
    def step(s, a):
        through = a + (a.clamp(-1, 1) - a).detach()
        after, reward = swing(s, a)
        straight = 0.15 * (through - through.detach()) - 0.15 * (
            a.clamp(-1, 1) - a.clamp(-1, 1).detach()
        )
        return after + torch.cat([0 * straight, straight], 1), reward

    certificate = certified(step)
    (finding,) = wrong(certificate)
    assert (finding.block, finding.stratum) == ("B", "saturation")
    (entry,) = finding.entries
    assert (entry.row, entry.column, entry.ratio) == ("s1′", "a0", float("inf"))


def test_the_fault_of_one_way_is_told_from_the_other():
    class Transposed(CartPoleSimulator):
        def linearize(self, state, action, noise=None):
            linear = super().linearize(state, action, noise)
            return type(linear)(linear.A.mT, linear.B, linear.r_s, linear.r_a, linear.certificate)

    certificate = gradlab.certify(Transposed(pendulum_parameters()), samples=128)
    assert {finding.source for finding in wrong(certificate)} == {"linearize"}
    assert blocks(certificate) == {"A"}
    assert certificate.wrong == "∂s′/∂s by `linearize`"


@pytest.fixture(scope="module")
def twice():
    """The same states certified two times."""
    return [certified(swing) for _ in range(2)]


def test_the_same_states_give_the_same_certificate_file_and_page(twice, tmp_path):
    one, other = (as_text(certificate.document()) for certificate in twice)
    assert one == other
    certificate, again = twice
    document, page = json.loads(one), render(page_of(certificate))
    assert page == render(page_of(again))
    assert document["passed"] and document["recommendation"]["within"] in page
    assert document["findings"] == [each.document for each in certificate.findings]
    loaded = gradlab.load(certificate.save(tmp_path / "c.h5"))
    assert as_text(loaded.document()) == one


def test_a_step_that_no_difference_can_judge_is_no_sound_one_in_words():
    def step(s, a):
        jagged = torch.sin(1e13 * s)
        return s + jagged.sum(1, keepdim=True).detach() + 0 * a, s[:, 0]

    states = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    certificate = certified(step, states=states)
    assert certificate.passed
    vague = {each.block for each in found(certificate) if each.code == "not_judged"}
    assert "A" in vague and not {"r_s", "r_a"} & vague
    assert certificate.recommendation.field("usable") == "with care: not judged"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda s, a: (s.detach() * 2, -s.detach()[:, 0]), "not differentiable"),
        (lambda s, a: (s[:, :1], s[:, 0]), "expected"),
        (lambda s, a: (s * torch.nan, s[:, 0]), "NaN at every state"),
    ],
)
def test_what_cannot_be_certified_is_refused_in_one_line(step, message):
    with pytest.raises(InputError, match=message) as refusal:
        certified(step)
    assert "\n" not in str(refusal.value)


class Planted(PlantedSystem):
    """`linearize` has a fault in ∂s′/∂a of states beyond 2."""

    def linearize(self, state, action, noise=None):
        found = self.system.linearize(state, action, noise)
        here = (state[:, 0] > 2)[:, None, None]
        return replace(found, B=torch.where(here, self.fault(found.B), found.B))


@pytest.mark.parametrize(("off", "passed"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize("fault", [lambda J: 1.1 * J, lambda J: 0 * J])
def test_fewer_than_three_states_are_no_wrong_derivative(off, passed, fault):
    system = Planted(from_function(swing, 2, 1), fault)
    states = 0.3 * random(96, 2).clamp(-3, 3)
    states[:off] += 4
    certificate = gradlab.certify(system, states, 0.1 * random(96, 1, seed=1))
    assert certificate.passed == passed and not certificate.shown
    first = certificate.findings[0]
    assert first.n == off and (first.code == "rare") == (certificate.wrong == "") == passed
    if passed:  # where to look
        of = (", ".join(f"s{k} {float(x):.3g}" for k, x in enumerate(row)) for row in states[:off])
        assert any(f"one is {one}, a0 " in first.at for one in of)


@pytest.mark.parametrize("many", [True, False])
def test_derivatives_by_the_state_are_judged_where_an_action_is_on_its_limit(many):
    """A policy that is clipped stays there; the kink is in the action alone."""

    class OnLimit(Planted):
        def linearize(self, state, action, noise=None):
            right = self.system.linearize(state, action, noise)
            on = (action[:, 0].abs() == 1) & (
                torch.ones(len(state)).bool() if many else state[:, 0] > 2
            )
            return replace(right, A=torch.where(on[:, None, None], -right.A, right.A))

    states, actions = 0.3 * random(96, 2).clamp(-3, 3), 0.1 * random(96, 1, seed=1)
    states[:2] += 4
    actions[:8] = 1
    right = from_function(lambda s, a: swing(s, a.clamp(-1, 1)), 2, 1)
    certificate = gradlab.certify(OnLimit(right, None), states, actions)
    assert certificate.passed != many and not certificate.shown
    first = certificate.findings[0]
    assert (first.code, first.n) == (("wrong", 8) if many else ("rare", 2))
    assert gradlab.certify(right, states, actions).shown


def test_a_fault_of_one_point_is_none_of_a_few_states():
    """As of a kink that the differences do not see: where it is moved a little, J is D."""
    states = 0.3 * random(96, 2)

    class AtOnePoint(Planted):
        def linearize(self, state, action, noise=None):
            right, off = self.system.linearize(state, action, noise), state[:, 0] == states[0, 0]
            return replace(right, B=torch.where(off[:, None, None], 1.1 * right.B, right.B))

    system = AtOnePoint(from_function(swing, 2, 1), None)
    certificate = gradlab.certify(system, states, 0.1 * random(96, 1, seed=1))
    table = certificate.table()
    assert table.flagged.max() == pytest.approx(1 / 96) and certificate.shown


def far_above(offset, cost, detached=False):
    """A step whose reward, far above its spread of about 1, has ∂r/∂a = `cost`."""

    def step(s, a):
        given = a.detach() if detached else a
        return swing(s, a)[0], offset + s[:, 0].cos() + cost * given[:, 0]

    return certified(step)


@pytest.mark.parametrize(("offset", "decided"), [(1e3, True), (1e5, True), (1e8, False)])
def test_a_derivative_that_is_zero_has_the_size_that_would_be_seen(offset, decided):
    certificate = far_above(offset, 0.0)
    assert certificate.passed and certificate.shown == decided
    said = {each.code: each for each in found(certificate) if each.block == "r_a"}
    assert said.keys() == ({"zero"} if decided else {"zero", "not_judged"})
    size = said["zero"].value
    assert size > 0 and (size <= 1e-3 or not decided)
    assert blocks(far_above(offset, 1.01 * size, detached=True)) == {"r_a"}


def test_under_a_policy_its_states_and_starts_are_examined_with_its_actions():
    policy = torch.nn.Linear(2, 1).double().requires_grad_(False)
    drawn = law(from_function(swing, 2, 1), None, policy, None, 0)
    for z in (started(drawn, 64).points.z, visited(drawn, 64)[0].points.z):
        assert len(z) == 64
        torch.testing.assert_close(z[:, 2:], policy(z[:, :2]))


class Halved(torch.autograd.Function):
    """x, whose derivative is halved in the marked rows."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.where(ctx.saved_tensors[0][:, None], 0.5 * g, g), None


@pytest.mark.parametrize(("edge", "samples"), [(1.96, 512), (2.81, 16384)])  # outer 5% and .5%
def test_derivatives_that_are_wrong_in_the_outer_starts_alone_are_named(edge, samples):
    """Rollouts of a contraction leave these states at once, so that starts alone see them."""
    drawn = []

    def step(s, a):
        x = Halved.apply(s, s[:, 0].abs() > edge)
        return 0.5 * torch.sin(x) + 0.1 * a, -(s**2).sum(1) - 0.01 * a.square().sum(1)

    def starts(n, generator):
        drawn.append(random(n, 2, seed=int(torch.randint(1000, (), generator=generator))))
        return drawn[-1]

    certificate = gradlab.certify(
        gradlab.Task("tails", from_function(step, 2, 2), None, starts, 0.9, 5), samples=samples
    )
    assert blocks(certificate) == {"A"} and not certificate.passed
    assert certificate.facts["origins"]["starts"] == samples // 2 == len(drawn[-1].unique(dim=0))
    assert certificate.facts["states"] == samples


def test_what_both_ways_have_not_finite_is_said_once():
    certificate = certified(lambda s, a: (s + a, s[:, 0].clamp(min=0).sqrt()))
    (said,) = (each for each in found(certificate) if each.code == "not_finite")
    assert said.source == "both" and "clamp" in said.said
    assert "sqrt (test_certify.py:" in said.said and "row " in said.said


def reactor(fault):
    """A stirred tank: from states that are no tank's its temperature runs off, to 10⁶ and more."""

    def with_slope(value, x, slope):
        return value.detach() + slope.detach() * (x - x.detach())

    def step(s, a):
        c, T, j = s.unbind(1)
        rate = torch.exp(T / (1 + T / 20))
        if fault == "rate":
            rate = with_slope(rate, T, rate / (1 + T / 20))  # the square forgotten
        soft = torch.nn.functional.softplus(4 * (T - 4)) / 4
        if fault == "reward":
            soft = with_slope(soft, T, torch.sigmoid(T - 4))  # the 4 inside lost
        heat = 0.072 * (1 - c) * rate
        after = [
            c + 0.1 * (heat - c), T + 0.1 * (8 * heat - T - 0.3 * (T - j)),
            j + 0.1 * (2 * torch.tanh(a[:, 0]) - j + 0.5 * (T - j)),
        ]  # fmt: skip
        return torch.stack(after, 1), -((c - 0.5) ** 2) - 0.02 * (T - 2.5) ** 2 - 0.05 * soft**2

    return from_function(step, 3, 1)


@pytest.mark.parametrize(("fault", "named"), [("", set()), ("rate", {"A"}), ("reward", {"r_s"})])
def test_a_fault_at_usual_states_is_found_beside_rollouts_that_run_off(fault, named):
    certificate = gradlab.certify(reactor(fault))
    assert blocks(certificate) == named and certificate.shown == (not named)
    assert 0 < certificate.facts["ran off"] < 16 and certificate.facts["rollouts"] == 64
    low, high = certificate.facts["drawn states"]
    assert -60 < low < -4 and 4 < high < 60
    if not fault:
        assert f"from {low:.2g} to {high:.2g}" in certificate.recommendation.field("next")


@pytest.mark.parametrize(
    ("after", "off", "reach"),
    [
        (lambda s, a: 1.5 * s + a, True, 30),
        (lambda s, a: s + 0.1 * s.sign() + a, False, 4),  # a drift, and no more
        (lambda s, a: s + 0.1 * (300 - s) + a, False, 200),  # to rest far away
    ],
)
def test_where_many_rollouts_run_off_nothing_is_called_sound(after, off, reach):
    system = from_function(lambda s, a: (after(s, a), -s.square().sum(1)), 2, 2)
    certificate = gradlab.certify(system, samples=1024)
    ran_off = certificate.facts["ran off"]
    assert certificate.passed and certificate.shown != off and (ran_off > 16) == off
    said = [each for each in certificate.findings if each.code == "many_ran_off"]
    assert [(each.value, each.n) for each in said] == [(ran_off, 64)] * off
    assert reach < certificate.facts["drawn states"][1] < (100 if off else 400)


@pytest.mark.parametrize("wrong_at", [None, "A"])
def test_rollouts_of_a_task_that_run_off_hide_no_fault_of_usual_states(wrong_at):
    """An explicit integrator beyond its stability: from |s| = 2 on it blows up."""

    def step(s, a):
        x = s.detach() + (s - s.detach()) * (1.0 if wrong_at is None else 1.1)
        after = 0.9 * x + 0.1 * a + torch.where(x.abs() > 2, x**9, 0.0)
        return after, -(s[:, 0] ** 2)

    def starts(n, generator):
        return torch.randn(n, 1, generator=generator, dtype=torch.float64) * 1.5

    task = gradlab.Task("mine", from_function(step, 1, 1), None, starts, 0.9, 10)
    certificate = gradlab.certify(task, samples=512)
    assert blocks(certificate) == ({wrong_at} - {None}) and certificate.passed == (not wrong_at)
    (note,) = (each for each in certificate.findings if each.code == "ran_off")
    assert note.decision == "skipped" and note.n > 0 and "first at step" in note.at


def test_a_coordinate_that_never_comes_near_0_is_not_examined_there():
    """A rate at a temperature in kelvin has no derivative at absolute zero."""

    def step(s, a):
        warmer = s + 0.1 * (300 - s) + a
        return warmer, -torch.exp(-2000 / s)[:, 0]

    def starts(n, generator):
        return 300 + 5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)

    task = gradlab.Task("oven", from_function(step, 1, 1), None, starts, 0.9, 10)
    certificate = gradlab.certify(task, samples=256)
    assert certificate.shown and certificate.facts["ranges"][0]["lowest"] > 200


def test_a_task_says_nothing_of_drawn_states():
    certificate = gradlab.certify(gradlab.tasks.double_integrator(), samples=64)
    assert not certificate.recommendation.field("next") and "ran off" not in certificate.facts


DT = 0.05


def falling(s, a):
    """A detached attitude: ∂x′/∂θ = DT · ∂v′/∂θ is zero with it."""
    x, angle, v = s.unbind(1)
    v = v + DT * (20 * torch.sin(angle.detach()) + a[:, 0])
    return torch.stack([x + DT * v, angle + DT * a[:, 0], v], 1), -(x**2) - 0.1 * v**2


def certified_in_3d(step, **more):
    return gradlab.certify(from_function(step, 3, 1), samples=128, **more)


@pytest.fixture(scope="module")
def detached():
    return certified_in_3d(falling)


def test_every_wrong_entry_is_named_with_its_error_and_causes_the_largest_first(detached):
    (finding,) = (each for each in found(detached) if each.block == "A")
    assert [(each.row, each.column) for each in finding.entries] == [("s2′", "s1"), ("s0′", "s1")]
    first, second = finding.entries
    assert first.absolute == pytest.approx(second.absolute / DT, rel=1e-6)
    assert {each.ratio for each in finding.entries} == {0} and finding.value == 1
    assert "s2′ and s0′ by s1" in finding.said and "a detach, a copy through numpy" in finding.said
    assert detached.document()["entries"][0]["column"] == "s1"
    shown = detached.recommendation
    assert shown.field("usable") == "no" and shown.field("wrong") == "∂s′/∂s and ∂r/∂s"
    assert shown.field("by how much") == "100% at most"
    number = float(shown.field("within").partition("below ")[2].partition(",")[0])
    most = detached.table()["p95"].max()
    assert most <= number < most + 0.01  # rounded up: "below"


@pytest.mark.parametrize("name, ratio", [("wrong scale", 1.12), ("factor two of a square", 0.5)])
def test_what_wrong_entries_are_of_the_right_ones_is_in_the_table(name, ratio):
    (fault,) = (each for each in FAULTS if each.name == name)
    entries = gradlab.certify(fault.task(), samples=128).table("entries")
    ratios = entries[entries["code"] == "wrong"]["ratio"]
    assert len(ratios) and abs(ratios - ratio).max() < 1e-6


@pytest.mark.parametrize("end", [1.5, 3.1])
def test_the_share_of_wrong_signs_is_in_the_table(end):
    """cos(s) against a constant .2, on states from 0 to `end`."""

    def bent(system, s, a):
        made = system.linearize(s, a)
        return replace(made, A=torch.full_like(made.A, 0.2))

    system = from_function(lambda s, a: (torch.sin(s) + a, -(a[:, 0] ** 2)), 1, 1)
    states = torch.linspace(0.05, end, 200).double()[:, None]
    bad = Relinearized(system, bent)
    made = gradlab.certify(bad, states=states, actions=torch.zeros(200, 1).double())
    (finding,) = (each for each in found(made) if each.block == "A")
    flipped = float((torch.cos(states) < 0).double().mean())
    assert finding.entries[0].flipped == pytest.approx(flipped, abs=0.03)


def bounded(least, reward=lambda s: -(s**2)):
    """A step that pays for a^1.5 from `least` on: NaN below it."""

    def step(s, a):
        x = 0.9 * s + DT * torch.sin(s)
        return x + DT * a, reward(s[:, 0]) - (a[:, 0] - least) ** 1.5

    return gradlab.certify(from_function(step, 3, 1), samples=256)


@pytest.fixture(scope="module")
def positive():
    return bounded(0.0)


def test_states_that_are_not_finite_are_counted_with_the_first_and_what_to_do(positive):
    (finding,) = (each for each in found(positive) if each.code == "left_out")
    lost = positive.facts["not finite"]
    assert lost == finding.finding.n > 50 and finding.decision == "skipped"
    assert finding.entries[0].row == "r" and OTHER_BOUNDS in finding.said
    assert re.search(r"first at s0 \S+, s1 \S+, s2 \S+, a0 -", finding.said)
    ranges = {each["coordinate"]: each for each in positive.facts["ranges"]}
    assert ranges["a0"]["lowest"] >= 0


def test_what_the_finite_states_show_is_the_verdict(positive):
    assert positive.shown and positive.recommendation.lit == "Sound"
    assert f"at {positive.facts['states']} states" in positive.recommendation.field("within")
    assert codes(positive) == {"left_out"}
    assert max(positive.facts["single precision"].values()) < 1e-2
    assert bounded(0.0, lambda s: -(s.detach() * s)).wrong == "∂r/∂s"


def test_derivatives_that_are_not_finite_show_nothing_of_precision():
    def step(s, a):
        x = 0.9 * s + DT * a
        return x, torch.where(a[:, 0] > 0, a[:, 0].sqrt(), 0.0)  # of slope NaN below 0

    certificate = gradlab.certify(from_function(step, 3, 1), samples=128)
    assert "not_finite" in codes(certificate) and "single_precision" not in codes(certificate)
    (said,) = (each.said for each in certificate.findings if each.code == "not_finite")
    assert "first at s0 " in said and OTHER_BOUNDS in said


def test_precision_is_lost_where_finite_states_lose_it():
    certificate = bounded(0.0, lambda s: (1e6 + s) ** 2 - 1e12 - 2e6 * s)
    (finding,) = (each for each in found(certificate) if each.code == "single_precision")
    assert finding.block == "r_s" and finding.value > 0.03  # 2 s, of terms of 2e6


def test_too_few_finite_states_are_no_sound_ones():
    certificate = bounded(1.6)
    n, lost = certificate.facts["states"], certificate.facts["not finite"]
    assert 16 < n < 0.25 * (n + lost)
    assert certificate.passed and not certificate.shown
    shown = certificate.recommendation
    assert shown.lit == "Not shown" and shown.light == "choose"
    (finding,) = (each for each in certificate.findings if each.code == "few_finite")
    assert finding.n == n and "too few" in shown.field("usable")
