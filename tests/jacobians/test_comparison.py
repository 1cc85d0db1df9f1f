"""Jacobians of models: errors, masks and growth against closed forms and plain sums over the path.

Exponents, doubling horizons and multi-step errors of models, against closed forms. A simulator's
own derivatives are tested at states of the path, and a wrong entry is named.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import systems
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import as_starts
from gradlab.statistics.chains import ahead
from gradlab.storage import journal
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.system import Certificate, Linearization
from gradlab.tools.jacobians import result as runs
from gradlab.tools.jacobians.page import advice
from tests.planted_tools import PlantedSystem, said

A = torch.tensor([[1.05, 0.1, 0.0], [0.0, 0.9, 0.2], [0.1, 0.0, 0.7]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.5], [0.3]], dtype=torch.float64)
GAIN = torch.tensor([[-0.3, -0.2, 0.1]], dtype=torch.float64)


def linear(A=A, B=B, noise=0.01):
    eye = torch.eye(len(A), dtype=torch.float64)
    return LinearQuadratic(A, B, eye, 0.1 * eye[: B.shape[1], : B.shape[1]], noise * eye)


def feedback(gain=GAIN):
    policy = nn.Linear(gain.shape[1], gain.shape[0], bias=False, dtype=torch.float64)
    policy.weight.data.copy_(gain)
    return policy


def starts(n=40, ds=3):
    return torch.randn(n, ds, generator=stream(0, "test"), dtype=torch.float64)


def value(run, section, quantity, **where):
    (found,) = run.rows(section, quantity=quantity, **where)["value"]
    return found


def bent(strength=0.1):
    def step(s, a):
        return s + strength * torch.sin(s) + 0.5 * a, -(s**2).sum(1) - strength * (a**3).sum(1)

    return systems.from_function(step, state_dim=2, action_dim=2)


class Faulty:
    """A system whose Jacobians are wrong, and flagged, where the first state is positive."""

    def __init__(self, system, wrong=1e6, flagged=True):
        self.system, self.wrong, self.flagged = system, wrong, flagged

    def __getattr__(self, name):
        return getattr(self.system, name)

    def linearize(self, state, action, noise=None):
        found, bad = self.system.linearize(state, action, noise), state[:, 0] > 0
        wrong = torch.where(bad[:, None, None], self.wrong, found.A)
        certificate = replace(Certificate.exact(state), flags=bad & self.flagged)
        return Linearization(wrong, found.B, found.r_s, found.r_a, certificate)


def test_scaled_blocks_have_exactly_their_relative_errors():
    extra = torch.tensor([[0.0], [0.0], [0.06]], dtype=torch.float64)
    run = gradlab.compare_jacobians(linear(), linear(1.1 * A, B + extra), starts(), feedback())
    assert value(run, "block", "relative error", block="A") == pytest.approx(0.1)
    size = float(extra.norm() / B.norm())
    assert value(run, "block", "relative error", block="B") == pytest.approx(size)
    assert value(run, "block", "relative error", block="r_s") == 0.0
    for block, error in (("A", 0.1), ("B", size)):
        over_time = run.rows("time", quantity="relative error", block=block)["value"]
        np.testing.assert_allclose(over_time, np.full(25, error))


def test_a_model_that_is_the_simulator_has_no_error_anywhere():
    run = gradlab.compare_jacobians(bent(), bent(), starts(ds=2), feedback(torch.zeros(2, 2)))
    errors = run.rows("block", quantity="relative error")
    assert (errors[["value", "ci_low", "ci_high"]].to_numpy() == 0).all()
    assert (run.rows("entry", quantity="error")["value"] == 0).all()
    assert value(run, "horizon", "model's product informs") == 25


def test_errors_of_a_nonlinear_model_are_sums_over_the_visited_states():
    policy, start = feedback(-0.4 * torch.eye(2, dtype=torch.float64)), starts(ds=2)
    run = gradlab.compare_jacobians(bent(0.1), bent(0.0), start, policy, horizon=7)
    path = rollout(bent(0.1), policy, as_starts(start, 2), 7)
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    wrong, size = 0.1 * torch.cos(s), 1 + 0.1 * torch.cos(s)
    expected = (wrong**2).sum().sqrt() / (size**2).sum().sqrt()
    assert value(run, "block", "relative error", block="A") == pytest.approx(float(expected))
    one = wrong[:, 1].square().mean().sqrt()  # σ of input and output are the same
    entry = value(run, "entry", "error", output="s1", input="s1")
    assert entry == pytest.approx(float(one))
    reward = (0.3 * a**2)[:, 0].square().mean().sqrt() * a[:, 0].std(correction=0)
    reward /= path.rewards.std(correction=0)
    entry = value(run, "entry", "error", output="reward", input="a0")
    assert entry == pytest.approx(float(reward))


def wrong_in(changes, noise=0.01):
    """The linear system with other derivatives in some places, (output, input) → by how much."""
    inputs, outputs = ("s0", "s1", "s2", "a0"), ("s0", "s1", "s2", "reward")
    change = torch.zeros(4, 4, dtype=torch.float64)
    for (output, entry), by in changes.items():
        change[outputs.index(output), inputs.index(entry)] = by

    def step(s, a):
        moved = torch.cat([s, a], 1) @ change.T
        out = linear(noise=noise).step(s, a)
        return out.state + moved[:, :3], out.reward + moved[:, 3]

    return systems.from_function(step, state_dim=3, action_dim=1)


def biased(hidden=0):
    """A policy with few parameters or, with a hidden layer, with more than directions."""
    if hidden:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double()
    policy = nn.Linear(3, 1, dtype=torch.float64)
    policy.weight.data.copy_(GAIN)
    policy.bias.data.fill_(0.2)
    return policy


def mean_gradients(model, policy, begin, horizon=12, discount=0.9):
    """Of backpropagation along the simulator's states, by the simulator's and model's Jacobians."""
    tail = gradlab.Tail(horizon, None, discount)
    return (
        gradlab.Estimator(linear(), jacobians, "all", tail).gradients(policy, begin)
        for jacobians in (linear(), model)
    )


