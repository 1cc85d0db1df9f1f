"""Oracles against one another, and the rules that say where there is a truth.

One half of the starts chooses where a truth is cut, the other judges it there. A path made in
pieces is the path made at once: same noise, same ends, same Jacobians. Where Jacobians are
differenced, a few starts say whether there is a truth. Gradients of the augmented system are those
of the soft return, written out and unrolled.
"""

import dataclasses
import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from gradlab import systems
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting, Starts, Tail, as_starts
from gradlab.measurement import visited
from gradlab.measurement.visited import SAMPLES, objective_moments
from gradlab.networks.policies import Gaussian, GaussianPolicy, SoftCritic, WithLogProb
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.system import Entropic, standard_normal
from gradlab.tasks import inverted_pendulum
from gradlab.truth import oracles
from gradlab.truth.agreement import AIM, PRECISION, judge_first, precision_of
from gradlab.truth.common_random import common_random_differences, mean_and_error
from gradlab.truth.oracles import (
    all_action_gradients,
    all_action_remainder,
    joined,
    piece,
    unroll_all_actions,
)
from gradlab.truth.truth import halves_of_gradients, halves_of_sweep, matched_truth
from tests.gradients.worlds import Critic, linear, network, nonlinear, reference_gradients
from tests.linear_quadratic import lqr_gradient
from tests.truth.linear_policies import Relinearized, feedback, gaussian_starts


@pytest.mark.parametrize("actions", ["first", "all"])
def test_unrolled_truth_agrees_with_the_lqr_closed_form_within_its_error(actions):
    system, policy, n = linear(), feedback(1.2, 1.4), 512
    starts = gaussian_starts(n, 2)
    truth = matched_truth(Setting(system, policy, starts, 0.95, 10), kinds=("first", "all"))
    assert truth.status == "converged"
    moment = starts.states.T @ starts.states / n  # of these starts: only process noise is left
    exact = lqr_gradient(system, policy.weight.data, moment, 0.95, actions)
    samples = truth.every.gradients
    if actions == "first":
        samples = (truth.first.gradients[:, :, None] * starts.states[:, None]).flatten(1)
    error = samples.std(dim=0) / math.sqrt(n)
    assert ((samples.mean(dim=0) - exact).abs() < 3.5 * error).all()
    assert truth.first.relative_se < 0.25
    assert truth.lyapunov < -math.log(0.95)


def test_differences_agree_with_both_kinds_of_gradients_on_a_nonlinear_system():
    def step(s, a):
        following = torch.cat([s[:, :1] + 0.1 * s[:, 1:], 0.8 * s[:, 1:] + 0.2 * torch.sin(a)], 1)
        return following, -(s**2).sum(1) - 0.1 * a[:, 0] ** 2

    torch.manual_seed(0)
    system = systems.from_function(step, 2, 1)
    policy, starts = network((2, 6, 1), nn.Tanh), gaussian_starts(32, 2)
    unrolled = oracles.unroll_first_action(Setting(system, policy, starts, 0.9), at_most=50)
    jacobian = policy_jacobian(policy, starts.states, starts.states[:, :0])
    first = (jacobian.T @ unrolled.gradients[-1:])[0] / jacobian.samples
    every = oracles.unroll_all_actions(Setting(system, policy, starts, 0.9, 50)).mean(dim=0)
    for actions, gradient in (("first", first), ("all", every)):
        found = common_random_differences(Setting(system, policy, starts, 0.9, 50), actions=actions)
        narrow, wide = found.narrow[-1].mean(dim=1), found.wide[-1].mean(dim=1)
        want = found.directions @ gradient
        assert (narrow - want).abs().max() < 1e-5 * want.abs().max()
        truncation = narrow - want, wide - want
        ratio = truncation[1].norm() / truncation[0].norm()
        assert 3.9 < ratio < 4.1, "central differences are second order"


def test_few_starts_are_imprecise_and_the_missing_ones_are_enough():
    system, policy = linear(), feedback(1.2, 1.4)
    few = matched_truth(Setting(system, policy, gaussian_starts(24, 2, mean=0.1), 0.95, 10))
    assert few.status == "imprecise"
    assert few.first.relative_se > 0.25
    assert few.first.missing > 0
    enough = gaussian_starts(24 + few.first.missing, 2, mean=0.1)
    assert matched_truth(Setting(system, policy, enough, 0.95, 10)).status == "converged"


