"""What models are fitted by, against values by hand, finite differences and known minimisers.

Directional and Sobolev losses by hand, and against derivatives that are known. Nearest neighbours,
against every distance taken by hand, and whether they are near enough. Transitions that gradlab
records itself.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlab.data import trajectories
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.fitting.collection import collect, exploring
from gradlab.fitting.derivative_losses import (
    DirectionalDerivative,
    Neighbours,
    Sobolev,
    pushed,
    true_jacobians,
)
from gradlab.fitting.losses import (
    Bound,
    MultiStep,
    OneStepError,
    OwnLoss,
    StandardisedRows,
    outputs,
    split,
    standardised,
    windows,
)
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, OwnNetwork
from gradlab.networks.mlp import Policy
from gradlab.systems import LearnedSystem
from gradlab.tasks import double_integrator, inverted_pendulum, linear_quadratic, pendulum
from tests.systems.ensembles import by_jacrev


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rows_of(record: Trajectories, residual: bool = True, reward: bool = True) -> StandardisedRows:
    everyone = torch.arange(len(record))
    return standardised(
        record, everyone, residual=residual, reward=reward, dtype=torch.float64, device="cpu"
    )[0]


def model(
    rows: StandardisedRows, hidden: tuple[int, ...] = (10,), members: int = 2
) -> GaussianEnsemble:
    ds, out = rows.record.state.shape[1], rows.targets.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = GaussianEnsemble(
            ds, rows.record.action.shape[1], members, hidden, "tanh", rows.residual, out > ds
        )
    made.double().set_normalisers(
        rows.input_mean, rows.input_std, rows.target_mean, rows.target_std
    )
    return made


def everywhere(bound: Bound, ensemble: GaussianEnsemble, turn: int = 0) -> Tensor:
    return bound.value(ensemble, bound.rows.expand(ensemble.members, -1), turn)


def halves(record: Trajectories) -> tuple[Tensor, Tensor]:
    return split(record, 0.2, 0)


def test_the_likelihood_is_that_of_normal_targets():
    record = collect(pendulum(), 60)
    rows = rows_of(record)
    ensemble = model(rows)
    with torch.no_grad():
        found = everywhere(OneStepError("nll").bind(rows, *halves(record))[0], ensemble)
        at = halves(record)[0]
        mean, log_variance = outputs(ensemble, rows.inputs[at].expand(2, -1, -1))
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    wanted = -normal.log_prob(rows.targets[at]).mean(dim=(1, 2))
    pull = 0.01 * (ensemble.high - ensemble.low).sum(dim=(1, 2)) / 2
    torch.testing.assert_close(found, wanted + pull)
    assert torch.allclose(
        everywhere(OneStepError("mse").bind(rows, *halves(record))[0], ensemble),
        (mean - rows.targets[at]).square().mean(dim=(1, 2)),
    )


def test_the_multi_step_loss_of_a_perfect_model_is_zero_and_of_another_is_not():
    made = model(rows_of(collect(pendulum(), 50)))
    perfect = LearnedSystem(made, elites=(0,))
    state, action = random(30, 2), random(30, 4, 1, seed=1)
    parts = []
    for step in range(4):
        out = perfect.step(state, action[:, step])
        parts.append((state, action[:, step], out.reward, out.state))
        state = out.state
    columns = [torch.stack(each, dim=1).flatten(0, 1) for each in zip(*parts, strict=True)]
    record = trajectories.from_rows(
        *columns, torch.zeros(120).bool(), torch.arange(30).repeat_interleave(4)
    )
    rows = rows_of(record)
    bound, _ = MultiStep(3).bind(rows, torch.arange(100), torch.arange(100, 120))
    assert len(bound.rows) == 25 * 2
    found = everywhere(bound, made)
    assert found[0] < 1e-28 < 1e-3 < found[1]
    one, _ = MultiStep(1).bind(rows, torch.arange(100), torch.arange(100, 120))
    wanted = torch.cat([record.next_state, record.reward[:, None]], dim=1)
    error = (made(record.state, record.action).mean[1] - wanted)[:100] / made.target_std[1, 0]
    torch.testing.assert_close(everywhere(one, made)[1], error.square().mean())


def test_the_multi_step_loss_goes_on_from_the_models_own_states():
    record = collect(pendulum(), 60, length=12)
    rows = rows_of(record)
    made = model(rows, members=1)
    bound, _ = MultiStep(3).bind(rows, torch.arange(48), torch.arange(48, 60))
    system, scale = LearnedSystem(made), made.target_std[0, 0]
    state, total = record.state[bound.rows], 0.0
    for step in range(3):
        at = bound.rows + step
        out = system.step(state, record.action[at])
        wanted = torch.cat([record.next_state[at], record.reward[at, None]], dim=1)
        found = torch.cat([out.state, out.reward[:, None]], dim=1)
        total += ((found - wanted) / scale).square().mean().item() / 3
        state = out.state
    assert everywhere(bound, made).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("directions", [None, 1])
def test_the_third_learner_is_the_sum_of_the_multi_step_and_the_directional_loss(directions):
    record = collect(pendulum(), 60, length=12)
    rows, parts = rows_of(record), (torch.arange(48), torch.arange(48, 60))
    made, options = model(rows, members=2), {"neighbours": 4, "directions": directions}
    both = DirectionalDerivative(steps=3, prediction="mse", weight=0.7, **options).bind(
        rows, *parts
    )
    multi = MultiStep(3).bind(rows, *parts)
    dd = DirectionalDerivative(weight=0.7, prediction="mse", **options).bind(rows, *parts)
    one = OneStepError("mse").bind(rows, *parts)
    for summed, along, near, plain in zip(both, multi, dd, one, strict=True):
        assert torch.equal(summed.rows, along.rows)
        at = summed.rows.expand(2, -1)
        along, near, plain = (each.value(made, at, 5) for each in (along, near, plain))
        torch.testing.assert_close(summed.value(made, at, 5), along + near - plain)
        assert (near - plain > 1e-3 * along).all()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_windows_are_those_of_a_loop_over_rows(steps):
    record = collect(pendulum(), 60, length=12)
    part = torch.tensor([k for k in range(60) if k % 7 != 3])
    inside, number = set(part.tolist()), record.trajectory.tolist()
    wanted = [
        k
        for k in range(60 - steps + 1)
        if set(range(k, k + steps)) <= inside and len(set(number[k : k + steps])) == 1
    ]
    assert windows(record, part, steps).tolist() == wanted


def test_what_cannot_be_a_loss_is_refused():
    with pytest.raises(InputError, match="weight is -1"):
        DirectionalDerivative(weight=-1.0)
    with pytest.raises(InputError, match="directions is 4"):
        DirectionalDerivative(3, directions=4)
    with pytest.raises(InputError, match="steps is 0"):
        MultiStep(0)
    rows = rows_of(collect(pendulum(), 60, length=5))
    with pytest.raises(InputError, match="no trajectory of the data has 6 rows"):
        MultiStep(6).bind(rows, torch.arange(50), torch.arange(50, 60))
    with pytest.raises(InputError, match=r"data has 60 different \(s, a\)"):
        DirectionalDerivative(60).bind(rows, torch.arange(60), torch.arange(0))


def squared(mean, log_variance, target):
    return (mean - target).square().mean(dim=2)


def likely(mean, log_variance, target):
    return -torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(target).mean(2)


@pytest.mark.parametrize(("own", "kind"), [(squared, "mse"), (likely, "nll")])
def test_a_loss_of_ones_own_is_what_its_function_says(own, kind):
    record = collect(pendulum(), 60)
    rows = rows_of(record)
    ensemble = model(rows)
    loss = OwnLoss("mine.py:own", own)
    assert loss.prediction == kind  # do its variances learn?
    found, wanted = (
        everywhere(each.bind(rows, *halves(record))[0], ensemble)
        for each in (loss, OneStepError(kind))
    )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda m, v, y: (m - y).square(), r"returned \[2, 3, 4\], expected a loss of shape"),
        (lambda m, v, y: 0.0, "returned float"),
        (lambda m, v, y: (m - y).detach().square().mean(2), "no derivative by the mean"),
        (lambda m, v, y: m @ y, "mine.py:own failed"),
    ],
)
def test_a_loss_of_ones_own_that_cannot_be_followed_is_refused(own, words):
    with pytest.raises(InputError, match=words):
        OwnLoss("mine.py:own", own)


A, B = [[0.9, 0.2], [-0.1, 0.8]], [[0.3], [0.5]]


def plain_rows(record):
    """Coordinates as they are, so that a hand can follow."""
    rows = rows_of(record, residual=False, reward=False)
    inputs = torch.cat([record.state, record.action], dim=1)
    ones, zeros = torch.ones(inputs.shape[1]).double(), torch.zeros(inputs.shape[1]).double()
    width = record.state.shape[1]
    return replace(
        rows,
        inputs=inputs,
        targets=record.next_state,
        input_mean=zeros,
        input_std=ones,
        target_mean=zeros[:width],
        target_std=ones[:width],
    )


def three_points():
    """x = s, a = 0: points 0, 1 and 3 go to 0, 2 and 12."""
    column = torch.tensor([[0.0], [1.0], [3.0]]).double()
    return trajectories.from_rows(
        column,
        torch.zeros(3, 1).double(),
        torch.zeros(3).double(),
        torch.tensor([[0.0], [2.0], [12.0]]).double(),
        torch.zeros(3).bool(),
    )


@pytest.mark.parametrize(
    ("actions", "divided", "metric", "wanted"),
    [
        (None, False, "standardised", 6.0), (None, True, "standardised", 2.0),
        # Actions in units of 100. Raw: 0 → 3, 1 → 3, 3 → 0.
        ((0.0, 50.0, 1.0), False, "standardised", 6.0), ((0.0, 50.0, 1.0), False, "raw", 34 / 3),
    ],
)  # fmt: skip
def test_the_directional_loss_of_three_points_is_eq_9(actions, divided, metric, wanted):
    # The model is y = 3 x. Nearest: 0 → 1, 1 → 0, 3 → 1. Errors of J v − Δy: 3 − 2, −3 + 2,
    # −6 + 10; squares 1, 1, 16; divided by v² = 1, 1, 4.
    rows = plain_rows(three_points())
    ensemble = model(rows, hidden=(), members=1)
    layer = ensemble.network.linear[0]
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 0] = 3
        layer.bias.zero_()
    if actions:
        rows = plain_rows(replace(three_points(), action=torch.tensor(actions).double()[:, None]))
        rows = replace(rows, input_std=torch.tensor([1.0, 100.0]).double())
    loss = DirectionalDerivative(1, 1.0, divided, "mse", metric=metric)
    bound, _ = loss.bind(rows, torch.arange(3), torch.arange(0))
    squared = torch.tensor([0.0, 1.0, 9.0]).mean()
    assert (everywhere(bound, ensemble) - squared).item() == pytest.approx(wanted)


def test_as_printed_the_weight_knows_no_noise_level():
    record = collect(double_integrator(), 80)
    rows = rows_of(record)
    ensemble = model(rows)
    with torch.no_grad():
        last = ensemble.network.linear[-1]
        last.weight[:, :, 3:], last.bias[:, :, 3:] = 0, -7
        ensemble.low.fill_(-27)
        ensemble.high.fill_(13)
    parts = halves(record)

    def term(loss):
        base = everywhere(replace(loss, weight=0.0).bind(rows, *parts)[0], ensemble)
        return everywhere(loss.bind(rows, *parts)[0], ensemble) - base

    scaled, printed = (
        term(DirectionalDerivative(4)),
        term(DirectionalDerivative(4, as_printed=True)),
    )
    torch.testing.assert_close(
        scaled / printed, torch.full((2,), 7.0).exp().double(), rtol=1e-3, atol=0
    )
    squared = term(DirectionalDerivative(4, prediction="mse"))
    torch.testing.assert_close(squared, printed)


def test_one_direction_at_a_time_adds_up_to_all():
    record = collect(double_integrator(), 80)
    rows = rows_of(record)
    ensemble, parts = model(rows), halves(record)
    whole = everywhere(DirectionalDerivative(5).bind(rows, *parts)[0], ensemble)
    each = DirectionalDerivative(5, directions=1).bind(rows, *parts)[0]
    turns = torch.stack([everywhere(each, ensemble, turn) for turn in range(5)])
    torch.testing.assert_close(turns.mean(dim=0), whole)


def test_pushed_directions_are_finite_differences():
    record = collect(pendulum(), 40)
    rows = rows_of(record)
    ensemble, step = model(rows), 1e-6
    inputs, v = rows.inputs.expand(2, -1, -1), random(2, 40, 3, 3)
    moved = pushed(ensemble, inputs, v)[2]
    for k in range(3):
        ahead, behind = (
            outputs(ensemble, inputs + sign * step * v[:, :, k])[0] for sign in (1, -1)
        )
        torch.testing.assert_close(
            moved[:, :, k], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8
        )


def test_directions_that_share_memory_pass_a_network_of_one_layer():
    """As a check of a fit has them: one set of rows for all members."""
    network = OwnNetwork("here", nn.Linear)
    ensemble = GaussianEnsemble(2, 1, 3, network=network).double()
    inputs, v = random(4, 3).expand(3, -1, -1), random(4, 2, 3).expand(3, -1, -1, -1)
    moved, weight = pushed(ensemble, inputs, v)[2], [*ensemble.parameters()]
    weight = next(each for each in weight if each.shape == (3, 3, 3))
    torch.testing.assert_close(moved, torch.einsum("nki,eoi->enko", v[0], weight))


@pytest.mark.parametrize("divided", [False, True])
def test_on_a_linear_system_the_directional_loss_is_least_at_the_true_jacobian(divided):
    """Of a model without hidden layers, directional errors alone give A and B."""
    task = linear_quadratic(A, B, torch.eye(2), [[1.0]], noise_covariance=torch.zeros(2, 2))
    record = collect(task, 200)
    rows = rows_of(record, residual=False, reward=False)
    ensemble = model(rows, hidden=(), members=1)
    loss = DirectionalDerivative(6, 1.0, divided, "mse")
    bound, _ = loss.bind(rows, *halves(record))
    base, _ = OneStepError("mse").bind(rows, *halves(record))
    optimiser = torch.optim.LBFGS(
        ensemble.parameters(),
        max_iter=300,
        tolerance_grad=1e-12,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def error():
        optimiser.zero_grad()
        value = (everywhere(bound, ensemble) - everywhere(base, ensemble)).sum()
        value.backward()
        return value

    optimiser.step(error)
    found = by_jacrev(ensemble, record.state[:1], record.action[:1])[0][0, 0]
    wanted = torch.cat([torch.tensor(A), torch.tensor(B)], dim=1).double()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_the_directional_loss_does_not_move_the_predicted_variance():
    """A variance that it scaled down would buy a lower loss, not a better derivative."""
    record = collect(double_integrator(), 80)
    rows = rows_of(record)
    ensemble, parts = model(rows), halves(record)
    last = ensemble.network.linear[-1]
    slopes = []
    for weight in (0.0, 1.0):
        bound, _ = DirectionalDerivative(4, weight).bind(rows, *parts)
        given = [last.weight, last.bias, ensemble.low, ensemble.high]
        total = everywhere(bound, ensemble).sum()
        slopes.append(torch.autograd.grad(total, given))
    for k, (without, having) in enumerate(zip(*slopes, strict=True)):
        columns = slice(None) if k > 1 else slice(3, None)
        torch.testing.assert_close(having[..., columns], without[..., columns])
    assert not torch.allclose(slopes[0][0], slopes[1][0])


@pytest.mark.parametrize("residual", [False, True])
def test_sobolev_targets_are_the_simulators_jacobians(residual):
    task = pendulum()
    rows = rows_of(collect(task, 30), residual=residual)
    wanted, sound = true_jacobians(task.simulator, rows)
    assert bool(sound.all())
    state, action, step = rows.record.state, rows.record.action, 1e-6
    x = torch.cat([state, action], dim=1)
    for j in range(3):
        found = []
        for sign in (1, -1):
            y = x.clone()
            y[:, j] += sign * step * rows.input_std[j]
            out = task.simulator.step(y[:, :2], y[:, 2:])
            after = out.state - y[:, :2] if residual else out.state
            found.append(torch.cat([after, out.reward[:, None]], dim=1) / rows.target_std)
        difference = (found[0] - found[1]) / (2 * step)
        inside = (difference - wanted[:, j]).abs().amax(dim=1) < 1e-6
        assert inside.double().mean() > 0.9  # the others lie within a step of a clip


def test_the_sobolev_loss_adds_the_squared_jacobian_error():
    task = pendulum()
    record = collect(task, 40)
    rows = rows_of(record)
    ensemble, parts = model(rows), halves(record)
    found = everywhere(Sobolev(task.simulator, 2.0).bind(rows, *parts)[0], ensemble)
    squared = everywhere(OneStepError("mse").bind(rows, *parts)[0], ensemble)
    at, true = parts[0], task.simulator.linearize(record.state, record.action)
    by_state = torch.cat([true.A, true.r_s[:, None]], dim=1)
    whole = torch.cat([by_state, torch.cat([true.B, true.r_a[:, None]], dim=1)], dim=2)
    error = by_jacrev(ensemble, record.state[at], record.action[at])[0] - whole[at]
    scaled = error * rows.input_std / rows.target_std[:, None]
    torch.testing.assert_close(found, squared + 2 * scaled.square().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("wrong", [1e6, torch.nan])
def test_rows_that_the_simulator_flags_count_by_their_prediction_alone(wrong):
    task = pendulum()
    record = collect(task, 40)
    rows = rows_of(record)
    ensemble = model(rows)
    flags = torch.arange(40) % 3 == 0

    class Doubtful:
        def linearize(self, state, action, noise=None):
            found = task.simulator.linearize(state, action, noise)
            A = torch.where(flags[:, None, None], wrong, found.A)
            certificate = replace(found.certificate, flags=flags)
            return replace(found, A=A, certificate=certificate)

    everyone, none = torch.arange(40), torch.arange(0)
    sound = (~flags).nonzero()[:, 0]

    def of_slopes(simulator, at):
        values = [
            everywhere(Sobolev(simulator, weight).bind(rows, at, none)[0], ensemble)
            for weight in (0.0, 1.0)
        ]
        return values[1] - values[0]

    found, wanted = of_slopes(Doubtful(), everyone), of_slopes(task.simulator, sound)
    torch.testing.assert_close(found * 40 / len(sound), wanted)


SCALE = np.array([1.0, 0.5, 2.0])


def points(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3))


def by_hand(rows, count):
    scaled = rows / SCALE
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1)[:, :count]
    return order, np.take_along_axis(distance, order, axis=1)


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4], [100], [10, 30, 70, 150, 151]])
def test_neighbours_are_the_nearest_however_the_points_came(cuts):
    rows, near = points(200), Neighbours(5, SCALE)
    for part in np.split(rows, cuts):
        near.add(part)
    index, distance = by_hand(rows, 5)
    np.testing.assert_array_equal(near.index, index)
    np.testing.assert_allclose(near.distance, distance, rtol=1e-12)


def test_repeated_points_are_counted_and_no_ones_neighbour_at_distance_zero():
    rows = points(50)
    near = Neighbours(3, SCALE)
    near.add(np.concatenate([rows, rows[[4, 4, 7]]]))
    near.add(rows[[9]])
    assert near.repeated == 4 and len(near) == 54
    index, distance = by_hand(rows, 3)
    np.testing.assert_array_equal(near.index[:50], index)
    np.testing.assert_array_equal(near.index[50:], index[[4, 4, 7, 9]])
    np.testing.assert_allclose(near.distance[50:], distance[[4, 4, 7, 9]])


def test_what_cannot_be_searched_is_refused():
    near = Neighbours(3, SCALE)
    near.add(np.concatenate([points(3), points(3)]))
    with pytest.raises(InputError, match=r"data has 3 different \(s, a\)"):
        _ = near.index
    with pytest.raises(InputError, match="an integer ≥ 1"):
        Neighbours(0, SCALE)


def same(one, other):
    return torch.equal(one.next_state, other.next_state) and torch.equal(one.action, other.action)


def test_rows_are_the_simulators_own_transitions():
    task = pendulum()
    record = collect(task, 130, length=40)
    assert len(record) == 130 and len(torch.unique(record.trajectory)) == 4
    again = task.simulator.step(record.state, record.action)
    assert torch.equal(again.state, record.next_state)
    assert torch.equal(again.reward, record.reward)


def test_random_actions_fill_the_limits_evenly_and_a_seed_repeats_them():
    action = collect(pendulum(), 4000).action
    assert action.abs().max() <= 2
    assert abs(float(action.std()) - 2 / 3**0.5) < 0.03
    task = pendulum()
    assert same(collect(task, 50, seed=3), collect(task, 50, seed=3))
    assert not same(collect(task, 50, seed=3), collect(task, 50, seed=4))


def test_trajectories_end_where_the_task_does_and_share_no_start_or_noise():
    task = inverted_pendulum(engine="analytic", slider="wide")
    record = collect(task, 300)
    assert record.terminated.any()
    assert torch.equal(record.terminated, record.next_state[:, 1].abs() > 0.2)
    record = collect(inverted_pendulum(engine="analytic", slider="wide"), 500, length=20)
    first = record.step == 0
    count = int(first.sum())
    assert count > 20
    for values in (record.state[first], record.action[first]):
        assert len(torch.unique(values, dim=0)) == count


def test_explored_actions_are_recorded_as_applied():
    task = pendulum()
    policy = exploring(task, Policy(2, 1, hidden=()).double(), std=(5.0,))
    assert collect(task, 200, policy).action.abs().max() == 2


def test_what_cannot_be_recorded_is_refused():
    task = linear_quadratic([[9.0]], [[1.0]], [[1.0]], [[1.0]])
    with pytest.raises(InputError, match="leaves the finite numbers"):
        collect(task, 500, length=400)
    with pytest.raises(InputError, match="expected an integer ≥ 1"):
        collect(task, 0)
    with pytest.raises(InputError, match="std is"):
        exploring(task, Policy(1, 1), std=(1.0, 2.0))


SETTINGS = ModelSettings(members=2, hidden=(16,), epochs=8, held_out=0.3, precision="float64")