def unbiased_square(gradients):
    total, n = gradients.sum(0), len(gradients)
    return float((total @ total - (gradients**2).sum()) / (n * (n - 1)))


@pytest.mark.parametrize("entry", [("s1", "s0"), ("s2", "a0"), ("reward", "s1")])
def test_effects_are_changes_of_the_mean_gradient_of_any_size(entry):
    """Not of the first action's alone, not of the mean square, and not to first order."""
    model, policy = wrong_in({entry: 0.4}), biased()
    run = gradlab.compare_jacobians(linear(), model, starts(), policy, horizon=12, discount=0.9)
    right, wrong = mean_gradients(model, policy, starts())
    expected = (unbiased_square(wrong - right) / unbiased_square(right)) ** 0.5
    assert expected > 0.01
    found = value(run, "entry", "effect", output=entry[0], input=entry[1])
    assert found == pytest.approx(expected, rel=1e-9)
    everything = run.rows("entry", quantity="effect")["value"]
    assert (everything > 0).sum() == 1


def test_a_fixed_law_has_jacobians_and_no_gradient_that_errors_change():
    class Law(nn.Module):
        def forward(self, state):
            return state @ GAIN.T

    run = gradlab.compare_jacobians(linear(), linear(1.1 * A), starts(), Law(), horizon=12)
    assert value(run, "block", "relative error", block="A") == pytest.approx(0.1)
    first = advice(run)
    assert first.fix_first == "the policy: it has no trainable parameters"
    assert first.light != "act"


