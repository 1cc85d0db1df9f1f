"""Advice as code: its loss has the advised gradient, and following it does what was promised."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems import from_function
from gradlab.verdicts.recommendation import Recommendation
from tests.measurement.scalar import Quadratic, scalar_policy
from tests.runs.planted_gains import planted_rehearsal


def linear(noise=0.01):
    """s' = 0.9 s + 0.5 a + w and a wrong prior."""
    return gradlab.tasks.linear_quadratic(
        [[0.9]], [[0.5]], [[1.0]], [[0.1]], [[noise]], [0.5], [[1.0]], 0.9, ([[0.8]], [[0.6]])
    )


TASKS = {
    "double_integrator": gradlab.tasks.double_integrator,
    "pendulum": gradlab.tasks.pendulum,
    "linear_quadratic": linear,
}


def networks(task):
    torch.manual_seed(0)
    sizes = task.simulator.state_dim, task.simulator.action_dim
    return Policy(*sizes, hidden=(4,)).double(), QCritic(*sizes, hidden=(4,)).double()


def stored(task, folder, **changes):
    """Networks, and the file of a measurement whose rehearsal advises 5 updates along 2 steps of
    the model, or of the simulator where there is none."""
    policy, critic = networks(task)
    profile = gradlab.measure(task, policy, critic, horizon=2, starts=8, judges=4, rehearse=False)
    name = "true_dynamics_all" if task.prior is None else "model_all"
    told = replace(planted_rehearsal({(name, 2): (1, 2, 5, 4, 3)}), rate=1e-2)
    profile = replace(profile, rehearsal=told, config=profile.config | changes)
    return policy, critic, profile.save(folder / "measured.h5")


@pytest.fixture(scope="module", params=TASKS)
def followed(request, tmp_path_factory):
    task = TASKS[request.param]()
    return task, *stored(task, tmp_path_factory.mktemp("run"))


def estimator_of(task, identity, h, critic):
    """As one who reads the recommendation would write it."""
    systems = {"simulator": task.simulator, "model": task.prior, "none": None}
    return gradlab.Estimator(
        systems[identity.states], systems[identity.jacobians], identity.actions,
        gradlab.Tail(h, critic, task.discount),
    )  # fmt: skip


def flat(policy):
    return torch.cat([parameter.grad.reshape(-1) for parameter in policy.parameters()])


def test_the_loss_has_the_advised_gradient_at_states_of_both_laws(followed):
    """Of every gradient that was measured, in the task that is made again from the file."""
    task, policy, critic, path = followed
    profile = gradlab.load(path)
    advised = profile.recommendation
    identities = profile.identities
    assert advised.follow.identity.actions == "all" and advised.horizon == 2
    assert (advised.updates, advised.optimizer, advised.rate) == (5, "adam", 1e-2)
    for name, identity in identities.items():
        for h in (0, 2)[: 1 if identity.data else 2]:
            told = replace(advised, follow=replace(advised.follow, identity=identity, horizon=h))
            torch.manual_seed(7)
            states = told.states(16, policy=policy)
            assert states.shape == (16, task.simulator.state_dim)
            seed = int(torch.randint(2**31, ()))  # of the noise
            torch.manual_seed(7), told.states(16, policy=policy)
            policy.zero_grad()
            told.loss(policy, critic, states).backward()
            expected = estimator_of(task, identity, h, critic).mean_gradient(policy, states, seed)
            assert expected.norm() > 1e-4, (name, h)
            assert (flat(policy) + expected).norm() < 1e-10 * expected.norm(), (name, h)


def test_states_are_starts_where_theta_is_in_all_actions_and_visited_ones_elsewhere(tmp_path):
    """Of s' ≈ 0.5 s: starts lie in [1, 2), visited ones in the halves of it, too."""
    simulator, prior = (
        from_function(lambda s, a, by=by: (by * s + 0.01 * a, -(s * s)[:, 0]), 1, 1)
        for by in (0.5, 0.4)
    )
    task = gradlab.Task(
        "halves", simulator, prior,
        lambda n, generator: 1 + torch.rand(n, 1, generator=generator, dtype=torch.float64), 0.9, 4,
    )  # fmt: skip
    policy, critic, path = stored(task, tmp_path)
    told = gradlab.load(path).recommendation
    assert bool((told.states(64, task) >= 1).all())
    first = replace(told.follow, identity=gradlab.load(path).identities["model"])
    visited = replace(told, follow=first).states(4096, task, policy)
    share = float((visited >= 1).double().mean())  # (1 − γ) of the discounted visitation
    assert visited.shape == (4096, 1) and share == pytest.approx(0.1, abs=0.03)
    with pytest.raises(InputError, match="visited states: give policy="):
        replace(told, follow=first).states(64, task)
    # Nobody can make it again from its name.
    for call in (lambda: told.states(4), lambda: told.loss(policy, critic, torch.ones(4, 1))):
        with pytest.raises(InputError, match="'halves' cannot be made again from its name: give"):
            call()
    with pytest.raises(InputError, match="task halves has not both: give task= with prior="):
        told.loss(policy, critic, torch.ones(4, 1), replace(task, prior=None))
    assert told.loss(policy, critic, torch.ones(4, 1), task).requires_grad


def test_a_task_of_another_model_than_was_measured_is_not_made_again(tmp_path):
    """A learned one is not in the name."""
    policy, critic, path = stored(linear(), tmp_path, model="Learned 01234567")
    with pytest.raises(InputError, match="'linear_quadratic' cannot be made again from its name"):
        gradlab.load(path).recommendation.loss(policy, critic, torch.ones(4, 1).double())


def test_where_nothing_is_advised_there_is_no_loss_and_the_reason_is_said():
    told = Recommendation("none", ())
    told = replace(told, fields=(gradlab.verdicts.recommendation.Field("use", "no update yet"),))
    assert told.horizon is told.updates is told.optimizer is told.rate is None
    for call in (lambda: told.states(4), lambda: told.loss(None, None, None)):
        with pytest.raises(InputError, match="nothing is to be followed: no update yet"):
            call()


def test_following_raises_the_return_as_was_promised():
    """By the closed form of s' = 0.9 s + 0.5 a under a = −k s: J = −E[s²] (1 + 0.1 k²) / (1 − γ ρ²)
    with ρ = 0.9 − 0.5 k."""
    task, policy = linear(noise=0.0), scalar_policy()
    profile = gradlab.measure(task, policy, Quadratic(), horizon=3, starts=64, batch=64, judges=64)
    told, before = profile.recommendation, exact(policy)
    optimizer = torch.optim.Adam(policy.parameters(), told.rate)
    torch.manual_seed(0)
    for _ in range(told.updates):
        loss = told.loss(policy, Quadratic(), told.states(64, policy=policy))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    promised = float(told.tested.split()[0])
    assert told.light == "act" and promised > 0
    assert exact(policy) - before == pytest.approx(promised, rel=0.3)


def exact(policy):
    """J over the law of the starts, of mean 0.5 and variance 1."""
    k = -float(sum(parameter.sum() for parameter in policy.parameters()))
    return -(1 + 0.5**2) * (1 + 0.1 * k * k) / (1 - 0.9 * (0.9 - 0.5 * k) ** 2)
