"""Runs that begin with a policy and a critic of the user's.

TD(λ) of V(s) and Q(s, a) along windows, against sums of n-step returns; fits in passes.

The papers' weights, at the iterations where their values are known in closed form.

RP-PGM's rows: a mixture of first states, h steps of the model, spectral norms.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradlab.cli.program import main
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.networks import checkpoint, spectral
from gradlab.networks.mlp import Policy, QCritic, VCritic
from gradlab.networks.policies import GaussianPolicy
from gradlab.runs.training.results import load
from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithms import find, with_changes, with_horizons, with_weights
from gradlab.training.first_networks import GivenNetworks
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.parts.context import Draws, FixedWeights, Newest, Passes
from gradlab.training.parts.critics import Copied, Polyak
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.window_losses import StateLambda
from gradlab.training.settings import Settings
from tests.training.small_runs import SMALL, assert_estimated, numbers, row, same_tables, task

LIMIT = (2.0, 1.0)
KINDS = ("policy", "critic")
STATES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def policy(hidden=(6,)):
    torch.manual_seed(1)
    return Policy(3, 2, hidden, "tanh", scale=(0.5, 1.0, 2.0), limit=LIMIT).double()


def critic():
    torch.manual_seed(2)
    return QCritic(3, 2, (4, 5), "softplus").double()


def begun(path, seed=0):
    """Policy and critic of a seed that were kept before the first update."""
    folder = path.with_name(path.stem + "-checkpoints") / "000000"
    return tuple(
        checkpoint.load(folder / f"seed{seed}-{kind}.safetensors").double()
        for kind in ("policy", "critic")
    )


def test_every_seed_begins_with_them_in_the_tasks_own_rewards_and_leaves_them_alone(tmp_path):
    given = policy(), critic()
    before = copy.deepcopy(given)
    path = train(
        row("mpg-v2"), task(), tmp_path / "run.h5", policy=given[0], critic=given[1],
        seeds=2, reward_scale=0.1, **SMALL,
    )  # fmt: skip
    for seed in range(2):
        own = begun(path, seed)
        torch.testing.assert_close(own[0](STATES), given[0](STATES), rtol=0, atol=0)
        actions = given[0](STATES)
        torch.testing.assert_close(own[1](STATES, actions), given[1](STATES, actions))
    assert not torch.equal(numbers(path, 0), numbers(path, 1))  # data of their own
    assert not torch.equal(begun(path)[0](STATES), torch.zeros(5, 2))
    for own, earlier in zip(given, before, strict=True):
        for after, first in zip(own.parameters(), earlier.parameters(), strict=True):
            assert torch.equal(after, first)


def test_a_stochastic_policy_and_a_state_value_begin_a_run_too(tmp_path):
    torch.manual_seed(3)
    own = GaussianPolicy(3, 2, (6,), squash=True, limit=LIMIT, log_std_bounds=(-1.0, 2.0))
    given = own.double(), VCritic(3, (6,)).double()
    path = train(row("svg"), task(), tmp_path / "run.h5", policy=given[0], critic=given[1], **SMALL)
    own = begun(path)
    torch.testing.assert_close(own[0].normal(STATES), given[0].normal(STATES), rtol=0, atol=0)
    torch.testing.assert_close(own[1](STATES), given[1](STATES), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_a_twin_begins_beside_the_given_critic_and_the_smaller_of_both_is_a_bound(name):
    given = critic().float()
    settings = Settings(seeds=2, precision="float32", given=GivenNetworks(None, given))
    learner = Learner(row(name), task(), settings)
    s, a = STATES.float().expand(2, -1, -1), torch.zeros(2, len(STATES), 2)
    first, twin = (
        learner.critic(torch.cat([s, a], 2).repeat_interleave(2, 0))[..., 0]
        .view(2, 2, -1)
        .unbind(1)
    )
    wanted = given(STATES.float(), a[0])
    torch.testing.assert_close(first, wanted.expand(2, -1))
    gap = (twin - first).norm(dim=1) / first.norm(dim=1)
    assert ((gap > 0.01) & (gap < 0.5)).all() and not torch.equal(twin[0], twin[1])
    assert (torch.minimum(first, twin) < first).any()


def test_a_run_goes_on_with_its_own_networks_and_with_no_others(tmp_path):
    scaled = {"critic": critic(), "reward_scale": 0.1, **SMALL}
    whole = train(row("ddpg"), task(), tmp_path / "whole.h5", policy=policy(), **scaled)

    def stop(stage, done, total):
        if done == 40:
            raise KeyboardInterrupt

    half = tmp_path / "half.h5"
    with pytest.raises(KeyboardInterrupt):
        train(row("ddpg"), task(), half, policy=policy(), progress=stop, **scaled)
    other = policy()
    with torch.no_grad():
        other.network[-3].bias += 1e-9
    for wrong in (other, None):
        with pytest.raises(InputError, match="given_networks"):
            train(row("ddpg"), task(), half, policy=wrong, resume=True, **scaled)
    train(row("ddpg"), task(), half, policy=policy(), resume=True, **scaled)
    same_tables(whole, half)


def test_the_command_line_takes_files_of_networks(tmp_path, capsys):
    files = {kind: tmp_path / "old-checkpoints" / f"{kind}.safetensors" for kind in KINDS}
    checkpoint.save(Policy(2, 1, (6,)), files["policy"])
    checkpoint.save(QCritic(2, 1, (5,)), files["critic"])
    words = ["train", "ddpg", "double_integrator", "--iterations", "4", "--agents", "4"]
    words += [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    run = tmp_path / "run.h5"
    assert main([*words, "--no-report", "--output", str(run), "--policy-rate", "1e-5"]) == 0
    own = begun(run)
    assert [each.architecture["hidden"] for each in own] == [[6], [5]]
    assert load(run).config["algorithm"]["policy_rate"] == [1e-5, 1e-5]
    assert main([*words, "--overwrite", "--output", str(tmp_path / "old.h5")]) == 2
    assert "which --overwrite removes" in capsys.readouterr().err
    assert all(file.exists() for file in files.values())


# Target networks follow by a share, by copies, or are none; and a run that has them resumes.


def batches(count):
    """As many of random transitions, of two seeds."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(2, 16, *shape, generator=generator, dtype=torch.float64)

    return [
        Batch(drawn(3), drawn(2), drawn(), drawn(3), drawn().gt(1).double()) for _ in range(count)
    ]