def test_effects_along_random_directions_hold_the_exact_one_in_their_interval():
    model, policy = wrong_in({("s1", "s0"): 0.4}), biased(hidden=64)
    run = gradlab.compare_jacobians(linear(), model, starts(), policy, horizon=12, discount=0.9)
    right, wrong = mean_gradients(model, policy, starts())
    expected = (unbiased_square(wrong - right) / unbiased_square(right)) ** 0.5
    (row,) = run.rows("entry", quantity="effect", output="s1", input="s0").itertuples()
    assert row.value == pytest.approx(expected, rel=0.2)
    assert row.ci_low < expected < row.ci_high


def test_flagged_samples_are_masked_and_counted():
    simulator = Faulty(linear())
    run = gradlab.compare_jacobians(simulator, linear(1.1 * A), starts(), feedback())
    assert value(run, "block", "relative error", block="A") == pytest.approx(0.1)
    flagged = run.notes["flagged"]
    assert 0 < flagged < 1000
    assert run.notes["compared"] + flagged == run.notes["samples"] == 1000
    share = value(run, "certificate", "flagged share")
    assert share == pytest.approx(flagged / 1000)
    over_time = run.rows("time", quantity="flagged share")["value"].mean()
    assert over_time == pytest.approx(share)
    growth = run.rows("growth", block="closed")["value"]
    assert growth.max() < 10  # 1e6 never entered the product


def test_what_is_not_finite_is_masked_and_its_first_place_named():
    model = Faulty(linear(1.1 * A), wrong=torch.nan, flagged=False)
    run = gradlab.compare_jacobians(linear(), model, starts(), feedback())
    assert value(run, "block", "relative error", block="A") == pytest.approx(0.1)
    lost = run.notes["model_not_finite"]
    assert lost > 0
    first = int((starts()[:, 0] > 0).nonzero()[0])
    assert run.notes["model_first_loss"] == f"step 0, start {first}, output 0"


def test_a_diverging_simulation_ends_its_own_samples_only():
    def step(s, a):
        return 1e3 * s**3 + 0 * a, s[:, 0]

    def wrong(s, a):
        return 1.1e3 * s**3 + 0 * a, s[:, 0]

    simulator, model = (systems.from_function(each, 1, 1) for each in (step, wrong))
    start = torch.tensor([[0.02], [0.01], [10.0], [0.015], [0.018]], dtype=torch.float64)
    policy = feedback(torch.zeros(1, 1, dtype=torch.float64))
    run = gradlab.compare_jacobians(simulator, model, start, policy, horizon=6)
    assert run.notes["simulator_first_loss"].startswith("step 4, start 2, output 0")
    assert run.notes["simulator_not_finite"] == 2
    steady = run.rows("time", quantity="relative error", block="A")["value"]
    np.testing.assert_allclose(steady, np.full(6, 0.1))
    assert np.isfinite(run.rows("growth", block="closed")["value"]).all()


def test_errors_are_binned_by_distance_from_the_nearest_data():
    policy = feedback(torch.zeros(2, 2, dtype=torch.float64))
    data = starts(500, 2) * 0.3, torch.randn(500, 2, generator=stream(1, "test")).double()

    def step(s, a):
        return s + 0.02 * s**3 + 0.5 * a, -(s**2).sum(1)

    wrong = systems.from_function(step, state_dim=2, action_dim=2)
    run = gradlab.compare_jacobians(bent(0.0), wrong, starts(60, 2), policy, data, horizon=5)
    rows = run.rows("distance", block="A").sort_values("x")
    assert rows["value"].iloc[-1] > 3 * rows["value"].iloc[0]
    s = rollout(bent(0.0), policy, as_starts(starts(60, 2), 2), 5).states[:-1].flatten(0, 1)
    known = torch.cat(data, 1).numpy()
    here = torch.cat([s, torch.zeros_like(s)], 1).numpy()
    gaps = (here[:, None] - known[None]) / known.std(0)
    distance = np.sqrt((gaps**2).sum(2)).min(1)
    far = distance > np.quantile(distance, 7 / 8)
    expected = np.sqrt(((0.06 * s.numpy() ** 2)[far] ** 2).sum() / (2 * far.sum()))
    assert rows["value"].iloc[-1] == pytest.approx(expected, rel=0.02)
    assert rows["x"].iloc[-1] == pytest.approx(np.median(distance[far]), rel=0.02)