def test_a_truth_counts_its_flagged_jacobians():
    def every_fourth(state, out):
        flags = torch.arange(len(state)) % 4 == 0
        return replace(out, certificate=replace(out.certificate, flags=flags))

    flagged, starts = Relinearized(linear(), every_fourth), gaussian_starts(256, 2)
    truth = matched_truth(Setting(flagged, feedback(1.2, 1.4), starts, 0.95, 10))
    assert truth.flagged == 0.25


def test_a_truth_with_all_actions_goes_on_until_the_visitation_is_summed():
    """All of its signal is process noise: the share up to T is 1 − γᵀ, however stable the loop."""
    system, policy, gamma = linear(), feedback(0.4, 0.6), 0.97
    starts = as_starts(torch.zeros(512, 2, dtype=torch.float64), 2)
    truth = matched_truth(Setting(system, policy, starts, gamma, 10), kinds=("all",))
    assert truth.status == "converged"
    none = torch.zeros(2, 2, dtype=torch.float64)
    exact = lqr_gradient(system, policy.weight.data, none, gamma, "all")
    cut = lqr_gradient(system, policy.weight.data, none, gamma, "all", truth.horizon)
    assert (cut - exact).norm() < 0.013 * exact.norm()
    assert (cut - exact).norm() < 2 * truth.remainder
    gap, error = mean_and_error((truth.every.gradients - cut).T, starts.group)
    assert (gap.abs() < 3.5 * error).all()


def test_starts_of_one_group_count_once_in_the_errors():
    """Every value eight times, in one group: the error is that of the values themselves."""
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, error = mean_and_error(values, torch.arange(40))
    torch.testing.assert_close(error, values.std(dim=1) / math.sqrt(40))
    group = torch.arange(40).repeat_interleave(8)
    again, same = mean_and_error(values.repeat_interleave(8, dim=1), group)
    torch.testing.assert_close(again, mean)
    torch.testing.assert_close(same, error)


@pytest.mark.slow
def test_mujoco_its_analytic_twin_autodiff_and_differences_have_one_truth():
    from gradlab.fitting.policies import riccati_gain

    mujoco, twin = inverted_pendulum(), inverted_pendulum(engine="analytic")
    gain = riccati_gain(mujoco.prior, torch.zeros(4, dtype=torch.float64), 0.98)
    policy, starts = feedback(*gain[0].tolist()), as_starts(mujoco.starts(16, torch.Generator()), 4)
    truths = [
        matched_truth(Setting(task.simulator, policy, starts, 0.98, 25), kinds=("first", "all"))
        for task in (mujoco, twin)
    ]
    assert truths[0].horizon == truths[1].horizon
    for kind in ("first", "every"):
        chained, closed = (getattr(truth, kind) for truth in truths)
        torch.testing.assert_close(chained.gradients, closed.gradients, rtol=1e-6, atol=1e-8)
        assert chained.discrepancy <= 1.0
        assert chained.distance < 1e-3 * chained.gradients.norm(dim=1).mean()
    few = as_starts(starts.states[:3], 4)
    for actions in ("first", "all"):
        system, tail = twin.simulator, Tail(25, None, 0.98)
        want = reference_gradients(Estimator(system, system, actions, tail), policy, few)
        if actions == "all":
            got = oracles.unroll_all_actions(Setting(mujoco.simulator, policy, few, 0.98, 25))
        else:
            sweep = oracles.unroll_first_action(Setting(mujoco.simulator, policy, few, 0.98))
            got = sweep.gradients[24] * few.states
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_constant_weight_scales_the_truth_and_changes_nothing_else(weight):
    system, policy = linear(), feedback(1.2, 1.4)
    plain = gaussian_starts(256, 2)
    heavy = Starts(plain.states, weight * plain.weight, plain.group)
    one, two = (
        matched_truth(Setting(system, policy, each, 0.95, 10), kinds=("first", "all"))
        for each in (plain, heavy)
    )
    assert one.status == two.status == "converged"
    assert two.every.norm == pytest.approx(weight * one.every.norm)
    assert two.first.norm == pytest.approx(weight * one.first.norm)


N, T = 64, 40