def learner_of(**changes):
    changed = replace(row("td3"), delay=2, **changes)
    return Learner(changed, task(), Settings(precision="float64", seeds=2, termination="mask"))


def differences(target, live):
    pairs = zip(target.parameters, live.parameters, strict=True)
    return sum(float((a - b).detach().abs().sum()) for a, b in pairs)


def test_polyak_moves_by_its_share_when_the_policy_is_updated():
    learner = learner_of()
    target, moved = learner.target_critic, learner.critic.copied()
    for parameter in moved.parameters:
        parameter += 1
    wanted = [0.75 * parameter + 0.25 * (parameter + 1) for parameter in target.copied().parameters]
    Polyak(0.25)(target, moved, 0, False)
    assert differences(target, learner.critic) == 0
    Polyak(0.25)(target, moved, 0, True)
    torch.testing.assert_close(target.parameters, wanted)


def test_copies_are_made_every_so_many_updates_of_the_critic_and_of_it_alone():
    learner = learner_of(target_critic=Copied(3))
    for k, batch in enumerate(batches(7)):
        learner.update(k, batch)
        fresh = differences(learner.target_critic, learner.critic) == 0
        assert fresh == (k in (2, 5))
        assert differences(learner.target_policy, learner.policy) > 0  # by τ


def test_a_copy_after_every_update_leaves_no_network_of_its_own():
    learner = learner_of(target_critic=Copied(), target_policy=Copied())
    for k, batch in enumerate(batches(4)):  # the policy is updated in every second one
        learner.update(k, batch)
        assert differences(learner.target_critic, learner.critic) == 0
        assert differences(learner.target_policy, learner.policy) == 0


STEPS, AGENTS, GAMMA = 6, 4, 0.9


def window(generator, ends=(), truncated=()):
    """States of one seed that follow one another, but after (step, agent) in `ends` and
    `truncated`."""

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    states, after = drawn(STEPS, AGENTS, 3), drawn(STEPS, AGENTS, 3)
    terminated = torch.zeros(STEPS, AGENTS, dtype=torch.float64)
    for t, agent in ends:
        terminated[t, agent] = 1.0
    for t in range(STEPS - 1):
        for agent in range(AGENTS):
            if (t, agent) not in (*ends, *truncated):
                after[t, agent] = states[t + 1, agent]
    parts = states, drawn(STEPS, AGENTS, 2), drawn(STEPS, AGENTS), after, terminated
    return Batch(
        *(x.flatten(0, 1)[None] for x in parts), policy_noise=drawn(STEPS * AGENTS, 2)[None]
    )


