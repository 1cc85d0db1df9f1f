"""Members that rollouts use: those of least held-out loss; bootstrap samples that members learn."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.data.replay import Replay
from gradlab.fitting.losses import Bound
from gradlab.networks.gaussian_ensemble import predict
from gradlab.systems import from_function
from gradlab.training.draws import Draws
from gradlab.training.models.dynamics import Dynamics, experience
from gradlab.training.models.model_choice import LOSSES, LearnedModel

MEMBERS, ELITES = 4, 2
CHOICE = LearnedModel(
    members=MEMBERS, elites=ELITES, hidden=(8,), first_steps=30, steps=5, batch=16
)
LIKE = torch.zeros((), dtype=torch.float64)


def drift(state, action):
    return 0.9 * state + action, torch.sin(state[:, 0])


def dynamics_of(**changes):
    world = from_function(drift, state_dim=2, action_dim=1)
    task = gradlab.Task("drift", world, None, lambda n, g: torch.zeros(n, 2), 0.9, 5)
    choice = replace(CHOICE, **changes)
    return Dynamics(choice, task, Draws((0, 1), torch.float64, "cpu"), agents=4)


def filled(steps=60):
    """Two seeds of four environments whose states are drawn anew in every step."""
    replay, generator = Replay(2, 1000, 2, 1, torch.float64), torch.Generator().manual_seed(0)
    for _ in range(steps):
        state = torch.randn(2, 4, 2, generator=generator, dtype=torch.float64)
        action = torch.randn(2, 4, 1, generator=generator, dtype=torch.float64)
        flat = drift(state.flatten(0, 1), action.flatten(0, 1))
        after, reward = flat[0].view(2, 4, 2), flat[1].view(2, 4)
        replay.add(state, action, reward, after, torch.zeros(2, 4))
    return replay


def likelihoods(dynamics, replay, seed, role="prediction"):
    """Mean negative log likelihood of every member on held-out rows, up to a constant."""
    data = experience(replay, agents=4)
    rows = data.numbers[data.held]
    transitions = replay.rows[seed, rows]
    x, reward, after = transitions[:, :3], transitions[:, 3:4], transitions[:, 4:6]
    said = predict(dynamics.roles[role].used.numbers(LIKE), x)
    own = slice(seed * MEMBERS, (seed + 1) * MEMBERS)
    error = (said.mean[own] - torch.cat([after, reward], dim=1)) / said.std[own]
    return (error.square() + 2 * said.std[own].log()).sum(dim=2).mean(dim=1)


@pytest.mark.parametrize("two_models", [False, True])
def test_rollouts_and_kept_models_are_the_members_of_least_held_out_loss(two_models):
    dynamics, replay = dynamics_of(two_models=two_models), filled()
    dynamics.fit(replay)
    model, x = dynamics.rollout(), torch.randn(7, 3, dtype=torch.float64)
    chosen = set()
    for role in dynamics.roles:
        numbers = getattr(model, role).numbers if two_models else model.numbers
        everyone = predict(dynamics.roles[role].used.numbers(LIKE), x).mean
        rolled_out = predict(numbers, x).mean
        assert len(rolled_out) == 2 * ELITES
        for seed in range(2):
            best = likelihoods(dynamics, replay, seed, role).argsort()[:ELITES].sort().values
            wanted = everyone[seed * MEMBERS + best]
            here = slice(seed * ELITES, (seed + 1) * ELITES)
            torch.testing.assert_close(rolled_out[here], wanted, rtol=1e-12, atol=1e-12)
            kept = dynamics.ensembles_of(seed)[role].numbers(LIKE)
            torch.testing.assert_close(predict(kept, x).mean, wanted, rtol=1e-12, atol=1e-12)
            chosen.add(tuple(best.tolist()))
        state = torch.randn(3, 2, dtype=torch.float64)
        assert dynamics.system_of(1).step(state, state[:, :1]).state.shape == (3, 2)
    assert chosen != {(0, 1)}  # or the first members would pass


def test_saved_elites_are_those_that_go_on():
    dynamics, replay, x = dynamics_of(), filled(), torch.randn(7, 3, dtype=torch.float64)
    dynamics.fit(replay)
    again = dynamics_of()
    again.load({name: value.clone() for name, value in dynamics.state().items()})
    ours, theirs = (predict(one.rollout().numbers, x).mean for one in (dynamics, again))
    assert torch.equal(ours, theirs)
    assert not any("elites" in name for name in dynamics_of(elites=None).state())


def rows_of_a_fit(dynamics, replay):
    """The rows that every member was given, [E · M] sets."""
    data = experience(replay, agents=4)
    training, held_out = LOSSES["nll"].bind(data.rows, data.part(False), data.part(True))
    seen = [set() for _ in range(2 * MEMBERS)]

    def noted(ensemble, at, turn):
        for member, rows in enumerate(at.tolist()):
            seen[member].update(rows)
        return training.value(ensemble, at, turn)

    ensembles = dynamics.roles["prediction"]
    ensembles.fit((Bound(training.rows, noted), held_out), data, "nll")
    return seen, int((~data.held).sum())


def test_a_bootstrap_sample_has_two_thirds_of_the_rows_and_is_the_members_own():
    options = dict(first_steps=150, steps=150, batch=32)
    dynamics, replay = dynamics_of(bootstrap=True, **options), filled()
    seen, count = rows_of_a_fit(dynamics, replay)
    for rows in seen:  # 1 − 1/e = 0.632 of them, standard deviation 0.02
        assert 0.55 < len(rows) / count < 0.72
    assert len({frozenset(rows) for rows in seen}) == 2 * MEMBERS
    again, _ = rows_of_a_fit(dynamics, replay)
    assert again[0] != seen[0]  # drawn anew in every fit
    everything, _ = rows_of_a_fit(dynamics_of(**options), replay)
    assert all(len(rows) == count for rows in everything)