def judged(seed, error, groups=N):
    """Action gradients of mean 1 and independent noise at every truncation, J = 1 everywhere."""
    ones = torch.ones(N, 1, dtype=torch.float64)
    starts = Starts(ones, ones[:, 0], torch.arange(N) % groups)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(T, N, 1, generator=generator, dtype=torch.float64)
    jacobian = policy_jacobian(feedback(0.5), starts.states, torch.zeros(N, 0))
    sweep = 1 + error * N**0.5 * noise
    return judge_first(sweep, jacobian, starts, None), jacobian, starts


def test_a_truncation_that_looks_precise_by_luck_is_not_believed():
    """True relative standard errors of .4 at 40 truncations: one of them looks like a quarter."""
    by_all = by_halves = 0
    for seed in range(30):
        sweep, jacobian, starts = judged(seed, 0.4)
        by_all += bool(sweep.within(PRECISION).any())
        choosing, judging = halves_of_sweep(sweep, jacobian, starts)
        chosen = choosing.within(AIM).nonzero().flatten()
        by_halves += bool(len(chosen)) and judging.at(int(chosen[-1]) + 1).good
    assert by_all >= 27 and by_halves <= 9


def test_a_truncation_that_is_precise_is_believed():
    """0.08, and its upper end: G = 1 + σz has E G² = 1 + σ² and Var G² = 4σ² + 2σ⁴, whose mean over
    the 32 starts of a half has a relative standard error of 0.18."""
    error = 0.08
    square = error**2 * N
    doubt = ((4 * square + 2 * square**2) / 32) ** 0.5 / (1 + square)
    for seed in range(5):
        sweep, jacobian, starts = judged(seed, error)
        choosing, judging = halves_of_sweep(sweep, jacobian, starts)
        assert choosing.within(AIM).all()
        references = [judging.at(t) for t in range(1, T + 1)]
        assert all(reference.good for reference in references)
        mean = sum(reference.standard_error for reference in references) / T
        # Of all starts, not of the half; a sample's own doubt is a little smaller.
        assert abs(mean - error * (1 + 2 * doubt) ** 0.5) < 0.004


def test_the_judging_half_has_none_of_the_choosing_halfs_groups():
    sweep, jacobian, starts = judged(0, 0.1, groups=16)
    _, judging = halves_of_sweep(sweep, jacobian, starts)
    odd = (starts.group % 2 == 1).nonzero().flatten()
    few = Starts(starts.states[odd], starts.weight[odd], starts.group[odd])
    alone = precision_of(sweep.gradients[3, odd], few)
    reference = judging.at(4)
    torch.testing.assert_close(torch.tensor([reference.norm]).double(), alone.norm)
    label = few.group.unique(return_inverse=True)[1]
    sums = torch.zeros(8, 1, dtype=torch.float64).index_add_(0, label, sweep.gradients[3, odd])
    share = sums.square() / sums.square().sum()
    upper = (1 + 2 * (share.square().sum() - 1 / 8).sqrt()).sqrt()
    torch.testing.assert_close(2**0.5 * judging.error[3:4], upper * alone.error)
    changed = sweep.gradients.clone()
    changed[:, starts.group % 2 == 0] += 100.0
    other = judge_first(changed, jacobian, starts, None)
    assert halves_of_sweep(other, jacobian, starts)[1].at(4).norm == reference.norm


def test_few_groups_are_not_split():
    sweep, jacobian, starts = judged(0, 0.1, groups=4)
    assert halves_of_sweep(sweep, jacobian, starts) == (sweep, sweep)
    assert sweep.at(2).relative_se < PRECISION
    assert halves_of_gradients(sweep, starts)[0] is sweep


GAMMA = 0.9


def world(termination):
    torch.manual_seed(0)
    if termination == "mask":
        task = inverted_pendulum(engine="analytic")
        policy = nn.Linear(4, 1).double()
        policy.weight.data *= 5.0
        return task.simulator, policy, as_starts(task.starts(9, torch.Generator()), 4)
    body = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
    return nonlinear(), Gaussian(body, 2).double(), as_starts(torch.randn(9, 2).double(), 2)


@pytest.mark.parametrize("termination", ["ignore", "mask"])
def test_pieces_make_the_whole_path(termination):
    system, policy, starts = world(termination)
    whole = piece(Setting(system, policy, starts, GAMMA, termination=termination, seed=3), 40)
    if termination == "mask":
        ended = ~whole.path.alive
        assert ended[10].any() and not ended[10].all(), "the test needs ends in both pieces"
    begin = piece(Setting(system, policy, starts, GAMMA, termination=termination, seed=3), 10)
    rest = piece(
        Setting(system, policy, starts, GAMMA, termination=termination, seed=3),
        30,
        first=10,
        before=begin.path,
    )
    both = joined([begin, rest])
    assert_same(both, whole)
    assert_same(both.cut(10), begin)