def test_starts_of_one_group_count_as_one():
    path = rollout(linear(), feedback(), as_starts(starts(), 3), 25)
    together = replace(path, group=torch.arange(40) // 4)
    model = bent_away()
    alone = gradlab.compare_jacobians(linear(), model, path, feedback())
    grouped = gradlab.compare_jacobians(linear(), model, together, feedback())
    assert value(alone, "block", "relative error", block="A") == pytest.approx(
        value(grouped, "block", "relative error", block="A")
    )
    assert grouped.rows("certificate", quantity="flagged share")["n"].iloc[0] == 10


def bent_away():
    def step(s, a):
        return s @ A.T + 0.1 * torch.sin(s) + a @ B.T, -(s**2).sum(1)

    return systems.from_function(step, state_dim=3, action_dim=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": linear(torch.eye(2).double(), B[:2])}, "state_dim 2"),
        ({"model": linear(A, torch.ones(3, 2).double())}, "action_dim 2"),
        ({"horizon": 0}, "horizon is 0"),
        ({"states": starts(3)}, "3 independent starts"),
        ({"states": starts(8, 2)}, r"\[N, 3\]"),
        ({"state_names": ("x",)}, "state_names has 1"),
        ({"data": (starts(9), torch.zeros(9, 2))}, "data actions"),
        ({"data": (starts(9), torch.full((9, 1), torch.nan))}, "finite"),
        ({"states": starts(200_000), "horizon": 200}, "GB"),
        ({"discount": 0.0}, "discount"),
    ],
)
def test_wrong_input_is_refused_by_name(change, message):
    asked = {"simulator": linear(), "model": None, "states": starts(8), "policy": feedback()}
    with pytest.raises(InputError, match=message):
        gradlab.compare_jacobians(**asked | change)


def test_a_run_is_read_back_bit_for_bit(tmp_path):
    run = gradlab.compare_jacobians(bent(0.1), bent(0.0), starts(ds=2), feedback(torch.zeros(2, 2)))
    run.save(tmp_path / "run.h5")
    again = runs.load(tmp_path / "run.h5")
    for name, column in run.columns.items():
        np.testing.assert_array_equal(column, again.columns[name])
    assert (again.config, again.notes) == (dict(run.config), dict(run.notes))
    assert again.state_names == ("s0", "s1")
    assert journal.kind(tmp_path / "run.h5") == runs.JacobianRun.kind
    with pytest.raises(InputError, match="exists"):
        run.save(tmp_path / "run.h5")
    assert gradlab.load(tmp_path / "run.h5").table().equals(run.table())


def decided(changes, begin):
    """The light and what to fix first, the simulator's derivatives being sound."""
    policy = biased()
    run = gradlab.compare_jacobians(linear(), wrong_in(changes), begin, policy, discount=0.9)
    shown = advice(replace(run, notes=run.notes | {"tested": "sound"}))
    return shown.light, shown.fix_first


def test_an_error_of_another_sign_at_every_start_does_not_move_the_mean():
    """The last state is a sign that the policy does not see; the other error is far smaller."""

    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1, dtype=torch.float64)
            self.layer.weight.data.fill_(-0.3)

        def forward(self, state):
            return self.layer(state[:, :1])

    def reward(cross, slope):
        def step(s, a):
            after = torch.stack([0.9 * s[:, 0] + a[:, 0], s[:, 1]], 1)
            return after, -(s[:, 0] ** 2) - (0.5 + slope) * a[:, 0] ** 2 + cross * s[:, 1] * a[:, 0]

        return systems.from_function(step, 2, 1)

    half = starts(200, 1)
    begin = torch.cat([torch.cat([half, torch.ones_like(half)], 1) for half in (half, half)])
    begin[200:, 1] = -1.0
    effects = []
    for each in ((2.0, 0.0), (0.0, 0.1)):
        run = gradlab.compare_jacobians(reward(0, 0), reward(*each), begin, Blind(), horizon=5)
        effects.append(value(run, "entry", "effect", output="reward", input="a0"))
    assert effects[0] < 0.5 * effects[1]


