"""RP-DR: windows of real steps, cut into paths of h that end in the critic."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import as_starts
from gradlab.systems import from_function
from gradlab.training.learner import Learner
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from gradlab.training.parts.targets import Soft
from gradlab.training.settings import Settings
from tests.training.estimated import critics_of, other
from tests.training.small_runs import row, task
from tests.training.test_windows import batch_of, gradient

AGENTS, ALPHA = 5, 0.2


class Drawn:
    """The noise of the last actions; that of the model deals members, of which there are none."""

    def __init__(self, noise):
        self.noise = noise

    def normal(self, name, iteration, shape):
        if name == "model noise":
            return torch.full((2, *shape), torch.nan)
        assert name == "last actions" and self.noise.shape[1:] == shape
        return self.noise


def learner_of(horizon, windows, alpha, termination="ignore"):
    model = from_function(other, state_dim=3, action_dim=2, noise_dim=3)
    chosen = replace(
        row("rp-dr"), terms=(Term(horizon, "all"),), source=Newest(horizon * windows),
        activation="tanh", model=None, target=Soft(alpha),
    )  # fmt: skip
    settings = Settings(precision="float64", seeds=2, termination=termination, agents=AGENTS)
    return Learner(chosen, replace(task(), prior=model), settings)


def path_of(learner, seed, steps, number):
    """Paths of the simulator by the policy of one seed."""
    policy = learner.policy_of(seed).double()
    generator = torch.Generator().manual_seed(number)
    starts = as_starts(torch.randn(AGENTS, 3, generator=generator, dtype=torch.float64), 3)
    return policy, rollout(learner.task.simulator, policy, starts, steps, seed=number)


def estimated(learner, seed, policy, path, number):
    """By the estimator, from real states with the model's Jacobians."""
    tail = gradlab.Tail(path.horizon, critics_of(learner, seed), learner.task.discount)
    alpha = learner.algorithm.target.temperature
    estimator = gradlab.Estimator(
        learner.task.simulator, learner.task.prior, "all", tail, entropy=alpha
    )
    return estimator.mean_gradient(policy, path.states[0], seed=number)


def noise_of(made, horizon):
    """Of the last actions, at the step of its path in which each one is drawn."""
    return torch.stack(
        [
            torch.stack([paths[k].policy_noise[horizon] for k in range(len(paths))])
            .flatten(0, 1)
            .expand(horizon, -1, -1)
            for paths in made
        ]
    )


@pytest.mark.parametrize(
    ("horizon", "windows", "alpha"), [(3, 1, 0.0), (3, 2, ALPHA), (1, 3, 0.0), (5, 1, ALPHA)]
)
def test_the_gradient_is_that_of_the_estimator_on_real_states_to_the_critic(
    horizon, windows, alpha
):
    learner = learner_of(horizon, windows, alpha)
    made = [[path_of(learner, seed, horizon, 7 + k) for k in range(windows)] for seed in range(2)]
    paths = [[path for _, path in pieces] for pieces in made]
    batch = batch_of(paths)
    learner.draws = Drawn(noise_of(paths, horizon))
    for seed in range(2):
        wanted = sum(
            estimated(learner, seed, policy, path, 7 + k)
            for k, (policy, path) in enumerate(made[seed])
        )
        torch.testing.assert_close(
            gradient(learner, batch, seed), wanted / windows, rtol=1e-9, atol=1e-11
        )


def test_paths_of_one_episode_are_cut_where_the_window_has_them():
    # One path of 4 steps as two of 2: no derivative crosses, whatever joins the states.
    learner = learner_of(2, 2, 0.0)
    paths = [[path_of(learner, seed, 4, 7)[1]] for seed in range(2)]
    batch = batch_of(paths)
    learner.draws = Drawn(
        torch.stack([torch.cat([p.policy_noise[2], p.policy_noise[4]]) for (p,) in paths])[:, None]
        .expand(-1, 2, -1, -1)
    )  # fmt: skip
    shifted = batch.next_state.clone()
    whole = gradient(learner, batch, 0)
    shifted[:, AGENTS : 2 * AGENTS] += (
        1e-9  # what the second step led to is not where the third began
    )
    torch.testing.assert_close(gradient(learner, replace(batch, next_state=shifted), 0), whole)


@pytest.mark.parametrize("termination", ["ignore", "mask"])
def test_an_episode_that_ends_is_valued_there_but_for_a_masked_terminal_state(termination):
    learner = learner_of(3, 1, 0.0, termination)
    made = [[path_of(learner, seed, n, 7 + n) for n in (1, 2)] for seed in range(2)]
    paths = [[path for _, path in pieces] for pieces in made]
    batch = batch_of(paths)
    ended = batch.terminated.clone()
    ended[:, :AGENTS] = 1.0
    batch = replace(batch, terminated=ended)
    noise = torch.stack([torch.stack([a.policy_noise[1], b.policy_noise[1], b.policy_noise[2]])
                         for a, b in paths])  # fmt: skip
    learner.draws = Drawn(noise)
    for seed in range(2):
        first, second = (
            estimated(learner, seed, policy, path, 7 + n)
            for n, (policy, path) in zip((1, 2), made[seed], strict=True)
        )
        if termination == "mask":
            policy, path = made[seed][0]
            tail = gradlab.Tail(1, None, learner.task.discount)
            alone = gradlab.Estimator(learner.task.simulator, learner.task.prior, "all", tail)
            first = alone.mean_gradient(policy, path.states[0], seed=8)
        torch.testing.assert_close(
            gradient(learner, batch, seed), (first + second) / 2, rtol=1e-9, atol=1e-11
        )
