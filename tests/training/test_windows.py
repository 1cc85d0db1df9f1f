"""On-policy windows, each used once, and SVG(∞), which follows their paths without a critic."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import as_starts
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.replayed_losses import ReplayedPath
from gradlab.training.parts.sources import Newest
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import SMALL, flattened, listed, push, row, task

STEPS = 4


def other(state, action, noise):
    """A model that errs in states and Jacobians."""
    after, reward = push(state, action, noise)
    return after + 0.2 * torch.cos(state) * action[:, :1], reward + 0.3 * state[:, 0] * action[:, 1]


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
    gradients = learner.policy_gradients(0, batch, learner.draws)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reuse": 2}, "has reuse 2, but an on-policy batch is new"),
        ({"source": Newest(5)}, "take windows of as many steps"),
        ({"source": find("sac").source}, "take windows of as many steps"),
        ({"policy": "deterministic"}, "which has no entropy, but a target for stochastic"),
    ],
)
def test_rows_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(find("svg-inf"), **changes)
    with pytest.raises(InputError, match="take windows of as many steps"):
        with_horizons(find("svg-inf"), (0,))
    for horizon, steps in ((5, 30), (32, 32), (40, 40)):
        assert with_horizons(find("svg-inf"), (horizon,)).source == Newest(steps)
    with pytest.raises(InputError, match="windows of 32 steps of 8 agents, but its replay holds 9"):
        replace(find("svg-inf"), replay=9).rows(8)
    with pytest.raises(InputError, match="steps is 0"):
        Newest(0)
    assert ReplayedPath().paths


def test_a_run_counts_the_transitions_that_its_windows_are_made_of(tmp_path):
    path = train(small(), replace(task(), prior=None), tmp_path / "run.h5", **SMALL, seeds=2)
    counted = read(path).groups["evaluations"]["transitions"].values.tolist()
    assert counted == [0, 64 + 29 * 16, 64 + 59 * 16]  # the first window ends the warm-up
    for word in ("J_32", "on policy, windows of 32 steps", "noise inferred", "no critic"):
        assert word in listed("svg-inf")


def test_it_learns(tmp_path):
    quick = replace(small(model=None), policy_rate=(3e-3, 3e-4), hidden=(16, 16))
    options = SMALL | {"iterations": 150, "evaluate_every": 150}
    path = train(quick, task(), tmp_path / "run.h5", **options, seeds=3)
    returns = read(path).groups["evaluations"]["return_mean"].values
    assert (returns[-1] > returns[0] / 2).all(), returns
