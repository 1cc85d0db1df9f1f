"""Gradients of mixed orders in a measurement, and what has no meaning."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.networks.policies import Gaussian
from gradlab.runs.identity import by_default
from tests.gradients.noisy import GAMMA, SIM, ingredients
from tests.gradients.worlds import Critic, Noisy, network


def mixing(actions):
    return Estimator(SIM, SIM, actions, Tail(3, None, GAMMA))


def test_a_measurement_compares_them_beside_the_others():
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    sim = task.simulator
    chosen = {"all": named.bptt(sim, task.discount, 2)}
    chosen["score"] = named.likelihood_ratio(sim, None, task.discount, 2)
    chosen |= {
        "ivw": named.ivw_h(sim, None, task.discount, 2),
        "ddcg": named.ddcg(sim, None, task.discount, 2),
        "total": named.total_propagation(sim, None, task.discount, 2),
    }
    table = gradlab.measure(
        task, policy, None, chosen, horizon=2, starts=256, judges=4, rehearse=False
    ).table()
    variance = table[table.quantity == "variance"].set_index(["estimator", "horizon"]).value
    for name in ("ivw", "ddcg", "total"):
        assert variance[name, 2] < 1.5 * variance["all", 2] < 0.1 * variance["score", 2]
    assert not table[table.quantity == "bias2"].value.dropna().empty


def on(policy):
    return lambda: mixing("ivw").gradients(policy, torch.zeros(4, 2).double())


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (on(network((2, 2), nn.ELU)), "stochastic policy: wrap it"),
        (on(Noisy(network((2, 4), nn.ELU), 2)), "no density"),
        (lambda: replace(mixing("total"), entropy=0.1), "entropy is for pathwise"),
        (lambda: replace(mixing("ddcg"), jacobians=None), "jacobians is None"),
        (lambda: replace(named.svg_infinity(SIM, GAMMA, 2), actions="ivw"), "states are recorded"),
    ],
)
def test_what_has_no_meaning_is_refused(act, word):
    with pytest.raises(InputError, match=word):
        act()


class Dense(nn.Module):
    """A density without a head that can be read."""

    def __init__(self):
        super().__init__()
        self.inner, self.noise_dim = ingredients()[0], 2

    def forward(self, s, e):
        return self.inner(s, e)

    def log_prob(self, s, a):
        return self.inner.log_prob(s, a)

    def infer_noise(self, s, a):
        return self.inner.infer_noise(s, a)


def test_a_policy_without_a_head_is_refused():
    with pytest.raises(InputError, match="no Gaussian head"):
        on(Dense())()


ALSO = ("score", "ivw", "ddcg", "total", "cut_transition")


def test_names_beside_the_default_estimators():
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    policy = Gaussian(nn.Linear(2, 1).double(), 0.3)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    critic, few = Critic(3), dict(horizon=1, starts=32, judges=4, rehearse=False)
    profile = gradlab.measure(task, policy, critic, **few, also=ALSO)
    table = profile.table().set_index(["estimator", "quantity", "horizon"]).value
    for name in ALSO:
        assert table[f"true_dynamics_{name}", "variance", 1] > 0
    one = gradlab.measure(task, policy, critic, **few)
    alone = one.table().set_index(["estimator", "quantity", "horizon"]).value
    from_names = by_default(tuple(profile.estimators), profile.config["actions"])
    assert profile.identities == from_names
    assert table["data", "bias2", 0] == alone["data", "bias2", 0]
    assert profile.config["also"] == list(ALSO)
    plain = policy.policy
    for also, given, word in [
        (("ivwh",), plain, "also is 'ivwh', expected one of score, ivw, ddcg, total, cut_tra"),
        (("ivw",), plain, "stochastic policy"),
        (("score",), plain, "stochastic policy"),
        ("score", plain, "expected a tuple"),
        (None, plain, "also is None, expected a tuple"),
    ]:
        with pytest.raises(InputError, match=word):
            gradlab.measure(task, given, critic, **few, also=also)
    with pytest.raises(InputError, match="estimators of your own"):
        gradlab.measure(
            task, policy, None, {"a": named.bptt(SIM, GAMMA, 1)}, starts=32, also=("ivw",)
        )
