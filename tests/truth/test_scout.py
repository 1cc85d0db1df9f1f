"""Where Jacobians are dear, a few starts say whether a truth is worth its price.

Gradients of the augmented system are those of the soft return, written out and unrolled.
"""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, Tail, as_starts
from gradlab.measurement import visited
from gradlab.measurement.visited import SAMPLES, objective_moments
from gradlab.networks.policies import GaussianPolicy, SoftCritic, WithLogProb
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.system import Entropic, standard_normal
from gradlab.tasks import mujoco
from gradlab.truth import outcome
from gradlab.truth.outcome import plan
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import Critic, linear, nonlinear

GAMMA = 0.9


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


def feedback():
    policy = nn.Linear(2, 2, bias=False).double()
    policy.weight.data = torch.tensor([[-0.3, 0.1], [0.0, -0.4]], dtype=torch.float64)
    return policy


def starts(n=64):
    draw = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return as_starts(1 + 0.3 * draw, 2)


def truth(system, horizon, begin=None, kinds=("all",)):
    begin = starts() if begin is None else begin
    return matched_truth(Setting(system, feedback(), begin, GAMMA, horizon), kinds=kinds)


@pytest.mark.parametrize("kinds", [("all",), ("first", "all")], ids=["all", "both"])
def test_what_can_be_afforded_is_the_truth_of_a_cheap_system(kinds):
    system = scaled(0.9)
    cheap, dear = truth(system, 10, kinds=kinds), truth(Dear(system, 1e-3), 10, kinds=kinds)
    assert dear.status == "converged" and dear.scouts == 0
    assert torch.equal(dear.every.gradients, cheap.every.gradients)
    assert dear.reason == cheap.reason


def test_a_loop_that_outgrows_the_discount_is_given_up_by_a_few_starts():
    system = Dear(scaled(1.4), 0.0015)
    generator = torch.Generator().manual_seed(0)
    heavy = 4 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    begin = as_starts(starts(200).states * heavy.exp(), 2)  # one start is all of the gradient
    found = truth(system, 40, begin)
    assert found.status == "none" and found.every is None
    assert found.scouts == sum(system.rows) // 50 < 20
    assert found.lyapunov > 2 * 0.105
    assert found.reason.startswith("no truth here: λ = ")
    assert "no T from 40 to 50 would be precise" in found.reason


def test_a_short_objective_is_still_tried_where_it_would_be_precise():
    system = scaled(1.4)
    full, dear = truth(system, 3), Dear(system, 0.02)
    found = truth(dear, 3)
    assert full.status == found.status == "cut"
    assert 3 <= found.horizon <= full.horizon
    assert "were not tried" in found.reason
    assert sum(dear.rows) < 64 * 50 + 16 * 50  # all starts, no further than patience goes


def test_a_convergent_loop_goes_on_as_far_as_patience_does():
    chosen = plan(Setting(Dear(scaled(0.9), 0.02), feedback(), starts(), GAMMA, 5), ("all",))
    assert 5 <= chosen.at_most < 1000 and chosen.why == "its price"
    assert chosen.scouts >= outcome.FEWEST


def test_prices_follow_the_operations_of_the_environments():
    cheap, dear = (
        mujoco(name).simulator.linearization_price for name in ("InvertedPendulum-v5", "Hopper-v5")
    )
    assert dear == pytest.approx(6.5e-7 * 2 * (11 + 3 + 1) * 4 * 4 * 6)
    assert cheap < dear / 10


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


def test_fewer_states_are_visited_where_their_jacobians_are_dear(monkeypatch):
    monkeypatch.setattr(outcome, "PATIENCE", 1e9)
    free, dear = measured(0.0), measured(visited.VISITING / (4 * 40 * 2.5))
    assert (free.visits, free.starts) == (SAMPLES, 40)
    assert (dear.visits, dear.starts) == (2, 40)
    assert dear.cells["first", 4].size.tolist() == [2.0] * 40
    assert torch.equal(free.means["all", 4], dear.means["all", 4])


def test_fewer_starts_where_there_is_no_truth_and_one_visit_is_too_dear(monkeypatch):
    monkeypatch.setattr(outcome, "PATIENCE", 1e9)
    price = visited.VISITING / (4 * 20)
    kept, few = measured(price), measured(price, known=False)
    assert (kept.visits, kept.starts) == (1, 40)
    assert (few.visits, few.starts) == (1, 20)
    for cell in few.cells.values():
        assert len(cell.size) == 20


ALPHA, DISCOUNT, N, SEED = 0.4, 0.9, 4, 2


def soft_return(
    policy: GaussianPolicy, critic: Critic, starts: Tensor, horizon: int, alpha: float
) -> Tensor:
    """Σ_t γᵗ (r_t − α log π(a_t|s_t)) + γᴴ (Q(s_H, a_H) − α log π(a_H|s_H))      (DDPPO, eq. 11)"""
    system, state, total = nonlinear(), starts, torch.zeros(N, dtype=torch.float64)
    for t in range(horizon + 1):
        action = policy(state, standard_normal(N, 2, stream(SEED, "policy", t)))
        total = total - DISCOUNT**t * alpha * policy.log_prob(state, action)
        if t == horizon:
            return total + DISCOUNT**t * critic(state, action)
        out = system.step(state, action, system.sample_noise(N, stream(SEED, "dynamics", t)))
        total, state = total + DISCOUNT**t * out.reward, out.state
    raise AssertionError


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_entropic_gradients_are_those_of_the_soft_return(horizon, squash):
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (8, 8), "tanh", squash=squash).double()
    critic = Critic(4)
    starts = torch.randn(N, 2, dtype=torch.float64)
    system = Entropic(nonlinear(), ALPHA)
    tail = Tail(horizon, SoftCritic(critic, ALPHA), DISCOUNT)
    rows = Estimator(system, system, "all", tail).gradients(WithLogProb(policy), starts, SEED)
    for i in range(N):
        value = soft_return(policy, critic, starts, horizon, ALPHA)[i]
        grads = torch.autograd.grad(value, list(policy.parameters()))
        expected = torch.cat([gradient.flatten() for gradient in grads])
        torch.testing.assert_close(rows[i], expected, rtol=1e-10, atol=1e-12)