def wanted(learner, batch, target, masked):
    """(1 − λ) Σ λⁿ⁻¹ (n-step return) + λᵀ⁻¹ (the longest), step by step and agent by agent."""
    alpha, scale = target.temperature, learner.settings.reward_scale
    _, log_prob = learner.acting.draw(learner.policy, batch.state, batch.policy_noise)
    earned = (scale * batch.reward - alpha * log_prob)[0].detach().view(STEPS, AGENTS)
    ahead = ()
    if target.actions:  # drawn path by path
        noise = learner.context(0, learner.draws).along("tail actions", 1, STEPS * AGENTS, 2)[0]
        noise = noise.view(1, AGENTS, STEPS, 2).transpose(1, 2).flatten(1, 2)
        ahead = learner.acting.draw(learner.policy, batch.next_state, noise)
    value = learner.valuing.least(learner.target_critic)(batch.next_state, *ahead)
    value = value[0].view(STEPS, AGENTS)
    ended = batch.terminated[0].view(STEPS, AGENTS) > 0.5
    states, after = (x[0].view(STEPS, AGENTS, 3) for x in (batch.state, batch.next_state))
    targets = torch.zeros(STEPS, AGENTS, dtype=torch.float64)
    for agent in range(AGENTS):
        for begin in range(STEPS):
            returns, total = [], 0.0
            for t in range(begin, STEPS):
                n = t - begin + 1
                own = scale * batch.reward[0].view(STEPS, AGENTS)[t, agent]
                first = target.actions and t == begin  # whose entropy is added to Q
                total = total + GAMMA ** (n - 1) * (own if first else earned[t, agent])
                beyond = 0.0 if masked and ended[t, agent] else value[t, agent]
                returns.append(total + GAMMA**n * beyond)
                last = t + 1 == STEPS or not torch.equal(after[t, agent], states[t + 1, agent])
                if last or ended[t, agent]:
                    break
            *early, longest = returns
            mixed = sum((1 - target.trace) * target.trace**k * x for k, x in enumerate(early))
            targets[begin, agent] = mixed + target.trace ** len(early) * longest
    return targets.flatten()


@pytest.mark.parametrize(
    "target",
    [
        StateLambda(0.7),
        StateLambda(0.0),
        StateLambda(1.0),
        StateLambda(0.9, 2, temperature=0.3),
        StateLambda(0.9, temperature=0.3, actions=True),
    ],
)
@pytest.mark.parametrize("termination", ["mask", "ignore"])
def test_targets_are_weighted_sums_of_n_step_returns(target, termination):
    algorithm = replace(row("abpt" if target.actions else "shac"), source=Newest(4), target=target)
    settings = Settings(**SMALL | {"termination": termination, "reward_scale": 0.5})
    learner = Learner(algorithm, task(), settings)
    generator = torch.Generator().manual_seed(3)
    batch = window(generator, ends=[(1, 0), (4, 2)], truncated=[(2, 1), (0, 2)])
    made = target(learner.context(0, learner.draws), batch)
    right = wanted(learner, batch, target, termination == "mask")
    torch.testing.assert_close(made[0].detach(), right)


def test_passes_meet_every_row_once_in_an_order_of_their_own():
    draws = Draws((0, 1), torch.float64, "cpu")
    state = torch.arange(20, dtype=torch.float64).view(1, 10, 2).expand(2, -1, -1)
    target = torch.arange(10, dtype=torch.float64).expand(2, -1)
    batch = Batch(state, state, target, state, torch.zeros_like(target))
    steps = list(Passes(2, 3)(draws, 7, batch, target))
    assert [len(rows.reward[0]) for rows, _ in steps] == 2 * [4, 4, 2]
    for rows, goals in steps:
        torch.testing.assert_close(rows.reward, goals)
        torch.testing.assert_close(rows.state[..., 0], 2 * goals)
    for first in (0, 3):
        seen = torch.cat([goals for _, goals in steps[first : first + 3]], dim=1)
        assert seen.sort(dim=1).values.tolist() == target.tolist()
    orders = [torch.cat([g for _, g in steps[k : k + 3]], dim=1) for k in (0, 3)]
    assert not torch.equal(*orders) and not torch.equal(orders[0][0], orders[0][1])
    again = list(Passes(2, 3)(draws, 7, batch, target))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(steps, again, strict=True))
    assert [rows for rows, _ in Passes()(draws, 7, batch, target)] == [batch]