def assert_same(found, want):
    for one, other in ((found, want), (found.path, want.path)):
        for field in fields(one):
            if field.name not in ("path", "jacobians"):
                a, b = getattr(one, field.name), getattr(other, field.name)
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_gradients_do_not_depend_on_how_many_starts_are_held(monkeypatch):
    system, policy, starts = world("ignore")
    linear = piece(Setting(system, policy, starts, GAMMA), 30)
    G = all_action_gradients(linear, policy, 20, GAMMA)
    torch.testing.assert_close(G, unroll_all_actions(Setting(system, policy, starts, GAMMA, 20)))
    mean = all_action_gradients(linear, policy, 15, GAMMA).mean(dim=0)
    left = float((G.mean(dim=0) - mean).norm()) * GAMMA**5 / (1 - GAMMA**5)
    monkeypatch.setattr("gradlab.truth.oracles.ROWS", 80)  # four starts at a time
    again, remainder = all_action_remainder(linear, policy, 20, GAMMA)
    torch.testing.assert_close(again, G, rtol=1e-12, atol=1e-12)
    assert remainder == pytest.approx(left, rel=1e-10)


@dataclasses.dataclass(frozen=True, eq=False)
class Dear:
    """A system whose Jacobians are said to cost a given price; counts those that are taken."""

    system: LinearQuadratic
    linearization_price: float
    rows: list = dataclasses.field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.system, name)

    def linearize(self, state, action, noise=None):
        self.rows.append(len(state))
        return self.system.linearize(state, action, noise)


def scaled(growth):
    """Two coordinates that grow by `growth` per step, whatever the action does to its own."""
    eye = torch.eye(2, dtype=torch.float64)
    return LinearQuadratic(growth * eye, 0.1 * eye, eye, 0.1 * eye, 0.01 * eye)


def steered():
    policy = nn.Linear(2, 2, bias=False).double()
    policy.weight.data = torch.tensor([[-0.3, 0.1], [0.0, -0.4]], dtype=torch.float64)
    return policy


def starts(n=64):
    draw = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return as_starts(1 + 0.3 * draw, 2)


def truth(system, horizon, begin=None, kinds=("all",), **options):
    begin = starts() if begin is None else begin
    setting = Setting(system, steered(), begin, GAMMA, horizon)
    return matched_truth(setting, kinds=kinds, **options)


@pytest.mark.parametrize("kinds", [("all",), ("first", "all")], ids=["all", "both"])
def test_a_loop_that_converges_has_one_truth_however_jacobians_are_made(kinds):
    system = scaled(0.9)
    cheap, dear = truth(system, 10, kinds=kinds), truth(Dear(system, 1.0), 10, kinds=kinds)
    assert dear.status == "converged"
    assert torch.equal(dear.every.gradients, cheap.every.gradients)
    assert dear.finding == cheap.finding


@pytest.mark.parametrize("kinds", [("all",), ("first",)])
def test_a_differenced_loop_that_outgrows_the_discount_is_given_up_by_a_few_starts(kinds):
    system = Dear(scaled(1.4), 1.0)
    generator = torch.Generator().manual_seed(0)
    heavy = 4 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    begin = as_starts(starts(200).states * heavy.exp(), 2)  # one start is all of the gradient
    found = truth(system, 40, begin, kinds)
    assert found.status == "none" and found.every is None
    assert sum(system.rows) == 16 * 50
    assert found.lyapunov == pytest.approx(math.log(1.4 - 0.1 * 0.3), rel=0.01)
    why = found.finding
    assert (why.code, why.value, why.n) == ("truth_diverges", found.lyapunov, 16)
    assert why.threshold == pytest.approx(-math.log(GAMMA))


def test_a_short_objective_is_still_tried_where_it_would_be_precise():
    system = scaled(1.4)
    full, dear = truth(system, 3), Dear(system, 1.0)
    found = truth(dear, 3)
    assert full.status == found.status == "cut"
    assert 3 <= found.horizon <= full.horizon
    assert found.finding.code == "truth_cut_by_steps"
    assert sum(dear.rows) == 64 * 50 + 16 * 50


