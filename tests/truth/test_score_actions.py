"""Score functions against closed forms, the unrolled truth, and what a path's end leaves."""

from dataclasses import replace

import pytest
import torch

from gradlab.errors import InputError
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.networks.policies import Gaussian, GaussianPolicy, WithLogProb
from gradlab.systems.entropy import Entropic
from gradlab.systems.function import from_function
from gradlab.truth import score_actions
from gradlab.truth.by_blocks import early_truth
from gradlab.truth.lqr import lqr_gradient
from gradlab.truth.oracles import unroll_all_actions
from gradlab.truth.score_actions import relative_error, score_gradients, score_truth
from tests.gradients.worlds import linear
from tests.truth.linear_policies import feedback, gaussian_starts

GAMMA, ALPHA = 0.8, 0.3


def z_scores(found, wanted):
    """Of the mean difference of [N, P], entry by entry."""
    off = found - wanted
    return off.mean(dim=0) / (off.std(dim=0) / len(off) ** 0.5 + 1e-12)


def test_a_one_step_return_has_its_closed_form():
    """r = −(a − 2)² and a = w s + σ ε: the gradient is −2 (w s − 2) s, whatever σ."""
    system = from_function(lambda s, a: (s, -((a[:, 0] - 2) ** 2)), state_dim=1, action_dim=1)
    policy = torch.nn.Linear(1, 1, bias=False).double()
    policy.weight.data.fill_(0.5)
    starts = gaussian_starts(400, 1)
    setting = Setting(system, Gaussian(policy, 0.7), starts, discount=1e-3)
    truth = score_truth(setting, [1], pairs=64)
    s = starts.states
    assert truth.status == "score" and truth.horizon == 1
    z = z_scores(truth.gradients(1), -2 * (0.5 * s - 2) * s)
    assert abs(float(z)) < 4
    assert float(truth.gradients(1).mean()) == pytest.approx(
        float((-2 * (0.5 * s - 2) * s).mean()), rel=0.05
    )


@pytest.mark.parametrize("count", [1, 3])
def test_the_soft_gradient_agrees_with_the_unrolled_one(count):
    torch.manual_seed(0)
    policy, system = (
        GaussianPolicy(2, 1, (4,), "tanh", squash=True, limit=2.0).double(),
        linear(0.8),
    )
    starts = gaussian_starts(600, 2)
    plain = Setting(system, policy, starts, GAMMA)
    soft = Setting(Entropic(system, ALPHA), WithLogProb(policy), starts, GAMMA)
    score = score_truth(plain, [1, 3], temperature=ALPHA, pairs=8).gradients(count)
    unrolled = early_truth(soft, [1, 3], check=False).gradients(count)
    z = z_scores(score, unrolled)
    assert z.abs().max() < 4.5 and z.square().mean() < 2.5
    mean, wanted = score.mean(dim=0), unrolled.mean(dim=0)
    assert torch.nn.functional.cosine_similarity(mean, wanted, dim=0) > 0.95


def test_nothing_counts_beyond_an_end_under_mask():
    """The first step pays and ends all; a reward of 100 a step lies beyond. θ in every action, too:
    it moves the only one of a path that ends at once."""

    def step(s, a):
        return s + 1, torch.where(s[:, 0] < 0.5, -((a[:, 0] - 2) ** 2), 100 * a[:, 0])

    system = from_function(step, state_dim=1, action_dim=1, alive=lambda s: s[:, 0] < 0.5)
    policy = Gaussian(torch.nn.Linear(1, 1, bias=True).double(), 0.5)
    torch.nn.init.zeros_(policy.policy.weight)
    torch.nn.init.zeros_(policy.policy.bias)
    starts = as_starts(torch.zeros(200, 1, dtype=torch.float64), 1)
    bias = {
        end: score_truth(Setting(system, policy, starts, 0.5, termination=end), [2]).gradients(2)
        for end in ("mask", "ignore")
    }
    setting = Setting(system, policy, starts, 0.5, horizon=3, termination="mask")
    bias["all"] = score_gradients(setting)
    means = {end: float(G[:, 1].mean()) for end, G in bias.items()}
    assert means["mask"] == pytest.approx(4.0, rel=0.1)
    assert means["all"] == pytest.approx(4.0, rel=0.1)
    assert means["ignore"] == pytest.approx(4.0 + 50.0, rel=0.1)


def test_a_gradient_lost_in_noise_is_imprecise_and_a_lost_path_has_none():
    flat = from_function(lambda s, a: (s, torch.sin(40 * a[:, 0])), state_dim=1, action_dim=1)
    policy = Gaussian(feedback(0.1), 1.0)
    found = score_truth(Setting(flat, policy, gaussian_starts(16, 1), 0.5), [1])
    assert found.status == "imprecise" and "of its norm" in found.reason
    wild = from_function(lambda s, a: (s * 1e300, a[:, 0]), state_dim=1, action_dim=1)
    lost = score_truth(Setting(wild, policy, gaussian_starts(16, 1), 0.5), [1])
    assert lost.status == "none" and lost.gradients(1) is None
    assert "16 of 16 starts" in lost.reason


def test_arguments_that_have_no_score_are_refused():
    setting = Setting(linear(), feedback(0.4, 0.6), gaussian_starts(8, 2), GAMMA)
    with pytest.raises(InputError, match="stochastic"):
        score_truth(setting, [1])
    noisy = Setting(linear(), Gaussian(feedback(0.4, 0.6), 0.1), gaussian_starts(8, 2), GAMMA)
    with pytest.raises(InputError, match="pairs is 1"):
        score_truth(noisy, [1], pairs=1)


def test_the_relative_error_is_that_of_a_mean():
    generator = torch.Generator().manual_seed(0)
    G = 1 + 3 * torch.randn(4000, 5, generator=generator, dtype=torch.float64)
    assert relative_error(G) == pytest.approx(3 / 4000**0.5, rel=0.1)


def test_with_theta_in_every_action_scores_have_the_closed_form_of_a_linear_quadratic_world():
    """And the pathwise gradient's: the return is smooth. Weights count."""
    system, K, T = linear(0.8), (0.4, 0.6), 12
    inner, starts = feedback(*K), gaussian_starts(800, 2)
    weight = torch.linspace(0.5, 1.5, 800, dtype=torch.float64)
    setting = Setting(system, Gaussian(inner, 0.5), replace(starts, weight=weight), GAMMA, T)
    found = score_gradients(setting, pairs=4)
    s = starts.states
    moment = (weight[:, None, None] * s[:, :, None] * s[:, None, :]).mean(dim=0)
    noise = 0.25 * torch.eye(1, dtype=torch.float64)
    wanted = lqr_gradient(system, inner.weight, moment, GAMMA, "all", T, noise)
    error = found.std(dim=0) / 800**0.5
    assert (((found.mean(dim=0) - wanted) / error).abs() < 4).all()
    assert float(found.mean(dim=0) @ wanted / wanted.norm() ** 2) == pytest.approx(1, abs=0.1)
    z = z_scores(found, unroll_all_actions(setting))
    assert z.abs().max() < 4


def test_a_linear_baseline_needs_fewer_starts_than_the_other_paths_alone(monkeypatch):
    setting = Setting(linear(), Gaussian(feedback(0.4, 0.6), 0.3), gaussian_starts(64, 2), 0.95, 30)
    fitted = relative_error(score_gradients(setting, pairs=2))
    monkeypatch.setattr(score_actions, "_baselines", lambda _, paths: torch.zeros_like(paths.to_go))
    assert fitted < 0.9 * relative_error(score_gradients(setting, pairs=2))