ENDS = (0, 25)


@pytest.mark.parametrize("ramp", [9000, 4000])
def test_mpg_begins_with_the_model_and_ends_with_the_data(ramp):
    rule = MpgWeights(eta=0.1, ramp=ramp)
    model = 1 / (1 + math.exp(1 - 0.9**-25))
    assert rule(0, ENDS)[1] == pytest.approx(model, abs=1e-12)
    assert model == pytest.approx(0.9999976, abs=1e-7)
    assert rule(ramp // 2, ENDS) == pytest.approx([0.5, 0.5], abs=1e-9)
    assert rule(ramp, ENDS)[0] == pytest.approx(model, abs=1e-12)
    assert rule(10 * ramp, ENDS)[0] == pytest.approx(model, abs=1e-12)


def test_weights_of_many_horizons_sum_to_one_and_change_sides():
    rule = MpgWeights(eta=0.1, ramp=100)
    early, late = rule(0, (0, 5, 10, 25)), rule(100, (0, 5, 10, 25))
    assert early.sum() == pytest.approx(1) and late.sum() == pytest.approx(1)
    assert (np.diff(early) > 0).all() and (np.diff(late) < 0).all()


# Mixtures whose weights are given, such as those that a measurement has chosen.


def trained(row, path):
    train(row, task(), path, **SMALL)
    (policy,) = path.with_name(f"{path.stem}-checkpoints").glob("*60/seed0-policy.safetensors")
    return torch.cat([p.flatten() for p in checkpoint.load(policy).parameters()])


def test_the_mixture_follows_the_given_weights(tmp_path):
    """All weight on h = 0 is the row of one term, whose loss is written down elsewhere."""
    mixed = trained(with_weights(row("mpg-v2"), (1.0, 0.0), (0, 3)), tmp_path / "mixed.h5")
    alone = trained(with_weights(row("mpg-v2"), (1.0,), (0,)), tmp_path / "alone.h5")
    other = trained(with_weights(row("mpg-v2"), (0.0, 1.0), (0, 3)), tmp_path / "other.h5")
    assert torch.allclose(mixed, alone, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(mixed, other, rtol=1e-3)


def test_one_horizon_without_0_can_be_followed():
    chosen = with_weights(find("mpg-v2"), (1,), (14,))
    assert chosen.terms == (Term(14, "first"),) and chosen.weights == FixedWeights((1.0,))


ALPHA = find("rp-dp").target.temperature


def smooth(name, horizon, beta):
    """A row on the prior, smooth, with another horizon and law of first states."""
    changed = with_changes(with_horizons(row(name), (horizon,)), beta=beta)
    return replace(changed, model=None, activation="tanh", policy_spectral=None)


@pytest.mark.parametrize(("beta", "horizon"), [(0.5, 3), (1.0, 2), (0.0, 1), (0.5, 0)])
def test_the_gradient_is_that_of_the_estimator_from_the_mixture_of_laws(beta, horizon):
    assert_estimated(smooth("rp-dp", horizon, beta), task(), fresh=1 - beta, alpha=ALPHA)


def test_layers_are_those_of_the_paper_and_held_at_norm_one_where_they_are_normalised(tmp_path):
    plain, held = find("rp-dp"), find("rp-dp-sn")
    assert plain.activation == plain.model.activation == "relu"
    assert len(plain.hidden) + 1 == 4 and len(plain.model.hidden) + 1 == 5
    assert replace(held, name="rp-dp", policy_spectral=None, model=plain.model) == plain
    train(row("rp-dp-sn"), replace(task(), prior=None), tmp_path / "run.h5", **SMALL)
    folder = tmp_path / "run-checkpoints" / "000060"
    policy, model = (
        spectral.norms(checkpoint.load(folder / f"seed0-{kind}.safetensors"))
        for kind in ("policy", "prediction")
    )
    # The policy's norms are power iterations', which follow the weights.
    assert [max(layer.values) for layer in policy] == pytest.approx([1.0] * len(policy), rel=0.02)
    sizes = [value for layer in model[:-1] for value in layer.values]
    assert sizes == pytest.approx([1.0] * len(sizes), rel=1e-6)
