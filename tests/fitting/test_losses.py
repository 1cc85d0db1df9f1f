"""What models are fitted by, against values by hand, finite differences and known minimisers."""

import pytest
import torch

from gradlab.data import trajectories
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative, MultiStepDirectional
from gradlab.fitting.losses import MultiStep, OneStepError, OwnLoss, outputs, windows
from gradlab.systems import LearnedSystem
from gradlab.tasks import pendulum
from tests.fitting.small_models import everywhere, halves, model, random, rows_of


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
    both = MultiStepDirectional(3, weight=0.7, **options).bind(rows, *parts)
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
