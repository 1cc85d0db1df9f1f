"""On-policy windows, each used once, and SVG(∞), which follows their paths without a critic."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import as_starts
from gradlab.systems import from_function
from gradlab.training.learner import Learner
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.estimated import other
from tests.training.small_runs import SMALL, flattened, policy_gradients, push, row, task

STEPS = 4


def small(**changes):
    return replace(
        row("svg-inf"), terms=(Term(STEPS, "all"),), source=Newest(STEPS), batch=16,
        activation="tanh", **changes,
    )  # fmt: skip


def learner_of():
    model = from_function(other, state_dim=3, action_dim=2, noise_dim=3)
    chosen = replace(task(), prior=model)
    settings = Settings(precision="float64", seeds=2, termination="ignore", agents=5)
    return Learner(small(model=None), chosen, settings)


def path_of(learner, seed, steps, number):
    """Five paths of the simulator by the policy of one seed."""
    policy = learner.policy_of(seed).double()
    generator = torch.Generator().manual_seed(number)
    starts = as_starts(torch.randn(5, 3, generator=generator, dtype=torch.float64), 3)
    return policy, rollout(learner.task.simulator, policy, starts, steps, seed=number)


def batch_of(paths_of_seeds):
    """Paths one after the other, as the environments would store them; each seed has a list."""

    def stacked(select):
        return torch.stack([torch.cat([select(p) for p in paths]) for paths in paths_of_seeds])

    def rewards(path):
        flat = (path.states[:-1], path.actions[: path.horizon], path.dynamics_noise)
        return push(*(x.flatten(0, 1) for x in flat))[1]

    states = stacked(lambda p: p.states[:-1].flatten(0, 1))
    return Batch(
        states,
        stacked(lambda p: p.actions[: p.horizon].flatten(0, 1)),
        stacked(rewards),
        stacked(lambda p: p.states[1:].flatten(0, 1)),
        states.new_zeros(states.shape[:2]),
    )


def gradient(learner, batch, seed):
    gradients = policy_gradients(learner, 0, batch, learner.draws)
    return -flattened(gradients, seed)


def wanted(learner, policy, path, steps, number):
    estimator = gradlab.Estimator(
        learner.task.simulator, learner.task.prior, "all",
        gradlab.Tail(steps, None, learner.task.discount),
    )  # fmt: skip
    return estimator.mean_gradient(policy, path.states[0], seed=number)


@pytest.mark.parametrize("parts", [(4,), (1, 3), (2, 2)])
def test_the_gradient_is_the_sum_of_the_estimators_along_the_paths_of_the_window(parts):
    # Where an episode ends in the window, the next one is a path of its own.
    learner = learner_of()
    made = [[path_of(learner, seed, n, 7 + k) for k, n in enumerate(parts)] for seed in range(2)]
    batch = batch_of([[path for _, path in pieces] for pieces in made])
    for seed in range(2):
        sums = sum(
            wanted(learner, policy, path, n, 7 + k)
            for k, (n, (policy, path)) in enumerate(zip(parts, made[seed], strict=True))
        )
        torch.testing.assert_close(gradient(learner, batch, seed), sums, rtol=1e-9, atol=1e-11)


def test_a_terminal_state_ends_a_path_even_where_the_next_row_goes_on():
    learner = learner_of()
    batch = batch_of([[path_of(learner, seed, 4, 7)[1]] for seed in range(2)])
    ended = batch.terminated.clone()
    ended[:, 5:10] = 1.0
    apart = replace(batch, terminated=ended)
    shifted = batch.next_state.clone()
    shifted[:, 5:10] += 100.0  # led elsewhere
    elsewhere = replace(batch, next_state=shifted)
    torch.testing.assert_close(gradient(learner, apart, 0), gradient(learner, elsewhere, 0))
    assert not torch.allclose(gradient(learner, apart, 0), gradient(learner, batch, 0))


def test_every_batch_is_the_newest_window_and_no_row_is_used_twice():
    run = begin(small(model=None), task(), Settings(**SMALL))
    seen = []
    for k in range(5):
        run.iteration = k
        collect(run)
        batch = next_batch(run)
        seen += batch.state[0].tolist()
        steps = batch.state.view(1, STEPS, 4, 3), batch.next_state.view(1, STEPS, 4, 3)
        goes_on = (steps[1][:, :-1] == steps[0][:, 1:]).all(dim=3)
        assert goes_on.float().mean() > 0.5
    assert len({tuple(state) for state in seen}) == 5 * STEPS * 4
