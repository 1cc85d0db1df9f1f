"""A network comes back as it was; anything else ends in one line."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.networks.checkpoint import build
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic, VCritic, mlp
from gradlab.networks.policies import Gaussian, GaussianPolicy

STATE, ACTION = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)


SCALE, LIMITS = (1.0, 0.1, 1 / 3), (0.3, 2.0)
NETWORKS = {
    "policy": lambda: Policy(3, 2, (16, 8), "tanh", SCALE),
    "linear policy": lambda: Policy(3, 2, (), limit=LIMITS),
    "Q": lambda: QCritic(3, 2, (16, 8), "silu", scale=None, bias=False),
    "V": lambda: VCritic(3, (8,), "relu"),
    "gaussian": lambda: GaussianPolicy(3, 2, (8,), "silu", SCALE, False, None, (-4.0, 1.0)),
    "squashed": lambda: GaussianPolicy(3, 2, (8,), squash=True, limit=LIMITS),
    "one std": lambda: Gaussian(Policy(3, 2, (8,), bias=False), 0.1),
    "stds": lambda: Gaussian(Policy(3, 2, (8,)), (0.1, 0.3)),
    "ensemble": lambda: GaussianEnsemble(3, 2, 4, (8, 8), reward=False),
    "deterministic ensemble": lambda: GaussianEnsemble(3, 2, 2, (8,), network="deterministic"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_comes_back_bit_for_bit(tmp_path, dtype, kind):
    network = NETWORKS[kind]().to(dtype)
    checkpoint.save(network, tmp_path / "n.safetensors")
    again = checkpoint.load(tmp_path / "n.safetensors")
    assert type(again) is type(network)
    assert all(p.requires_grad for p in again.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["n.safetensors"]
    alone = kind in ("policy", "linear policy", "V")
    inputs = (STATE.to(dtype),) if alone else (STATE.to(dtype), ACTION.to(dtype))
    found, wanted = (_outputs(one(*inputs)) for one in (again, network))
    assert found[0].dtype == dtype and all(map(torch.equal, found, wanted))


def _outputs(found):
    return [found] if isinstance(found, torch.Tensor) else [found.mean, found.std]


def test_the_scale_is_the_first_layer_and_no_parameter():
    scale = [2.0, 0.5, 4.0]
    scaled, plain = Policy(3, 1, (8,), scale=scale), Policy(3, 1, (8,))
    layers = scaled.network[1:].state_dict().values()
    plain.network.load_state_dict(dict(zip(plain.network.state_dict(), layers, strict=True)))
    state = STATE.float()
    assert torch.equal(scaled(state), plain(state * torch.tensor(scale)))
    assert len(list(scaled.parameters())) == len(list(plain.parameters()))


@pytest.mark.parametrize(
    "architecture",
    [
        {"kind": "gaussian"},
        {"kind": "gaussian", "policy": 3, "std": 0.1},
        {"kind": "gaussian", "policy": {"kind": "policy", "state_dim": 3}, "std": 0.1},
        {"kind": "gaussian", "policy": Policy(3, 1, (4,)).architecture, "std": "a"},
        {"kind": "gaussian", "policy": Policy(3, 1, (4,)).architecture, "std": [0.1, -0.1]},
        GaussianPolicy(3, 1).architecture | {"log_std_bounds": [0.0, float("nan")]},
        GaussianPolicy(3, 1).architecture | {"limit": 1.0},
        GaussianPolicy(3, 1).architecture | {"action_dim": "two"},
    ],
)
def test_an_architecture_of_no_stochastic_policy_is_refused(architecture):
    with pytest.raises(InputError):
        build(architecture)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3],), "sizes"),
        (([3, 0, 1],), "sizes"),
        (([3, 1], "step"), "elu"),
        (([3, 1], "elu", [1.0]), "scale has 1"),
    ],
)
def test_a_wrong_network_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        mlp(*arguments)


HOSTILE = (
    *("text", "truncated", "foreign", "bad JSON", "no dictionary", "integers", "giant"),
    *("unknown kind", "unknown argument", "wrong type", "wrong hidden", "wrong scale"),
    "wrong size",
)


def hostile(path, how):
    policy = Policy(3, 1, (4,))
    tensors, architecture = policy.state_dict(), dict(policy.architecture)
    if how == "text":
        path.write_text("not safetensors")
    elif how == "truncated":
        checkpoint.save(policy, path)
        path.write_bytes(path.read_bytes()[:-8])
    elif how == "foreign":
        save_file(tensors, path)
    else:
        changes: dict[str, dict[str, object]] = {
            "unknown kind": {"kind": "transformer"},
            "unknown argument": {"depth": 3},
            "giant": {"hidden": [10**6, 10**6]},
            "wrong type": {"state_dim": "three"},
            "wrong hidden": {"hidden": 7},
            "wrong scale": {"scale": "abc"},
            "wrong size": {"state_dim": 4},
        }
        if how == "integers":
            tensors = {name: value.int() for name, value in tensors.items()}
        text = "{" if how == "bad JSON" else json.dumps(architecture | changes.get(how, {}))
        text = "[1]" if how == "no dictionary" else text
        save_file(tensors, path, {checkpoint.KEY: text})


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_checkpoint_is_refused_in_one_line(tmp_path, how):
    path = tmp_path / "policy.safetensors"
    hostile(path, how)
    with pytest.raises(InputError) as caught:
        checkpoint.load(path)
    assert "policy.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


OWN = """
import torch
def policy():
    return torch.nn.Linear(3, 2)
no = 3
def bad():
    return 1
"""


def test_a_network_of_ones_own_is_called_by_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    assert checkpoint.load(f"{file}:policy")(STATE.float()).shape == (5, 2)
    for name, message in (("nothing", "no function"), ("no", "returned 3"), ("bad", "returned ")):
        with pytest.raises(InputError, match=message):
            checkpoint.load(f"{file}:{name}")
    with pytest.raises(InputError, match="no such file"):
        checkpoint.load(f"{tmp_path}/absent.py:policy")


def test_a_foreign_module_cannot_be_saved_and_says_how_to_keep_it(tmp_path):
    for module in (torch.nn.Linear(1, 1), Gaussian(torch.nn.Linear(1, 1), 0.1)):
        with pytest.raises(InputError, match=r"file\.py:function"):
            checkpoint.save(module, tmp_path / "x.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        checkpoint.save(Policy(1, 1), tmp_path / "file/x.safetensors")