def test_the_light_is_green_where_one_entry_is_before_all_others():
    light, fix = decided({("reward", "s1"): 0.4, ("reward", "s0"): 0.02}, starts(200))
    ends = r"[\d.]+–[\d.]+%"
    assert light == "act"
    assert re.fullmatch(f"the derivative of reward by s1: by {ends} of the gradient's norm", fix)


def test_entries_that_are_not_told_apart_are_named_with_the_starts_that_would():
    changes = {("reward", "s1"): 0.4, ("reward", "s0"): 0.435}
    light, fix = decided(changes, starts(60))
    assert light == "choose" and "reward by s1" in fix and "reward by s0" in fix
    apart = r"the derivatives of .*: not told apart with 60 starts; about [\d,]+ more would"
    assert re.fullmatch(apart, fix)


def test_a_gradient_that_few_starts_carry_is_said_to_be_and_has_no_size():
    begin = starts(100)
    begin[:3] *= 300.0
    light, fix = decided({("reward", "s1"): 0.4}, begin)
    assert light == "choose"
    assert fix == "the derivative of reward by s1: by how much is unknown (100 starts)"


def test_exponents_are_the_eigenvalues_of_the_closed_and_of_the_open_loop():
    run = gradlab.compare_jacobians(linear(), None, starts(8), feedback(), horizon=800)
    for loop, M in (("closed", A + B @ GAIN), ("open", A)):
        found = run.rows("exponent", block=loop)["value"].to_numpy()
        expected = np.log(np.sort(np.abs(np.linalg.eigvals(M.numpy())))[::-1])
        np.testing.assert_allclose(found, expected, atol=3e-3)
    assert run.rows("block").empty
    assert run.rows("product").empty


def test_doubling_follows_from_the_exponent():
    system = linear(torch.eye(1).double() * 1.5, torch.ones(1, 1).double())
    policy = feedback(torch.tensor([[-0.2]], dtype=torch.float64))
    run = gradlab.compare_jacobians(system, None, starts(6, 1), policy, discount=0.9, horizon=40)
    predicted = np.log(2) / 2 / (np.log(1.3) + np.log(0.9))
    for block in ("typical start", "mean square"):
        found = value(run, "horizon", "predicted doubling of the variance", block=block)
        assert found == pytest.approx(predicted)


def test_the_mean_square_follows_the_fastest_starts():
    def step(s, a):
        return torch.stack([s[:, 0] * torch.exp(s[:, 1]), s[:, 1]], 1) + 0 * a, s[:, 0]

    system = systems.from_function(step, state_dim=2, action_dim=1)
    rates = torch.tensor([0.1, 0.1, 0.1, 0.5], dtype=torch.float64)
    start = torch.stack([1e-9 + 0 * rates, rates], 1)
    run = gradlab.compare_jacobians(
        system, None, start, feedback(torch.zeros(1, 2).double()), horizon=60
    )
    assert value(run, "exponent", "λ", block="closed", output="1") == pytest.approx(0.2, rel=1e-6)
    assert value(run, "exponent", "λ of the mean square") == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("growth", "discount", "light", "words"),
    [
        ((0.005,) * 4, 0.99, "act", "any horizon: in the closed loop of"),
        ((0.005,) * 4, 1.0, "choose", "short rollouts: the variance doubles in 69"),
        ((0.02,) * 4, 0.99, "choose", "the variance doubles in 35 steps"),
        ((0.0,) * 15 + (0.5,), 0.9, "choose", "the fastest starts the variance doubles in 0.8"),
        ((0.1, 0.11) * 2, 0.9, "choose", "neither growth nor decay"),
    ],
)
def test_a_chain_is_judged_with_the_discount_and_by_the_starts_that_carry_the_variance(
    growth, discount, light, words
):
    def step(s, a):
        return torch.stack([s[:, 0] * torch.exp(s[:, 1]), s[:, 1]], 1) + 0 * a, s[:, 0] + a[:, 0]

    rates = torch.tensor(growth * 4, dtype=torch.float64)
    run = gradlab.compare_jacobians(
        systems.from_function(step, state_dim=2, action_dim=1), None,
        torch.stack([1e-9 + 0 * rates, rates], 1), feedback(torch.zeros(1, 2).double()),
        horizon=60, discount=discount,
    )  # fmt: skip
    first = advice(run)
    assert first.light == light and words in first.use


