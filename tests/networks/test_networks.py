"""Members never meet; closed-form derivatives are those of automatic differentiation.

Rows of a batch are treated alone, or the network is refused before anything is computed. Spectral
normalisation: the norms it gives, the Jacobians and files that come of it.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

import gradlab
from gradlab.errors import InputError
from gradlab.networks import checkpoint, spectral
from gradlab.networks import layers as layers_module
from gradlab.networks.gaussian_ensemble import GaussianEnsemble, MemberMLP
from gradlab.networks.interface import check_policy, check_rows
from gradlab.networks.layers import tangents
from gradlab.networks.mlp import ACTIVATIONS, Policy, QCritic, mlp
from gradlab.systems import LearnedSystem, from_function
from gradlab.tasks import Task
from tests.systems.ensembles import by_jacrev

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


def rows_of(made, noise=None, **more):
    """Jacobians of a learned system, reward and all where it has a head."""
    system = LearnedSystem(made, None if made.reward else lambda s, a, after: s[:, 0], **more)
    if noise is not None:
        noise = torch.cat([noise, torch.zeros(N, 1).double()], 1)
    linear = system.linearize(STATE, ACTION, noise)
    rows = torch.cat([linear.A, linear.B], 2)
    last = torch.cat([linear.r_s, linear.r_a], 1)[:, None]
    return torch.cat([rows, last], 1) if made.reward else rows


@every_shape
@every_activation
def test_closed_forms_are_those_of_torch_func(activation, hidden, reward, residual):
    made = ensemble(activation, hidden, reward, residual)
    mean, std = by_jacrev(made, STATE, ACTION)
    assert mean.shape == (3, N, DS + reward, DS + DA) and std.abs().max() > 1e-3
    noise = torch.randn(N, DS + reward, dtype=torch.float64)
    for k in range(3):
        found = rows_of(made, noise, elites=(k,))
        wanted = mean[k] + noise[..., None] * std[k]
        torch.testing.assert_close(found, wanted[:, : found.shape[1]], **EXACT)
    found = rows_of(made)
    torch.testing.assert_close(found, mean.mean(0)[:, : found.shape[1]], **EXACT)


@every_activation
def test_slopes_hold_far_out_where_functions_saturate(activation):
    z = torch.tensor([-800.0, -40.0, -1e-9, 1e-9, 19.9, 20.1, 40.0, 800.0], dtype=torch.float64)
    value, slope = layers_module.SLOPES[activation](z)
    want, derivative = torch.func.jvp(ACTIVATIONS[activation](), (z,), (torch.ones_like(z),))
    torch.testing.assert_close(value, want, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slope, derivative, rtol=1e-14, atol=1e-14)


@every_activation
def test_tangents_are_directional_derivatives_of_any_order(activation):
    """Values, and the gradient of a loss on them, are those of torch.func."""
    made = ensemble(activation)
    x, v = torch.randn(3, N, DS + DA).double(), torch.randn(3, N, 2, DS + DA).double()

    def automatic(k):
        return torch.func.jvp(lambda x: made.network.layers()(x), (x,), (v[:, :, k],))

    value, moved = tangents(made.network.layers(), x, v)
    wanted = [automatic(k) for k in range(2)]
    torch.testing.assert_close(value, wanted[0][0], **EXACT)
    torch.testing.assert_close(moved, torch.stack([each[1] for each in wanted], 2), **EXACT)
    parameters = list(made.network.parameters())
    losses = moved.square().sum(), sum(each[1].square().sum() for each in wanted)
    ours, theirs = (torch.autograd.grad(x, parameters, materialize_grads=True) for x in losses)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch):
    made, noise = ensemble(), torch.randn(N, DS + 1, dtype=torch.float64)
    whole = rows_of(made, noise), rows_of(made)
    for size in (1, 3 * 10 * 16 * 8):
        monkeypatch.setattr(layers_module, "CACHE", size)
        torch.testing.assert_close(
            (rows_of(made, noise), rows_of(made)), whole, rtol=1e-13, atol=1e-13
        )


def test_members_may_see_inputs_of_their_own():
    made = ensemble()
    state, action = torch.randn(3, N, DS).double(), torch.randn(3, N, DA).double()
    together = made(state, action)
    for k in range(3):
        torch.testing.assert_close(together.mean[k], made(state[k], action[k]).mean[k])


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


def test_training_together_is_training_apart():
    sizes, target = [DS, 8, 1], STATE[:, :1].sin()
    torch.manual_seed(3)
    together = MemberMLP(3, sizes, "silu").double()
    torch.manual_seed(3)
    apart = [mlp(sizes, "silu").double() for _ in range(3)]
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
    before = rows_of(made)
    parametrize.register_parametrization(made.network.linear[1], "weight", Halved())
    after = rows_of(made)
    torch.testing.assert_close(after, by_jacrev(made, STATE, ACTION)[0].mean(0), **EXACT)
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


ROWS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Mixed(nn.Module):
    """A linear layer, and something over the rows of the batch."""

    def __init__(self, kind, outputs=None, inputs=2):
        super().__init__()
        self.layer, self.kind = nn.Linear(inputs, outputs or 1), kind
        self.norm, self.outputs = nn.BatchNorm1d(outputs or 1, track_running_stats=False), outputs
        self.eval()

    def forward(self, *inputs):
        x = self.layer(torch.cat(inputs, dim=1))
        found = {
            "none": lambda: x,
            "softmax": lambda: torch.softmax(x, dim=0),
            "mean": lambda: x - x.mean(dim=0),
            "batch-norm": lambda: self.norm(x),
        }[self.kind]()
        return found if self.outputs else found[:, 0]


def draws(n, generator):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def world(kind="none"):
    def step(s, a):
        after = torch.tanh(s + 0.3 * a)
        if kind == "state":
            after = after - 0.1 * after.mean(dim=0)
        reward = -(s**2).sum(1)
        return after, reward / reward.sum() if kind == "reward" else reward

    return Task("mixed", from_function(step, 2, 1), None, draws, 0.9, 3)


@pytest.mark.parametrize("kind", ["softmax", "mean", "batch-norm"])
def test_a_policy_that_mixes_rows_is_refused_at_the_door(kind):
    policy = Mixed(kind, outputs=1)
    with pytest.raises(InputError, match="policy mixes the rows of a batch"):
        gradlab.measure(world(), policy, Mixed("none", inputs=3), starts=16)


@pytest.mark.parametrize("kind", ["softmax", "mean", "batch-norm"])
def test_a_critic_that_mixes_rows_is_refused_at_the_door(kind):
    critic = Mixed(kind, inputs=3)
    with pytest.raises(InputError, match="critic mixes the rows of a batch"):
        gradlab.measure(world(), Mixed("none", outputs=1), critic, starts=16)


@pytest.mark.parametrize("kind", ["state", "reward"])
def test_a_simulator_that_mixes_rows_is_refused_at_the_door(kind):
    with pytest.raises(InputError, match="step of the simulator mixes the rows"):
        gradlab.measure(world(kind), Mixed("none", outputs=1), Mixed("none", inputs=3), starts=16)


def test_rounding_noise_and_rows_out_of_range_are_no_mixing():
    check_rows("float32", nn.Linear(3, 5), ROWS.float())
    check_rows("random", lambda x: x + torch.rand_like(x), ROWS)
    check_rows("one row", lambda x: x - x.mean(0), ROWS[:1])

    def guarded(x):
        if not torch.equal(x, ROWS):
            raise ValueError("out of range")
        return x

    check_rows("guarded", guarded, ROWS)


def x(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def held(network):
    """Which layers have norm 1, by numpy's decomposition."""
    return [
        all(abs(value - 1) < 1e-9 for value in layer.values) for layer in spectral.norms(network)
    ]


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("all", [True, True, True, True]),
        ("all_but_last", [True, True, True, False]),
        ("hidden", [False, True, True, False]),
    ],
)
def test_the_chosen_layers_have_norm_one(which, wanted):
    for network in (Policy(3, 2, (8, 9, 7)), QCritic(3, 2, (8, 9, 7))):
        network.double()
        spectral.normalise(network, which)
        assert held(network) == wanted
        assert [layer.normalised for layer in spectral.norms(network)] == wanted
    ensemble = GaussianEnsemble(3, 2, 3, (8, 9, 7)).double()
    spectral.normalise(ensemble, which)
    assert held(ensemble) == wanted
    assert len(spectral.norms(ensemble)[0].values) == 3


