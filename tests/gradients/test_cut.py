"""Cut edges against autograd through a loop that is written out with `detach`."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.courses import Cut
from gradlab.gradients.starts import as_starts
from gradlab.measurement.arguments import check_also, estimators_at, identify
from gradlab.networks.interface import act
from gradlab.runs.identity import by_known_name
from gradlab.wording import describe
from tests.gradients.noisy import GAMMA, SIM, ingredients
from tests.gradients.worlds import linear

CUTS = [Cut(transition=True), Cut(decay=0.8), Cut(stop=1), Cut(stop=2), Cut(stop=2, decay=0.7)]


def moved(model, s, a, xi, cut):
    """The next state, from one that is detached or partly so."""
    s = s.detach() if cut.transition else s
    return model.step(cut.decay * s + (1 - cut.decay) * s.detach(), a, xi).state


def loop(model, policy, critic, starts, horizon, every, cut, seed):
    """Per-sample gradients of Σ γᵗ r_t + γⁿ Q by autograd through detached values."""
    begin, frozen = as_starts(starts, 2), copy.deepcopy(policy)
    s, total = begin.states, 0.0
    for t in range(horizon + 1):
        chosen = policy if every or t == 0 else frozen
        a = act(chosen, s, begin.policy_noise(policy, seed, t))
        if t == horizon:
            break
        xi = begin.dynamics_noise(model, seed, t)
        paid = model.step(s, a, xi).reward
        total = total + GAMMA**t * paid
        s = moved(model, s, a, xi, cut)
        s = s.detach() if cut.stop and (t + 1) % cut.stop == 0 else s
    total = total + GAMMA**horizon * critic(s, a)
    parameters = list(policy.parameters())
    rows = [torch.autograd.grad(x, parameters, retain_graph=True) for x in total]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("actions", ["first", "all"])
def test_a_cut_gradient_is_that_of_the_detached_loop(cut, actions):
    policy, critic, starts = ingredients()
    estimator = Estimator(SIM, SIM, actions, Tail(3, critic, GAMMA), cut=cut)
    got = estimator.gradients(policy, starts, seed=5)
    want = loop(SIM, policy, critic, starts, 3, actions == "all", cut, 5)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    whole = replace(estimator, cut=Cut()).gradients(policy, starts, seed=5)
    assert (got - whole).norm() > 1e-3 * whole.norm()


def test_one_cut_leaves_the_estimators_beside_it_whole():
    """Paths and Jacobians are shared in a measurement; what is cut is not."""
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    policy = nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    whole = named.bptt(task.simulator, task.discount, 4)
    first = replace(named.bptt(task.simulator, task.discount, 4), actions="first")
    cut = Cut(transition=True)
    chosen = {"whole": whole, "cut": replace(whole, cut=cut), "all": replace(whole)}
    chosen |= {"first": first, "first cut": replace(first, cut=cut), "one": replace(first)}
    profile = gradlab.measure(
        task, policy, None, chosen, horizon=4, starts=64, judges=4, rehearse=False
    )
    norm = profile.table().set_index(["estimator", "quantity", "horizon"]).value
    assert norm["whole", "mean_norm", 4] == norm["all", "mean_norm", 4]
    assert norm["first", "mean_norm", 4] == norm["one", "mean_norm", 4]
    for name in ("whole", "first"):
        one_step, cut_name = norm[name, "mean_norm", 1], {"whole": "cut"}.get(name, "first cut")
        assert norm[cut_name, "mean_norm", 1] == one_step
        assert abs(norm[cut_name, "mean_norm", 4] / norm[name, "mean_norm", 4] - 1) > 0.01
    assert profile.config["cut"] == {"cut": "transition", "first cut": "transition"}


def test_a_soft_gradient_is_cut_at_the_density_of_later_actions_too():
    policy, critic, starts = ingredients()
    soft = replace(named.maac(SIM, critic, GAMMA, 2, 0.3), cut=Cut(transition=True))
    begin = as_starts(starts, 2)
    s, total = begin.states, 0.0
    for t in range(3):
        a, density = policy.with_log_prob(s, begin.policy_noise(policy, 5, t))
        total = total - GAMMA**t * 0.3 * density
        if t == 2:
            total = total + GAMMA**2 * critic(s, a)
            break
        noise = begin.dynamics_noise(SIM, 5, t)
        total = total + GAMMA**t * SIM.step(s, a, noise).reward
        s = SIM.step(s.detach(), a, noise).state
    want = torch.autograd.grad(total.mean(), list(policy.parameters()))
    got = soft.mean_gradient(policy, starts, seed=5)
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in want]), rtol=1e-9, atol=1e-11)
    norms = horizon_gradients(soft, policy, starts, horizons=(2,), seed=5)
    torch.testing.assert_close(norms.means[0], got, rtol=1e-9, atol=1e-11)


def test_decay_has_a_name_of_its_own_beside_the_default_estimators():
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    chosen = estimators_at(task, lambda s, a: -(s**2).sum(1), None, 4, also=("decay_0.9",))
    decayed = chosen["true_dynamics_decay_0.9"]
    assert decayed.cut == Cut(decay=0.9) and decayed.actions == "all"
    made = identify(chosen, task.simulator)["true_dynamics_decay_0.9"]
    known = by_known_name(["true_dynamics_decay_0.9"])["true_dynamics_decay_0.9"]
    assert made.cut == known.cut == "decay 0.9"
    assert describe(made) == ("the simulator", "BPTT, decay 0.9")
    stopped = estimators_at(task, lambda s, a: -(s**2).sum(1), None, 4, also=("stop_3",))
    made = identify(stopped, task.simulator)["true_dynamics_stop_3"]
    assert stopped["true_dynamics_stop_3"].cut == Cut(stop=3)
    assert made.cut == by_known_name(["true_dynamics_stop_3"])["true_dynamics_stop_3"].cut
    assert describe(made) == ("the simulator", "BPTT, stop 3")
    for name in (
        "stop_0",
        "stop_-1",
        "stop_2.5",
        "decay_1",
        "decay_-0.1",
        "decay_much",
        "decay_nan",
    ):
        with pytest.raises(InputError, match=rf"also is '{name}', expected one of"):
            check_also((name,), None)
    with pytest.raises(InputError, match="decay of a cut is 2, expected a number from 0 to 1"):
        Cut(decay=2)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Cut(("transition",)), "transition of a cut is .*True or False"),
        (lambda: replace(named.bptt(linear(), 0.9, 2), cut="observation"), "expected a Cut"),
        (
            lambda: replace(
                named.likelihood_ratio(linear(), None, 0.9, 2), cut=Cut(transition=True)
            ),
            "nothing is differentiated",
        ),
    ],
)
def test_cuts_without_meaning_are_refused(make, word):
    with pytest.raises(InputError, match=word):
        make()
