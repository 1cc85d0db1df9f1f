"""A network comes back as it was; anything else ends in one line.

Critics as users have them. Networks that cannot be measured: one line, with the cause and what to
write.
"""

import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import gradlab
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.networks.checkpoint import build
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic, VCritic, as_critic, judge, mlp
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


def test_a_file_of_torch_save_is_refused_with_what_is_read_instead(tmp_path):
    torch.save(Policy(3, 1, (4,)), tmp_path / "policy.pt")
    with pytest.raises(InputError, match=r"policy.pt is damaged or no .* name FILE.py:function"):
        checkpoint.load(tmp_path / "policy.pt")


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


ONE = torch.eye(2, dtype=torch.float64)
TASK = gradlab.tasks.linear_quadratic(
    A=0.8 * ONE, B=ONE[:, :1], Q=ONE, R=ONE[:1, :1], noise_covariance=0.01 * ONE,
    start_mean=torch.ones(2, dtype=torch.float64), start_covariance=ONE, discount=0.8,
)  # fmt: skip
STATES = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)


def network(dtype=torch.float64, width=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def policy():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(2, 1, dtype=torch.float64)


class Row(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.net = network(width=width)

    def forward(self, state, action):
        return self.net(torch.cat([state, action], 1))[:, 0]


class Column(Row):
    def forward(self, state, action):
        return self.net(torch.cat([state, action], 1))


NET = network()
SHAPES = {
    "row": Row(),
    "column": Column(),
    "function": lambda s, a: NET(torch.cat([s, a], 1))[:, 0],
    "column function": lambda s, a: NET(torch.cat([s, a], 1)),
    "method": Row().forward,
}


def tail(critic, **more):
    system = TASK.simulator
    return gradlab.Estimator(system, system, "all", gradlab.Tail(2, critic, 0.8, **more))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_critic_of_any_shape_gives_the_same_numbers(shape):
    plain, other = (tail(SHAPES[name]).gradients(policy(), STATES) for name in ("row", shape))
    assert torch.equal(plain, other)
    soft = [replace(tail(SHAPES[name]), entropy=0.1) for name in ("row", shape)]
    drawn = gradlab.networks.policies.Gaussian(policy(), 0.1)
    assert torch.equal(*(each.mean_gradient(drawn, STATES) for each in soft))


def test_a_function_of_a_float32_network_is_evaluated_in_its_precision_and_says_so():
    single = network(torch.float32)
    with pytest.warns(UserWarning, match="evaluated in float32: give the module itself"):
        found = tail(lambda s, a: single(torch.cat([s, a], 1))).gradients(policy(), STATES)
    wanted = tail(SHAPES["row"]).gradients(policy(), STATES)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert found.dtype == torch.float64


def test_networks_and_starts_of_two_precisions_meet_in_float64():
    single, critic = policy().float(), copy.deepcopy(SHAPES["row"]).float()
    states = STATES.float()
    wanted = tail(critic.double()).gradients(policy().float().double(), states.double())
    critic = critic.float()
    for given in ((single, states.double()), (single.double(), states)):
        found = tail(critic).gradients(*given)
        assert found.dtype == torch.float64
        assert torch.equal(found, wanted)
        assert torch.equal(tail(critic).mean_gradient(*given), tail(critic).mean_gradient(*given))
    single.float()
    assert next(critic.parameters()).dtype == torch.float32, "the user's own is left as it was"
    assert tail(critic).gradients(single, states).dtype == torch.float32


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        (network(), "it is called as critic(state, action)"),
        (lambda s: s[:, 0], "with Tail(value='V') as critic(state)"),
        (lambda s, a: (s[:, :1], s[:, :1]), "critic returns a tuple"),
        (lambda s, a: s.numpy(), "critic returns a ndarray"),
        (Row(8), "critic cannot take inputs of shape (2, 2), (2, 1)"),
        (lambda s, a: s, "critic returns shape (2, 2) for 2 rows, expected [2]"),
        (Row, "critic is the class Row, expected a torch.nn.Module or a function"),
        (3, "critic is int, expected a torch.nn.Module or a function"),
    ],
)
def test_a_critic_that_does_not_fit_is_named_with_how_it_is_called(critic, words):
    for call in (gradlab.measure, lambda *given: tail(critic).gradients(policy(), STATES)):
        with pytest.raises(InputError) as error:
            call(TASK, policy(), critic)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_a_critic_in_a_file_may_be_the_function_itself(tmp_path):
    from gradlab.networks import checkpoint

    (tmp_path / "mine.py").write_text("def value(state, action):\n    return -(state**2).sum(1)\n")
    critic = checkpoint.load(f"{tmp_path}/mine.py:value")
    assert torch.equal(judge(critic, "Q", STATES, STATES[:, :1]), -(STATES**2).sum(1))
    with pytest.raises(InputError, match="policy is a function, expected"):
        gradlab.measure(TASK, critic, critic, starts=8)


def test_functions_have_hashes_of_their_own():
    from gradlab.provenance import network_hash

    one, other = as_critic(lambda s, a: s[:, 0]), as_critic(lambda s, a: s[:, 0] + a[:, 0])
    assert network_hash(one) != network_hash(other)
    assert network_hash(one) == network_hash(as_critic(one.function))


SYSTEM = gradlab.systems.from_function(lambda s, a: (0.9 * s + a, -(s**2).sum(1)), 2, 1)


