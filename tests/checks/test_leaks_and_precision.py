"""Checks of leaks of θ, of float32 and of sizes, on planted faults."""

import torch

import gradlab
from gradlab.systems import LinearQuadratic, from_function
from gradlab.tasks import Task
from tests.checks.planted_faults import DISCOUNT, Linear, Quadratic, failed, only, results, step


def test_a_critic_or_simulator_that_holds_the_policys_theta_is_a_leak():
    policy = Linear()

    class Sharing(Quadratic):
        def __init__(self):
            super().__init__()
            self.policy = policy

        def forward(self, state, action):
            own = self.policy(state.to(self.policy.layer.weight)).to(state)
            return super().forward(state, action - own)

    before = policy.layer.weight.detach().clone()
    found = only(results(from_function(step, 2, 1), policy, Sharing()), "leaks")
    assert "critic 1 changes" in found.result
    assert "1 tensors are shared" in found.result
    assert torch.equal(policy.layer.weight, before)

    def closed(s, a):
        with torch.no_grad():
            own = policy(s.float()).double()
        return step(s, a + 0.1 * own.to(a))

    found = only(results(from_function(closed, 2, 1), policy), "leaks")
    assert "simulator changes when the policy's θ is moved" in found.result


def test_a_chaotic_chain_is_precision_limited_and_an_easy_one_is_not():
    def chaotic(s, a):
        x = 3.99 * s * (1 - s)
        return (x + 1e-3 * a).clamp(0.0, 1.0), -(s**2).sum(1)

    def inside(n, generator):
        return torch.rand(n, 2, generator=generator, dtype=torch.float64)

    hard = Task("chaos", from_function(chaotic, 2, 1), None, inside, DISCOUNT, 40)
    found = gradlab.measure(hard, Linear(), Quadratic(), starts=64, judges=4)
    limited = only(found.sanity, "float32 against float64, true_dynamics at")
    assert "precision-limited: yes" in limited.meaning
    easy = results(from_function(step, 2, 1))
    assert not [each for each in failed(easy) if "float32" in each]


def test_an_exploding_chain_says_from_which_step_on():
    eye = torch.eye(2, dtype=torch.float64)
    B = torch.ones(2, 1, dtype=torch.float64)
    found = results(LinearQuadratic(1e4 * eye, B, eye, eye[:1, :1], 0 * eye), horizon=12)
    text = only(found, "sensitivities").result
    assert "beyond the range of float32 from t = 11 on" in text  # √2 · 10^{4 (t − 1)}


def test_a_critic_beyond_any_return_or_that_drowns_the_rewards_is_named():
    found = only(results(from_function(step, 2, 1), critic=Quadratic(1e4)), "size of the critic")
    assert "beyond any return" in found.meaning
    found = results(from_function(step, 2, 1), critic=Quadratic(1e5))
    assert "critic drowns everything else" in only(found, "scale of the terms").meaning
