"""SVG(1): replayed transitions, noise inferred, a critic of states, importance weights.

On-policy windows, each used once, and SVG(∞), which follows their paths without a critic.
Backpropagation through time: no critic, from states in which episodes begin.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import as_starts
from gradlab.networks import checkpoint
from gradlab.networks.mlp import VCritic
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.parts.context import Newest
from gradlab.training.parts.critics import ImportanceWeighted, NoCritic
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.run import collect, next_batch
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import (
    SMALL,
    assert_estimated,
    flattened,
    other,
    policy_gradients,
    push,
    row,
    task,
)

GAMMA = 0.9


def wrong_model():
    return from_function(other, state_dim=3, action_dim=2, noise_dim=3)


def learner_with(model, **settings):
    chosen = replace(task(), prior=model)
    changed = replace(row("svg"), activation="tanh", model=None)
    return Learner(changed, chosen, Settings(precision="float64", seeds=2, **settings))


def simulated(learner, member):
    """A transition of the simulator from each of 16 states, by the policy of one seed."""
    policy = learner.policy_of(member).double()
    starts = as_starts(torch.randn(16, 3, dtype=torch.float64), 3)
    return policy, rollout(learner.task.simulator, policy, starts, 1, seed=7)


def batch_of(learner, paths):
    """The first transitions of every seed's path, collected by the policies as they are."""
    state, action = (
        torch.stack(parts)
        for parts in zip(*((p.states[0], p.actions[0]) for p in paths), strict=True)
    )
    after = torch.stack([path.states[1] for path in paths])
    reward = torch.stack([push(p.states[0], p.actions[0], p.dynamics_noise[0])[1] for p in paths])
    noise = torch.stack([path.policy_noise[0] for path in paths])
    _, density = learner.acting.draw(learner.policy, state, noise)
    return Batch(state, action, reward, after, torch.zeros_like(reward), density.detach())


def test_the_gradient_is_that_of_the_estimator_on_real_states_with_the_models_jacobians():
    model = wrong_model()
    learner = learner_with(model, termination="ignore")
    pairs = [simulated(learner, member) for member in range(2)]
    gradients = policy_gradients(
        learner, 0, batch_of(learner, [path for _, path in pairs]), learner.draws
    )
    for member, (policy, path) in enumerate(pairs):
        tail = gradlab.Tail(1, learner.critic_of(member).double(), GAMMA, value="V")
        estimator = gradlab.Estimator(learner.task.simulator, model, "all", tail)
        wanted = estimator.mean_gradient(policy, path.states[0], seed=7)
        torch.testing.assert_close(-flattened(gradients, member), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("bounds", "least"), [(None, -1.0), ((-5.0, 2.0), -5.0)])
def test_sigma_does_not_collapse_below_its_bound(bounds, least):
    chosen = row("svg") if bounds is None else replace(row("svg"), log_std=bounds)
    learner = Learner(replace(chosen, model=None), task(), Settings(precision="float64"))
    with torch.no_grad():
        learner.policy.parameters[-1][:, :, 2:] = -50.0  # as low as it can be made
    state = torch.randn(1, 50, 3, dtype=torch.float64)
    exported = learner.policy_of(0).double()
    assert exported.normal(state[0])[1].max().item() == pytest.approx(least, abs=1e-9)
    noise = torch.ones(1, 50, 2, dtype=torch.float64)
    action, _ = learner.acting.draw(learner.policy, state, noise)
    torch.testing.assert_close(exported(state[0], noise[0]), action[0])
    # A draw of σ away is as likely as its σ says: ratios of replayed actions stay alive.
    latent = torch.atanh(action / learner.limit) - torch.atanh(
        learner.acting.act(learner.policy, state) / learner.limit
    )
    torch.testing.assert_close(
        latent, torch.full_like(latent, float(np.exp(least))), rtol=1e-5, atol=1e-6
    )


def test_weights_are_ratios_of_densities_and_have_a_largest():
    learner = learner_with(wrong_model())
    batch = batch_of(learner, [simulated(learner, member)[1] for member in range(2)])
    halved = replace(batch, log_prob=batch.log_prob - np.log(3.0))
    same, three, most = (
        weighted_loss(learner, given, limit)
        for given, limit in ((batch, 10.0), (halved, 10.0), (halved, 2.0))
    )
    torch.testing.assert_close(three, 3 * same)
    torch.testing.assert_close(most, 2 * same)
    value = learner.valuing.every(learner.critic, batch.state, None)
    torch.testing.assert_close(same, 0.5 * (1 - value).square().mean(dim=2))


