"""Spectral normalisation: the norms it gives, the Jacobians and files that come of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn.utils.parametrizations import spectral_norm

from gradlab.errors import InputError
from gradlab.networks import checkpoint, spectral
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.interface import check_policy
from gradlab.networks.mlp import Policy, QCritic
from tests.systems.ensembles import by_jacrev


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
    page = (Path(__file__).parents[2] / "docs/howto/models.md").read_text()
    printed = next(part for part in page.split("```") if "spectral.normalise(policy" in part)
    names = {"policy": Policy(3, 2, (8, 8))}
    exec(compile(printed.removeprefix("python\n"), "models.md", "exec"), names)
    assert [layer.values[0] for layer in spectral.norms(names["policy"])] == pytest.approx(
        [1.0] * 3
    )