def test_no_more_steps_are_unrolled_than_are_asked_for():
    system = Dear(scaled(1.4), 1.0)
    found = truth(system, 3, max_steps=7)
    assert found.status == "cut" and 3 <= found.horizon <= 7
    assert (found.finding.code, found.finding.threshold) == ("truth_cut_by_steps", 7)
    assert sum(system.rows) == 64 * 7  # nobody goes first
    long, short = truth(scaled(0.9), 3), truth(scaled(0.9), 3, max_steps=20)
    assert long.status == "converged" and long.horizon > 20
    assert short.status == "cut" and short.horizon == 20
    first = unroll_all_actions(Setting(scaled(0.9), steered(), starts(), GAMMA, 20))
    torch.testing.assert_close(short.every.gradients, first, rtol=1e-12, atol=1e-14)


def test_fewer_steps_than_the_horizon_are_refused():
    with pytest.raises(InputError, match="max_steps is 4, expected at least the horizon, 5"):
        truth(scaled(0.9), 5, max_steps=4)


def measured(price, known=True, horizon=4):
    system = Dear(linear(), price)
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([[-1.2, -1.4]], dtype=torch.float64)
    begin = starts(40)
    found = matched_truth(Setting(system, policy, begin, GAMMA, horizon), kinds=("all",))
    if not known:
        found = dataclasses.replace(found, every=None)
    tail = Tail(horizon, None, GAMMA)
    chosen = {
        "first": Estimator(system, system, "first", tail),
        "all": Estimator(system, system, "all", tail),
    }
    return objective_moments(chosen, Setting(system, policy, begin, GAMMA, horizon), found)


def test_fewer_states_are_visited_where_their_jacobians_are_dear():
    free, dear = measured(0.0), measured(visited.VISITING / (4 * 40 * 2.5))
    assert (free.visits, free.starts) == (SAMPLES, 40)
    assert (dear.visits, dear.starts) == (2, 40)
    assert dear.cells["first", 4].size.tolist() == [2.0] * 40
    assert torch.equal(free.means["all", 4], dear.means["all", 4])


def test_fewer_starts_where_there_is_no_truth_and_one_visit_is_too_dear():
    price = visited.VISITING / (4 * 20)
    kept, few = measured(price), measured(price, known=False)
    assert (kept.visits, kept.starts) == (1, 40)
    assert (few.visits, few.starts) == (1, 20)
    for cell in few.cells.values():
        assert len(cell.size) == 20


ALPHA, DISCOUNT, FEW, SEED = 0.4, 0.9, 4, 2


def soft_return(
    policy: GaussianPolicy, critic: Critic, starts: Tensor, horizon: int, alpha: float
) -> Tensor:
    """Σ_t γᵗ (r_t − α log π(a_t|s_t)) + γᴴ (Q(s_H, a_H) − α log π(a_H|s_H))      (DDPPO, eq. 11)"""
    system, state, total = nonlinear(), starts, torch.zeros(FEW, dtype=torch.float64)
    for t in range(horizon + 1):
        action = policy(state, standard_normal(FEW, 2, stream(SEED, "policy", t)))
        total = total - DISCOUNT**t * alpha * policy.log_prob(state, action)
        if t == horizon:
            return total + DISCOUNT**t * critic(state, action)
        out = system.step(state, action, system.sample_noise(FEW, stream(SEED, "dynamics", t)))
        total, state = total + DISCOUNT**t * out.reward, out.state
    raise AssertionError


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_entropic_gradients_are_those_of_the_soft_return(horizon, squash):
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (8, 8), "tanh", squash=squash).double()
    critic = Critic(4)
    starts = torch.randn(FEW, 2, dtype=torch.float64)
    system = Entropic(nonlinear(), ALPHA)
    tail = Tail(horizon, SoftCritic(critic, ALPHA), DISCOUNT)
    rows = Estimator(system, system, "all", tail).gradients(WithLogProb(policy), starts, SEED)
    for i in range(FEW):
        value = soft_return(policy, critic, starts, horizon, ALPHA)[i]
        grads = torch.autograd.grad(value, list(policy.parameters()))
        expected = torch.cat([gradient.flatten() for gradient in grads])
        torch.testing.assert_close(rows[i], expected, rtol=1e-10, atol=1e-12)