def starts(n, generator):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


OWN_TASK = gradlab.Task("mine", SYSTEM, None, starts, discount=0.9, horizon=1)
Q = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()


class Actor(nn.Module):
    """What a user writes into forward."""

    def __init__(self, act, noise_dim=None):
        super().__init__()
        self.net, self.act = nn.Linear(2, 1), act
        if noise_dim:
            self.noise_dim = noise_dim

    def forward(self, state):
        return self.act(self.net, state)


def valued(state, action):
    return Q(torch.cat([state, action], 1))


def blind(state, action):
    with torch.no_grad():
        return valued(state, action)


def gradients(critic, policy=None):
    tail = gradlab.Tail(0, critic, 0.9)
    policy = nn.Linear(2, 1, dtype=torch.float64) if policy is None else policy
    return gradlab.Estimator(SYSTEM, None, "first", tail).gradients(policy, STATES)


def old_weight_norm():
    with pytest.warns(FutureWarning):
        return torch.nn.utils.weight_norm(nn.Linear(2, 1))


ELSEWHERE = torch.ones(1, 1, dtype=torch.float64, device="meta")  # as of a GPU


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Actor(lambda net, s: torch.distributions.Normal(net(s), 0.1)),
         "policy returns a Normal: it is called as policy(state)"),
        (lambda: Actor(lambda net, s: {"action": net(s)}),
         "policy returns a dict: it is called as policy(state)"),
        (lambda: Actor(lambda net, s: F.dropout(net(s), 0.05)), "it draws inside forward"),
        (lambda: Actor(lambda net, s: net(s.float())), "dtype"),
        (lambda: nn.Linear(6, 1), "policy cannot take inputs of shape (2, 2)"),
        (lambda: Actor(lambda net, s: torch.tanh(net(s)).mul_(2.0)),
         "cannot be differentiated in its parameters: one of the variables needed"),
        (lambda: Actor(lambda net, s: net(s), noise_dim=1),
         "or policy(state, noise) where it has noise_dim"),
        (lambda: nn.GRU(2, 1), "gradlab.tasks.with_memory of one that remembers"),
        (lambda: nn.LazyLinear(1), "policy has lazy parameters: run one forward pass first"),
        (old_weight_norm, "use those of torch.nn.utils.parametrizations"),
        (lambda: torch.jit.trace(nn.Linear(2, 1), torch.zeros(1, 2)),
         "the module it was made from"),
        (lambda: lambda state: state, "policy is a function, expected a torch.nn.Module"),
        (lambda: Actor, "policy is a class Actor, expected a torch.nn.Module"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_measured_is_told_why(make, words):
    with pytest.raises(InputError) as error:
        gradlab.measure(OWN_TASK, make(), valued, starts=8)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        (blind, "critic has no gradient in its inputs"),
        (lambda s, a: valued(s.detach(), a.detach()), "critic has no gradient in its inputs"),
        (lambda s, a: (9.5 * s[:, 0]).long(), "critic has no gradient in its inputs"),
        (lambda s, a: valued(s, a) + torch.randn(len(s), 1), "critic gives other values for the"),
        (lambda s, a: F.dropout(valued(s, a), 0.05), "critic gives other values for the same"),
        (lambda s, a: 0.0, "critic returns a float"),
        (lambda s, a: [][0], "list index out of range"),
        (lambda s, a: torch.cat([s, ELSEWHERE.expand(len(s), 1)], 1), "device"),
    ],
)
def test_a_critic_that_cannot_be_differentiated_is_told_why(critic, words):
    policy = nn.Linear(2, 1)
    for call in (lambda: gradients(critic), lambda: gradlab.measure(OWN_TASK, policy, critic)):
        with pytest.raises(InputError) as error:
            call()
        assert words in str(error.value) and "\n" not in str(error.value)


class Kept(nn.Module):
    """With a module on the meta device, as TD-MPC2's ensemble keeps one."""

    def __init__(self, inputs):
        super().__init__()
        self.net, self.shape = nn.Linear(inputs, 1), nn.Linear(inputs, 1, device="meta")

    def forward(self, *inputs):
        return self.net(torch.cat(inputs, 1))


def test_parameters_without_values_are_passed_over_in_a_critic_and_refused_in_a_policy():
    profile = gradlab.measure(OWN_TASK, nn.Linear(2, 1), Kept(3), starts=8, rehearse=False)
    assert len(profile.config["critic_hash"]) == 12
    with pytest.raises(InputError, match=r"policy parameter shape\.weight has no values"):
        gradlab.measure(OWN_TASK, Kept(2), valued, starts=8)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_is_a_critic_whose_gradient_is_0(value):
    found = gradients(lambda s, a: torch.full((len(s),), value, dtype=s.dtype))
    assert torch.equal(found, torch.zeros_like(found))


def test_trying_draws_nothing_from_the_users_stream():
    before = torch.get_rng_state()
    with pytest.raises(InputError):
        gradients(lambda s, a: valued(s, a) + torch.randn(len(s), 1), nn.Linear(2, 1).double())
    gradients(valued, (policy := nn.Linear(2, 1).double()))
    torch.set_rng_state(before)
    expected = [nn.Linear(2, 1).double() for _ in range(2)][1].weight
    assert torch.equal(policy.weight, expected)
