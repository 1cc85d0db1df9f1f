"""BPTT from replayed states: against the closed form of a linear-quadratic world."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab import Estimator, Tail
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.truth.lqr import lqr_gradient
from tests.gradients.worlds import Critic
from tests.truth.linear_policies import feedback

GAMMA = 0.8


def world():
    return gradlab.tasks.linear_quadratic(discount=GAMMA), feedback(0.6, 0.9)


def visited_moment(task, W):
    """E_ν[s sᵀ] = (1 − γ) Σ_t γᵗ E[s_t s_tᵀ]."""
    p = {k: torch.tensor(task.parameters[k]) for k in ("A", "B", "noise_covariance")}
    p = {k: x.double() for k, x in p.items()}
    loop, moment, total = p["A"] + p["B"] @ W, torch.eye(2).double(), torch.zeros(2, 2).double()
    for t in range(300):
        total += (1 - GAMMA) * GAMMA**t * moment
        moment = loop @ moment @ loop.T + p["noise_covariance"]
    return total


@pytest.mark.parametrize("n", [1, 5])
def test_it_is_the_gradient_of_the_models_return_from_visited_states(n):
    """Without a tail: ∇_W E_ν[V_n] of the model, over 1 − γⁿ⁺¹; the simulator moves the starts."""
    task, policy = world()
    model = task.prior
    W = policy.weight.detach()
    want = lqr_gradient(model, W, visited_moment(task, W), GAMMA, "all", n) / (1 - GAMMA ** (n + 1))
    estimator = Estimator(model, model, "replayed", Tail(n, None, GAMMA), replay=task.simulator)
    G = estimator.gradients(policy, task.starts(8192, stream(3, "starts")))
    error = G.std(dim=0) / len(G) ** 0.5
    assert ((G.mean(dim=0) - want).abs() < 4 * error).all()
    from_starts = lqr_gradient(model, W, torch.eye(2).double(), GAMMA, "all", n)
    assert ((G.mean(dim=0) - from_starts).abs() > 10 * error).any()


def test_blocks_replay_what_the_whole_batch_replays():
    task, policy = world()
    tail = Tail(3, Critic(3), GAMMA)
    estimator = Estimator(task.prior, task.prior, "replayed", tail, replay=task.simulator)
    starts = task.starts(1500, stream(4, "starts"))  # more than a block
    whole = estimator.gradients(policy, starts).mean(dim=0)
    torch.testing.assert_close(estimator.mean_gradient(policy, starts), whole)


def test_without_steps_it_is_the_data_gradient():
    """In a measurement, at horizon 0, of visited states too, and over 1 − γ."""
    task, policy = world()
    profile = gradlab.measure(
        task,
        policy,
        Critic(3),
        horizon=1,
        starts=128,
        judges=4,
        rehearse=False,
        also=("replayed",),
    )
    table = profile.table().set_index(["estimator", "quantity", "horizon"])
    norm = table.loc[(slice(None), "mean_norm", 0), ["ci_low", "ci_high"]].droplevel([1, 2])
    data, replayed = norm.loc["data"], norm.loc["model_replayed"]
    assert replayed.ci_low < data.ci_high and data.ci_low < replayed.ci_high
    cosine = table.loc[("model_replayed", "bias2", 1)]
    assert cosine.n and cosine.value == cosine.value


def test_whose_states_are_replayed_is_asked_for():
    task, _ = world()
    plain = Estimator(task.prior, task.prior, "all", Tail(2, None, GAMMA))
    with pytest.raises(InputError, match="needs the system whose visited states"):
        replace(plain, actions="replayed")
    with pytest.raises(InputError, match="no other has one"):
        replace(plain, replay=task.simulator)
    with pytest.raises(InputError, match="discount is 1"):
        replace(plain, actions="replayed", replay=task.simulator, tail=Tail(2, None, 1.0))
