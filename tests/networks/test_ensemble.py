"""Members never meet; closed-form derivatives are those of automatic differentiation."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from gradlab.errors import InputError
from gradlab.networks import layers as layers_module
from gradlab.networks.ensemble_jacobians import along, averaged_jacobians, jacobians, mean_jacobians
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, MemberMLP, predict
from gradlab.networks.mlp import ACTIVATIONS, mlp

DS, DA, N = 4, 2, 11
STATE, ACTION = torch.randn(N, DS, dtype=torch.float64), torch.randn(N, DA, dtype=torch.float64)
EXACT = dict(rtol=1e-10, atol=1e-10)

every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
# Rows of the product are outputs (4, 8, 5 or 10 of them) or inputs (6).
every_shape = pytest.mark.parametrize(
    ("hidden", "reward", "residual"),
    [((), True, True), ((9,), False, False), ((16, 12, 14), True, False), ((8, 8), False, True)],
)


def ensemble(activation="silu", hidden=(16, 12), reward=True, residual=True, spread=1.0):
    """Three members with parameters far from their start and normalisers of their own."""
    torch.manual_seed(0)
    made = GaussianEnsemble(DS, DA, 3, hidden, activation, residual, reward).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(spread * 0.3 * torch.randn_like(parameter))
    width = DS + reward
    made.set_normalisers(
        torch.randn(DS + DA), torch.rand(3, DS + DA) + 0.5, torch.randn(width), torch.rand(width)
    )
    return made


def by_jacrev(made, state, action):
    def one(x):
        found = predict(made.numbers(x), x[None])
        return found.mean[:, 0], found.std[:, 0]

    x = torch.cat([state, action], 1)
    mean, std = torch.func.vmap(torch.func.jacrev(one), out_dims=1)(x)
    return mean.detach(), std.detach()


@every_shape
@every_activation
def test_closed_forms_are_those_of_torch_func(activation, hidden, reward, residual):
    made = ensemble(activation, hidden, reward, residual)
    mean, std = by_jacrev(made, STATE, ACTION)
    assert mean.shape == (3, N, DS + reward, DS + DA) and std.abs().max() > 1e-3
    both, average = jacobians(made, STATE, ACTION), averaged_jacobians(made, STATE, ACTION)
    torch.testing.assert_close(mean_jacobians(made, STATE, ACTION), mean, **EXACT)
    torch.testing.assert_close(both.mean, mean, **EXACT)
    torch.testing.assert_close(both.std, std, **EXACT)
    torch.testing.assert_close(average.mean, mean.mean(0), **EXACT)
    torch.testing.assert_close(average.std, std.mean(0), **EXACT)


@every_activation
def test_slopes_hold_far_out_where_functions_saturate(activation):
    z = torch.tensor([-800.0, -40.0, -1e-9, 1e-9, 19.9, 20.1, 40.0, 800.0], dtype=torch.float64)
    value, slope = layers_module.SLOPES[activation](z)
    want, derivative = torch.func.jvp(ACTIVATIONS[activation](), (z,), (torch.ones_like(z),))
    torch.testing.assert_close(value, want, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slope, derivative, rtol=1e-14, atol=1e-14)


@every_activation
def test_directional_derivatives_are_jacobians_times_directions(activation):
    made = ensemble(activation)
    both, found = jacobians(made, STATE, ACTION), made(STATE, ACTION)
    shared = torch.randn(N, 3, DS + DA, dtype=torch.float64)
    own = torch.randn(3, N, 2, DS + DA, dtype=torch.float64)
    for directions in (shared, own):
        got = along(made, STATE, ACTION, directions)
        each = directions.expand(3, *directions.shape[-3:])
        for value, jacobian in ((got.mean, both.mean), (got.std, both.std)):
            want = torch.einsum("enoi,enki->enko", jacobian, each)
            torch.testing.assert_close(value.detach(), want, **EXACT)
        torch.testing.assert_close(got.prediction.mean, found.mean)
        torch.testing.assert_close(got.prediction.std, found.std)


def test_a_loss_on_directional_derivatives_has_the_gradient_of_double_backpropagation():
    made = ensemble("tanh")
    direction = torch.randn(N, 1, DS + DA, dtype=torch.float64)

    def automatic():
        moved = tuple(direction[:, 0].split([DS, DA], dim=1))
        outputs = lambda s, a: torch.cat([made(s, a).mean, made(s, a).std], -1)  # noqa: E731
        return torch.func.jvp(outputs, (STATE, ACTION), moved)[1].square().sum()

    got = along(made, STATE, ACTION, direction)
    closed = got.mean.square().sum() + got.std.square().sum()
    for mine, other in zip(
        torch.autograd.grad(closed, list(made.parameters())),
        torch.autograd.grad(automatic(), list(made.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch):
    made, directions = ensemble(), torch.randn(N, 2, DS + DA, dtype=torch.float64)

    def everything():
        both, average = jacobians(made, STATE, ACTION), averaged_jacobians(made, STATE, ACTION)
        moved = along(made, STATE, ACTION, directions)
        means = mean_jacobians(made, STATE, ACTION)
        return [means, both.mean, both.std, average.mean, average.std, moved.mean, moved.std]

    whole = everything()
    for size in (1, 3 * 10 * 16 * 8):
        monkeypatch.setattr(layers_module, "CACHE", size)
        for got, want in zip(everything(), whole, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


def test_members_may_see_inputs_of_their_own():
    made = ensemble()
    state, action = torch.randn(3, N, DS).double(), torch.randn(3, N, DA).double()
    together, own = made(state, action), jacobians(made, state, action)
    for k in range(3):
        alone = made(state[k], action[k])
        torch.testing.assert_close(together.mean[k], alone.mean[k])
        torch.testing.assert_close(own.std[k], jacobians(made, state[k], action[k]).std[k])


@pytest.mark.parametrize("bias", [True, False])
def test_members_are_the_networks_that_one_seed_makes_one_after_another(bias):
    sizes, scale = [DS, 8, 8, 3], [1.0, 0.5, 2.0, 3.0]
    torch.manual_seed(3)
    apart = [mlp(sizes, "elu", scale, bias) for _ in range(5)]
    torch.manual_seed(3)
    together = MemberMLP(5, sizes, "elu", scale, bias)
    x = STATE.float()
    want = torch.stack([network(x) for network in apart])
    torch.testing.assert_close(together(x), want)
    assert together(x[None].expand(5, -1, -1)).shape == (5, N, 3)
    again = MemberMLP(5, sizes, "elu", scale, bias)
    for k, network in enumerate(apart):
        torch.testing.assert_close(together.member(k)(x), network(x), rtol=0, atol=0)
        again.set_member(k, network)
    assert torch.equal(again(x), together(x))


def test_training_together_is_training_apart():
    sizes, target = [DS, 8, 1], STATE[:, :1].sin()
    together = MemberMLP(3, sizes, "silu").double()
    apart = [together.member(k) for k in range(3)]
    optimizers = [torch.optim.Adam(net.parameters(), 1e-2) for net in (together, *apart)]
    for _ in range(100):
        losses = [(together(STATE) - target).square().mean((1, 2)).sum()]
        losses += [(net(STATE) - target).square().mean() for net in apart]
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    want = torch.stack([net(STATE) for net in apart])
    torch.testing.assert_close(together(STATE), want, rtol=0, atol=1e-8)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_a_parametrised_weight_reaches_the_closed_forms():
    made = ensemble(spread=2.0)
    before = mean_jacobians(made, STATE, ACTION)
    parametrize.register_parametrization(made.network.linear[1], "weight", Halved())
    after = mean_jacobians(made, STATE, ACTION)
    torch.testing.assert_close(after, by_jacrev(made, STATE, ACTION)[0], **EXACT)
    assert (after - before).abs().max() > 1e-2


def test_noise_scales_stay_within_their_bounds():
    made = ensemble(residual=False)
    made.set_normalisers(*(torch.full((w,), fill) for w, fill in ((6, 0.0), (6, 1.0))), *unit(5))
    with torch.no_grad():
        made.low.fill_(-4.0)
        made.high.fill_(1.0)
        for factor in (-1e4, 1e4):
            made.network.linear[-1].bias[:, :, 5:] = factor
            log_std = made(STATE, ACTION).std.log()
            # softplus overshoots its larger argument by at most log(1 + e^-(high − low)).
            assert (log_std >= -2).all() and (log_std <= 0.5 + 0.005).all()


def unit(width):
    return torch.zeros(width), torch.ones(width)


def test_standardised_outputs_are_the_prediction_in_units_of_the_targets():
    made = ensemble()
    raw, found = made.standardised(STATE, ACTION), made(STATE, ACTION)
    state = torch.cat([STATE, torch.zeros(N, 1).double()], 1)
    mean = (found.mean - state - made.target_mean) / made.target_std
    torch.testing.assert_close(raw.mean, mean)
    torch.testing.assert_close(raw.std, 2 * (found.std / made.target_std).log())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(3)}, r"input_mean has shape \[3\], expected \[6\] or \[3, 6\]"),
        ({1: torch.tensor([1.0, 1, 0, 1, 1, 1])}, "input_std of dimension 2 is 0, expected a pos"),
        ({3: torch.tensor([1.0, 1, 1, 1, torch.nan])}, "target_std of dimension 4 is nan"),
        ({2: torch.full((3, 5), torch.inf)}, "target_mean of dimension 0 is inf"),
    ],
)
def test_a_wrong_normaliser_is_named_and_changes_nothing(change, message):
    made = ensemble()
    before = made(STATE, ACTION).mean
    arguments = dict(enumerate((*unit(6), *unit(5)))) | change
    with pytest.raises(InputError, match=message):
        made.set_normalisers(*(arguments[k] for k in range(4)))
    assert torch.equal(made(STATE, ACTION).mean, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": 0}, "members is 0"),
        ({"state_dim": 0}, "state_dim is 0"),
        ({"action_dim": "two"}, "action_dim is 'two'"),
        ({"hidden": (0,)}, "sizes are"),
        ({"activation": "step"}, "activation is 'step'"),
    ],
)
def test_a_wrong_ensemble_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        GaussianEnsemble(**({"state_dim": 2, "action_dim": 1} | arguments))