def test_power_iterations_agree_with_torchs():
    torch.manual_seed(0)
    ours = Policy(3, 2, (40, 40)).double()
    theirs = [nn.Linear(3, 40), nn.Linear(40, 40), nn.Linear(40, 2)]
    for own, other in zip(ours.network[::2], theirs, strict=True):
        other.double().load_state_dict(own.state_dict())
        spectral_norm(other, n_power_iterations=1)
    spectral.normalise(ours, "all")
    for _ in range(200):
        weights = [layer.weight for layer in ours.network[::2]]
        other_weights = [layer.weight for layer in theirs]
    for own, other in zip(weights, other_weights, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-8)


def test_closed_form_jacobians_are_those_of_the_normalised_model():
    torch.manual_seed(0)
    ensemble = GaussianEnsemble(3, 2, 2, (8, 8)).double()
    spectral.normalise(ensemble, "all_but_last", bound=1.5)
    ensemble.eval()
    state, action = x(6, 3), x(6, 2)

    def mean(s, a):
        return ensemble(s[None], a[None]).mean[:, 0]

    by_state, by_action = vmap(jacrev(mean, (0, 1)))(state, action)
    wanted = torch.cat([by_state, by_action], dim=-1).transpose(0, 1)
    torch.testing.assert_close(by_jacrev(ensemble, state, action)[0], wanted)
    torch.testing.assert_close(by_jacrev(spectral.baked(ensemble), state, action)[0], wanted)