@pytest.mark.parametrize(
    ("loop", "horizon", "light", "words"),
    [
        ([[0.97, 1.0], [0.0, 0.97]], 10, "choose", "a longer path, --horizon 20: "),
        ([[0.97, 1.0], [0.0, 0.97]], 20, "choose", "a longer path, --horizon 40: "),
        ([[0.97, 1.0], [0.0, 0.97]], 40, "choose", "a longer path, --horizon 80: "),
        ([[0.97, 1.0], [0.0, 0.97]], 80, "act", "any horizon: "),
        ([[1.05, 1.0], [0.0, 1.05]], 20, "choose", "short rollouts: "),
        ([[1.3, 0.0], [0.0, 0.5]], 20, "choose", "short rollouts: "),
        ([[0.84, 1.89], [-0.21, 0.84]], 5, "choose", "decays, but in few steps"),
    ],
)
def test_growth_that_slows_down_is_not_told_as_growth_that_lasts(loop, horizon, light, words):
    """The first is t 0.97^(t−1), highest at 33 steps; the last turns, and grows by 5% per step."""
    M = torch.tensor(loop, dtype=torch.float64)
    start, still = starts(8, 2), feedback(torch.zeros(1, 2).double())
    system = linear(M, torch.eye(2, 1).double())
    first = advice(gradlab.compare_jacobians(system, None, start, still, horizon=horizon))
    assert first.light == light and words in first.use


def test_a_slope_goes_on_as_it_changes():
    t = np.arange(20.0, 41)
    for curve, expected in ((0.3 * t, 0.3), (0.2 * t + 5 * np.log(t), 0.2)):
        assert ahead(curve) == pytest.approx(expected, abs=0.01)
    assert np.isnan(ahead(t[:2]))


def test_a_model_one_percent_too_strong_informs_for_sixty_nine_steps():
    model = linear(1.01 * A, 1.01 * B)
    run = gradlab.compare_jacobians(linear(), model, starts(8), feedback(), horizon=100)
    assert value(run, "horizon", "model's product informs") == 69
    errors = run.rows("product").sort_values("step")["value"].to_numpy()
    np.testing.assert_allclose(errors, 1.01 ** np.arange(101) - 1, rtol=1e-8, atol=1e-12)


def test_chains_that_are_hardly_better_than_zeros_do_not_hold():
    """A twentieth of every Jacobian: after 10 steps 1 − .05¹⁰ of the product is missing."""
    for model, held in ((linear(0.05 * A, 0.05 * B), False), (linear(1.001 * A, B), True)):
        run = gradlab.compare_jacobians(linear(), model, starts(8), feedback(), horizon=10)
        found = advice(run)
        assert found.use.startswith("all 10 steps: its chained Jacobians hold") == held
        assert found.use.startswith("fewer than 10 steps: ") != held
        assert held or found.light != "act"


