"""All seeds' models in one program against each model alone; replay as rows of a fit.

Adam on given gradients, beside torch's.

MAAC at H = 3: entropy inside the sum, several paths per state, every action with θ.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.data.replay import Batch, Replay
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import windows
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, predict
from gradlab.systems import from_function
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.training.algorithm import LOSSES, LearnedModel
from gradlab.training.algorithms import find
from gradlab.training.dynamics import PIECE, Dynamics, NearestRows, experience
from gradlab.training.members import Adam, Trained, stacked
from gradlab.training.parts.context import Context, Draws, Objective
from gradlab.training.parts.critics import Soft
from gradlab.training.parts.policy_losses import MixtureLoss, Term
from gradlab.training.seed_models import SeedModels, SeedTwoModels, dealt
from tests.training.small_runs import assert_estimated

SEEDS, MEMBERS, N = 2, 3, 7  # members do not divide the rows


def ensemble(members, seed):
    torch.manual_seed(seed)
    return GaussianEnsemble(3, 2, members, (8,)).double().requires_grad_(False)


def numbers(seed=0, members=MEMBERS):
    return ensemble(SEEDS * members, seed).numbers(torch.zeros(1, dtype=torch.float64))


def inputs(seed=5):
    generator = torch.Generator().manual_seed(seed)
    draw = (torch.randn(SEEDS * N, k, generator=generator, dtype=torch.float64) for k in (3, 2, 6))
    return tuple(draw)


def test_every_row_meets_the_member_that_its_rank_deals():
    found, (state, action, noise) = numbers(), inputs()
    got = dealt(found, SEEDS, torch.cat([state, action], dim=1), noise[:, -1])
    everyone = predict(found, torch.cat([state, action], dim=1))
    for seed in range(SEEDS):
        rank = noise[seed * N : (seed + 1) * N, -1].argsort().argsort()
        for row in range(N):
            member, at = seed * MEMBERS + int(rank[row]) % MEMBERS, seed * N + row
            torch.testing.assert_close(got.mean[at], everyone.mean[member, at])
            torch.testing.assert_close(got.std[at], everyone.std[member, at])


def test_a_step_is_that_of_the_learned_system_with_the_same_member():
    whole, (state, action, noise) = ensemble(SEEDS * MEMBERS, 0), inputs()
    model = SeedModels(numbers(), SEEDS, alive=lambda s: s[:, 0] > 0)
    assert model.noise_dim == 5
    after = model.step(state, action, noise[:, :5])
    for seed in range(SEEDS):
        rows = slice(seed * N, (seed + 1) * N)
        elites = tuple(range(seed * MEMBERS, (seed + 1) * MEMBERS))
        system = LearnedSystem(whole, alive=lambda s: s[:, 0] > 0, elites=elites)
        drawn = noise[rows, :5].clone()
        drawn[:, -1] = (drawn[:, -1].argsort().argsort() % MEMBERS + 0.5) / MEMBERS
        wanted = system.step(state[rows], action[rows], drawn)
        torch.testing.assert_close(after.state[rows], wanted.state)
        torch.testing.assert_close(after.reward[rows], wanted.reward)
        assert torch.equal(after.alive[rows], wanted.alive)


def test_jacobians_of_two_models_are_the_gradient_models():
    state, action, noise = inputs()
    parts = [SeedModels(numbers(k, 1), SEEDS) for k in (0, 1)]
    model = SeedTwoModels(*parts)
    assert model.noise_dim == 6
    leaves = [x.clone().requires_grad_() for x in (state, action)]
    after = model.step(*leaves, noise)
    weight = torch.linspace(1, 2, 3, dtype=torch.float64)
    loss = (after.state * weight).sum() + 3 * after.reward.sum()
    slopes = torch.autograd.grad(loss, leaves)
    for seed in range(SEEDS):
        rows = slice(seed * N, (seed + 1) * N)
        systems = [LearnedSystem(ensemble(SEEDS, k), elites=(seed,)) for k in (0, 1)]
        exact = TwoModels(*systems).linearize(state[rows], action[rows], None)
        wanted = torch.einsum("i,nij->nj", weight, exact.A) + 3 * exact.r_s
        torch.testing.assert_close(slopes[0][rows], wanted)
        wanted = torch.einsum("i,nij->nj", weight, exact.B) + 3 * exact.r_a
        torch.testing.assert_close(slopes[1][rows], wanted)
        drawn = noise[rows, :5] * torch.tensor([1, 1, 1, 1, 0])  # the one member there is
        alone = systems[0].step(state[rows], action[rows], drawn)
        torch.testing.assert_close(after.state[rows].detach(), alone.state)


def filled(steps, agents=4, capacity=1000, dtype=torch.float32):
    """Two seeds whose environments walk on by known amounts; every episode ends after 17 steps."""
    replay = Replay(2, capacity, 2, 1, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(2, agents, 2, generator=generator)
    for t in range(steps):
        action = torch.randn(2, agents, 1, generator=generator)
        after = state + 0.1 * action + torch.tensor([0.0, 1.0])
        ends = torch.zeros(2, agents, dtype=torch.bool)
        if t % 17 == 16:
            ends[:, 0] = True  # of the first environment, at a terminal state
        replay.add(state, action, state[..., 0], after, ends)
        fresh = torch.randn(2, agents, 2, generator=generator)
        state = fresh if t % 17 == 16 else after
    return replay


def test_rows_follow_the_environments_of_their_seed():
    replay = filled(60)
    found = experience(replay, agents=4)
    record, per_seed = found.rows.record, len(found.numbers)
    assert found.seeds == 2 and per_seed == 240
    assert torch.equal(record.state[:per_seed], replay.rows[0, found.numbers, :2])
    for steps in (2, 5):
        every = torch.arange(2 * per_seed)
        for row in windows(record, every, steps).tolist():
            for k in range(steps - 1):
                assert torch.equal(record.next_state[row + k], record.state[row + k + 1])
                assert row // per_seed == (row + k + 1) // per_seed
    # 60 steps are three episodes of 17 and one of 9, of 4 environments and 2 seeds
    assert len(torch.unique(record.trajectory)) == 4 * 4 * 2


def test_what_is_held_out_stays_held_out_while_replay_grows_and_forgets():
    early, late = (experience(filled(steps), agents=4) for steps in (40, 200))
    short = experience(filled(200, capacity=300), agents=4)
    latest = experience(filled(200), agents=4, latest=120)
    held = {int(number) for number in late.numbers[late.held]}
    for found in (early, short, latest):
        own = {int(number) for number in found.numbers[found.held]}
        assert own == held & {int(number) for number in found.numbers}
    assert len(latest.numbers) == 120 and int(short.numbers.min()) == 500
    assert len(held) == pytest.approx(800 / 10, abs=4 * PIECE)


def brute_force(found, seed, scale, count):
    """Nearest training rows of one seed, by all distances."""
    per_seed = len(found.numbers)
    rows = found.part(False)
    rows = rows[rows // per_seed == seed]
    record = found.rows.record
    points = torch.cat([record.state, record.action], dim=1)[rows].double() / scale
    distance = torch.cdist(points, points)
    distance.fill_diagonal_(torch.inf)
    near = distance.topk(count, largest=False)
    return rows, rows[near.indices], near.values**2


@pytest.mark.parametrize("capacity", [1000, 230])
def test_neighbours_that_grow_are_those_of_a_search_through_all(capacity):
    search = NearestRows(DirectionalDerivative(neighbours=4))
    for steps in (30, 45, 60):
        found = experience(filled(steps, capacity=capacity), agents=4)
        index, square, repeated = search.near(found)
    fresh = NearestRows(DirectionalDerivative(neighbours=4))
    fresh.scale = search.scale
    again = fresh.near(found)
    assert torch.equal(again[0], index) and torch.equal(again[1], square) and repeated == 0
    for seed in range(2):
        rows, near, distance = brute_force(found, seed, search.scale[seed], 4)
        assert torch.equal(index[rows], near)
        torch.testing.assert_close(square[rows].double(), distance, rtol=1e-4, atol=1e-6)


def network(members=2):
    torch.manual_seed(1)
    modules = [
        torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ELU(), torch.nn.Linear(8, 2))
        for _ in range(members)
    ]
    return stacked(modules, "elu", torch.float64, "cpu")


def test_the_gradient_of_held_weights_is_that_of_weights_over_their_norm():
    trained, x = Trained(network(), 1e-3, None, "all"), torch.randn(2, 5, 3).double()
    for _ in range(200):  # until the power iteration is exact
        trained.adam.rate = 0.0
        trained.step(trained.network(x).sum())
    loss = trained.network(x).square().sum()
    got = torch.autograd.grad(loss, trained.raw.parameters)
    weights = [w.detach().clone().requires_grad_() for w in trained.raw.layers.weights]
    biases = [b.detach() for b in trained.raw.layers.biases]
    plain = [w / torch.linalg.matrix_norm(w, ord=2)[:, None, None] for w in weights]
    y = torch.nn.functional.elu(x @ plain[0] + biases[0]) @ plain[1] + biases[1]
    wanted = torch.autograd.grad(y.square().sum(), weights)
    for ours, theirs in zip(got[:2], wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def dynamics_of(loss="nll", **changes):
    world = from_function(lambda s, a: (s + a, s[:, 0]), state_dim=2, action_dim=1)
    task = gradlab.Task("walk", world, None, lambda n, g: torch.zeros(n, 2), 0.9, 5)
    choice = LearnedModel(
        LOSSES[loss], members=2, hidden=(8,), first_steps=5, steps=5, batch=16, **changes
    )
    return Dynamics(choice, task, Draws((0, 1), torch.float32, "cpu"), agents=4)


def test_a_model_without_a_likelihood_draws_noise_as_large_as_its_held_out_error():
    dynamics, found = dynamics_of("multistep"), experience(filled(60), agents=4)
    dynamics.fit(filled(60))
    ensemble, record = dynamics.ensembles_of(1)["prediction"], found.rows.record
    rows = found.part(True)[found.part(True) // len(found.numbers) == 1]
    said = ensemble(record.state[rows], record.action[rows])
    wanted = torch.cat([record.next_state, record.reward[:, None]], dim=1)[rows]
    error = (said.mean - wanted).square().mean(dim=1).sqrt()
    # The report takes 1024 rows evenly spread over these 24: some count once more.
    torch.testing.assert_close(said.std[:, 0], error, rtol=0.02, atol=1e-4)


def test_cold_fits_begin_anew_and_warm_ones_go_on():
    steps = []
    for warm in (True, False):
        dynamics, replay = dynamics_of(warm_start=warm), filled(60)
        first = dynamics.fit(replay)
        before = dynamics.ensembles_of(0)["prediction"].network.linear[0].weight.clone()
        second = dynamics.fit(replay)
        moved = dynamics.ensembles_of(0)["prediction"].network.linear[0].weight - before
        assert (moved.abs().max() < 0.05) == warm  # five steps of 0.001
        steps.append((first.steps, second.steps))
    assert steps == [(5, 10), (5, 10)]


def test_members_that_diverge_are_put_back_and_counted():
    dynamics, replay = dynamics_of(), filled(60)
    assert dynamics.fit(replay).reports["prediction"].restored.tolist() == [0, 0]
    ensembles = dynamics.roles["prediction"]
    with torch.no_grad():
        ensembles.ensemble.network.linear[0].weight[3] = 1e30  # of the second seed
    report = dynamics.fit(replay).reports["prediction"]
    assert report.restored.tolist() == [0, 1]
    sound = ensembles.of(0)
    assert all(p.isfinite().all() for p in sound.parameters())
    assert report.held_out[0].isfinite()


RATES = (1e-2, 1e-3, 1e-3)


def leaves(dtype):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=dtype) for shape in ((2, 3, 4), (2, 1, 4))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_torch_optim(dtype):
    ours, theirs = leaves(dtype), leaves(dtype)
    own, other = Adam(ours, 0.0), torch.optim.Adam(theirs, fused=False, foreach=False)
    torch.manual_seed(1)
    for rate in RATES:
        gradients = [torch.randn_like(x) for x in ours]
        own.rate = other.param_groups[0]["lr"] = rate
        own.step(gradients)
        for leaf, gradient in zip(theirs, gradients, strict=True):
            leaf.grad = gradient
        other.step()
    eps = torch.finfo(dtype).eps
    for k, leaf in enumerate(theirs):
        torch.testing.assert_close(ours[k], leaf, rtol=10 * eps, atol=10 * eps)
        for name, value in other.state[leaf].items():
            mine = own.state()["step" if name == "step" else f"{k}.{name}"]
            torch.testing.assert_close(mine, value, rtol=10 * eps, atol=eps)


LAYOUTS = {
    "transposed": lambda g: g.transpose(-1, -2).contiguous().transpose(-1, -2),
    "strided": lambda g: torch.stack([g, -g], dim=-1)[..., 0],
    "expanded": lambda g: g[:, :1].expand(g.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("transposed", [False, True], ids=["parameters", "transposed parameters"])
def test_a_gradient_is_applied_entry_by_entry_whatever_its_strides(layout, transposed):
    ours, theirs = leaves(torch.float64), leaves(torch.float64)
    if transposed:
        ours = [LAYOUTS["transposed"](x) for x in ours]
    own, other = Adam(ours, 0.01), torch.optim.Adam(theirs, 0.01, fused=False, foreach=False)
    torch.manual_seed(1)
    for _ in range(5):
        gradients = [LAYOUTS[layout](torch.randn_like(x)) for x in theirs]
        own.step(gradients)
        for leaf, gradient in zip(theirs, gradients, strict=True):
            leaf.grad = gradient
        other.step()
    for mine, leaf in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, leaf, rtol=1e-14, atol=1e-14)


def test_a_saved_state_goes_on_bit_for_bit():
    first, gradients = leaves(torch.float32), leaves(torch.float32)
    adam = Adam(first, 1e-2)
    adam.step(gradients)
    second = [x.clone() for x in first]
    again = Adam(second, 1e-2)
    again.load({name: value.clone() for name, value in adam.state().items()})
    for each in (adam, again):
        each.step(gradients)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


GAMMA, ALPHA = 0.9, 0.2


def push(state, action, noise):
    moved = 0.9 * state + 0.3 * torch.sin(state.roll(1, 1)) + 0.1 * noise
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0] * state[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1) + state[:, 0] * action[:, 1]


def ends_far_out(state):
    return state[:, 0].abs() < 1.0


def task(alive=None):
    world = from_function(push, state_dim=3, action_dim=2, noise_dim=3, alive=alive)

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, world, starts, GAMMA, 5, action_limit=(2.0, 1.0))


@pytest.mark.parametrize("termination", ["ignore", "mask"])
@pytest.mark.parametrize(("horizon", "samples"), [(3, 1), (3, 4), (1, 2)])
def test_the_gradient_is_that_of_the_estimator_with_entropy(horizon, samples, termination):
    row = replace(
        find("maac-no-steve"), hidden=(8, 8), activation="tanh", batch=16, model=None,
        terms=(Term(horizon, "all"),), target=Soft(ALPHA), loss=MixtureLoss(samples),
    )  # fmt: skip
    world = task(ends_far_out)
    assert_estimated(row, world, alpha=ALPHA, samples=samples, termination=termination)


def test_every_action_of_the_sum_counts_its_entropy():
    # Without rewards and critic what is left is −α Σ_{t ≤ H} γᵗ log π_t of the policy's actions.
    def act(state, noise):
        return noise, noise.sum(dim=2)

    def starts(n, generator):
        return torch.zeros(n, 2)

    def noise_of(state, action):
        return action

    def entropy_alone(state, action, log_prob):
        return -ALPHA * log_prob

    still = from_function(lambda s, a: (s, s.new_zeros(len(s))), state_dim=2, action_dim=2)
    first, later = torch.ones(1, 4, 2).double(), 3 * torch.ones(1, 3, 4, 2).double()

    class Draws:
        def normal(self, name, iteration, shape):
            return {"action": first, "later actions": later}[name]

    context = Context(
        Objective(GAMMA, temperature=ALPHA), act, act, act, noise_of, entropy_alone, entropy_alone,
        starts, still, still, Draws(), 0, noise_dim=2,
    )  # fmt: skip
    state, zeros = torch.zeros(1, 4, 2).double(), torch.zeros(1, 4).double()
    batch = Batch(state, state, zeros, state, zeros)
    loss, horizon = MixtureLoss()(context, batch, [Term(3, "all")], np.ones((1, 1)))
    assert horizon == 3
    densities = [2.0, 6.0, 6.0, 6.0]
    wanted = ALPHA * sum(GAMMA**t * density for t, density in enumerate(densities))
    assert float(loss) == pytest.approx(wanted, rel=1e-12)