def weighted_loss(learner, batch, most):
    """Of critics whose targets are 1."""
    seen = []

    class Seen(ImportanceWeighted):
        def __call__(self, context, given, critics, target):
            loss, value = super().__call__(context, given, critics, torch.ones_like(target))
            seen.append(loss.detach())
            return loss, value

    changed = replace(learner.algorithm, critic_loss=Seen(most))
    fresh = Learner(changed, learner.task, learner.settings)
    fresh.load(learner.state())
    fresh.update(0, batch)
    return seen[0]


@pytest.mark.parametrize("termination", ["ignore", "mask"])
def test_the_target_is_the_reward_and_the_target_critic_at_the_next_state(termination):
    learner = learner_with(wrong_model(), termination=termination, reward_scale=0.5)
    batch = batch_of(learner, [simulated(learner, member)[1] for member in range(2)])
    ended = torch.zeros_like(batch.reward)
    ended[:, ::3] = 1.0
    batch = replace(batch, terminated=ended)
    learner.update(0, batch)
    after = learner_with(wrong_model()).valuing.every(learner.target_critic, batch.next_state, None)
    going_on = 1 - ended if termination == "mask" else 1.0
    wanted = 0.5 * batch.reward + GAMMA * going_on * after[:, 0]
    torch.testing.assert_close(learner.state()["cached_targets"], wanted)


def test_a_learned_model_gives_its_mean_jacobians(tmp_path):
    path = train(row("svg"), replace(task(), prior=None), tmp_path / "run.h5", **SMALL, seeds=2)
    run = read(path)
    assert np.isfinite(run.groups["updates"]["policy_loss"].values).all()
    assert (run.groups["updates"]["realised_horizon"].values == 1).all()
    assert "model" in run.groups
    critic = checkpoint.load(tmp_path / "run-checkpoints" / "000060" / "seed0-critic.safetensors")
    assert isinstance(critic, VCritic) and critic(torch.zeros(4, 3)).shape == (4,)


HORIZON = 4


def bptt_learner(**changes):
    small = replace(row("bptt"), terms=(Term(HORIZON, "all"),), activation="tanh", **changes)
    return Learner(small, task(), Settings(precision="float64", seeds=2, termination="ignore"))


def batch_from(state):
    nothing = state.new_zeros(state.shape[:2])
    return Batch(state, state[..., :2], nothing, state, nothing)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_gradient_is_that_of_the_estimator_without_a_tail_from_its_starts(share):
    terms = (Term(HORIZON, "all"),)
    smooth = replace(row("bptt"), terms=terms, activation="tanh", loss=MixtureLoss(beta=1 - share))
    assert_estimated(smooth, task(), fresh=share)


def test_nothing_of_a_critic_is_trained_saved_or_recorded(tmp_path):
    path = train(row("bptt"), task(), tmp_path / "run.h5", **SMALL, seeds=2)
    kept = {file.name for file in (tmp_path / "run-checkpoints" / "000060").iterdir()}
    assert kept == {"seed0-policy.safetensors", "seed1-policy.safetensors", "states.h5"}
    updates = read(path).groups["updates"]
    assert (updates["critic_norm"].values == 0).all() and (updates["nonfinite"].values == 0).all()
    assert (updates["policy_norm"].values > 0).all()
    assert not any("critic" in name for name in bptt_learner().state())
    assert NoCritic()(None, batch_from(torch.ones(2, 3, 3))).tolist() == [[0.0] * 3] * 2


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


def batch_of_windows(paths_of_seeds):
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
    batch = batch_of_windows([[path for _, path in pieces] for pieces in made])
    for seed in range(2):
        sums = sum(
            wanted(learner, policy, path, n, 7 + k)
            for k, (n, (policy, path)) in enumerate(zip(parts, made[seed], strict=True))
        )
        torch.testing.assert_close(gradient(learner, batch, seed), sums, rtol=1e-9, atol=1e-11)


def test_a_terminal_state_ends_a_path_even_where_the_next_row_goes_on():
    learner = learner_of()
    batch = batch_of_windows([[path_of(learner, seed, 4, 7)[1]] for seed in range(2)])
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