def test_a_baked_network_survives_the_disk(tmp_path):
    for network in (Policy(3, 2, (8, 8)), GaussianEnsemble(3, 2, 2, (8, 8)), QCritic(3, 2)):
        spectral.normalise(network, "all_but_last")
        network.eval()
        plain = spectral.baked(network)
        checkpoint.save(plain, tmp_path / "network.safetensors")
        again = checkpoint.load(tmp_path / "network.safetensors")
        inputs = (
            (x(4, 3).float(),)
            if isinstance(network, Policy)
            else (x(4, 3).float(), x(4, 2).float())
        )
        for one, other in zip(_all(network(*inputs)), _all(again(*inputs)), strict=True):
            torch.testing.assert_close(one, other)
        assert [layer.normalised for layer in spectral.norms(again)] == [False] * 3


def _all(output):
    return [output] if isinstance(output, Tensor) else [output.mean, output.std]


def test_a_policy_that_changes_while_it_is_measured_is_refused():
    policy = Policy(3, 2).double()
    spectral.normalise(policy, "hidden")
    with pytest.raises(InputError, match=r"SpectralNorm in train mode.*eval"):
        check_policy(policy, x(4, 3), 2)
    check_policy(policy.eval(), x(4, 3), 2)


def test_what_cannot_be_normalised_is_refused():
    with pytest.raises(InputError, match="no such layer"):
        spectral.normalise(Policy(3, 2, ()), "hidden")
    with pytest.raises(InputError, match="expected one of all"):
        spectral.normalise(Policy(3, 2), "some")
    with pytest.raises(InputError, match="expected one of all"):  # it has no hash
        spectral.normalise(Policy(3, 2), torch.ones(1))
    policy = Policy(3, 2)
    spectral.normalise(policy, "all")
    with pytest.raises(InputError, match="already"):
        spectral.normalise(policy, "all")
    with pytest.raises(InputError, match="bound"):
        spectral.normalise(Policy(3, 2), "all", bound=0.0)


def test_the_example_of_the_page_on_models_runs():
    page = (Path(__file__).parents[2] / "docs/models.md").read_text()
    printed = next(part for part in page.split("```") if "spectral.normalise(policy" in part)
    names = {"policy": Policy(3, 2, (8, 8))}
    exec(compile(printed.removeprefix("python\n"), "models.md", "exec"), names)
    assert [layer.values[0] for layer in spectral.norms(names["policy"])] == pytest.approx(
        [1.0] * 3
    )