def test_a_constant_offset_grows_linearly_and_an_unstable_one_does_not():
    def shifted(gain, offset):
        def step(s, a):
            return gain * s + 0 * a + offset, s[:, 0]

        return systems.from_function(step, state_dim=1, action_dim=1)

    policy = feedback(torch.zeros(1, 1, dtype=torch.float64))
    for gain, law in ((1.0, "linear"), (1.4, "exponential"), (0.5, "slower")):
        true, model = shifted(gain, 0.0), shifted(gain, 0.1)
        run = gradlab.compare_jacobians(true, model, starts(8, 1), policy, horizon=25)
        assert run.notes["condition_1"] == law


class Planted(PlantedSystem):
    """A system whose `linearize` is written by hand, with a fault."""

    def linearize(self, state, action, noise=None):
        found = self.system.linearize(state, action, noise)
        blocks = [x.clone() for x in (found.A, found.B, found.r_s, found.r_a)]
        self.fault(*blocks)
        return Linearization(*blocks, found.certificate)


def scaled(A, B, r_s, r_a):
    A[:, 1, 1] *= 1.01


def turned(A, B, r_s, r_a):
    B[:, 1, 0] *= -1


def zeroed(A, B, r_s, r_a):
    A[:, 0, 1] = 0


def transposed(A, B, r_s, r_a):
    A.copy_(A.mT.clone())


def dropped(A, B, r_s, r_a):
    r_s[:, 1] = 0


def sound(A, B, r_s, r_a):
    pass


def rolled(system, fault, width, **settings):
    gain = GAIN[:, :width] if width <= 3 else 0.1 * torch.ones(1, width, dtype=torch.float64)
    wide = gain.expand(system.action_dim, -1)
    start = 0.5 * starts(16, width)
    return gradlab.compare_jacobians(
        Planted(system, fault), None, start, feedback(wide), horizon=12, discount=0.9, **settings
    )


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (scaled, "∂s'/∂s of s1' by s1"),
        (turned, "∂s'/∂a of s1' by a0"),
        (zeroed, "∂s'/∂s of s0' by s1"),
        (transposed, "∂s'/∂s of s0' by s1"),
        (dropped, "∂r/∂s of reward by s1"),
    ],
)
@pytest.mark.parametrize(("system", "width"), [(linear(), 3), (systems.Pendulum(), 2)])
def test_a_wrong_entry_is_red_and_named(system, width, fault, named):
    run = rolled(system, fault, width)
    first = advice(run)
    if fault is transposed and width == 3:
        named = named.replace("s0'", "s2'")
    assert first.light == "none"
    assert first.fix_first == f"own derivatives are wrong ({named})"
    assert len(first.fields) == 1
    wrong = said(run, "jacobians.wrong")
    assert (wrong.decision, wrong.at) == ("fail", named) and wrong.value > 0


@pytest.mark.parametrize(
    ("system", "width"),
    [(linear(), 3), (systems.Pendulum(), 2), (systems.CartPoleModel(), 4)],
)
def test_sound_derivatives_are_shown_to_be(system, width):
    run = rolled(system, sound, width)
    assert run.notes["tested"] == "sound"
    assert said(run, "jacobians.sound").n == 96
    assert advice(run).light != "none"


def bouncing(s, a):
    """A hard impact, with restitution: a jump of the step, and of its derivatives."""
    v = s[:, 1] + 0.05 * (a[:, 0] - 9.8)
    z = s[:, 0] + 0.05 * v
    hit = z < 0
    state = torch.stack([torch.where(hit, -0.7 * z, z), torch.where(hit, -0.7 * v, v)], 1)
    return state, -((state[:, 0] - 1) ** 2) - 0.01 * a[:, 0] ** 2


def test_impacts_are_no_wrong_derivatives():
    start = starts(32, 2).abs()
    system = systems.from_function(bouncing, 2, 1)
    policy = feedback(torch.tensor([[0.1, -0.2]], dtype=torch.float64))
    run = gradlab.compare_jacobians(system, None, start, policy, horizon=40)
    assert run.notes["tested"] == "sound"
