"""On a CUDA device the numbers are those of the processor; without one these count as skipped."""

import copy

import pytest
import torch

import gradlab
from gradlab.gradients import gram
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.gram import path_mean_gradients, path_squared_norms
from gradlab.gradients.policy_jacobian import Factor, PolicyJacobian, policy_jacobian
from gradlab.gradients.starts import as_starts, by_group, group_sums, grouping
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.systems import LearnedSystem
from gradlab.training.loop import train
from tests.training.small_runs import SMALL, numbers, row, task

HERE = torch.cuda.is_available()
on_device = pytest.mark.skipif(not HERE, reason="no CUDA device")
N, H = 32, 5


def both(*values):
    """Copies on the processor and on the device."""
    return [[copy.deepcopy(value).to(place) for value in values] for place in ("cpu", "cuda")]


def equal(there, here, rtol=1e-10):
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=rtol, atol=rtol * float(here.abs().max()))


@pytest.mark.cuda
@on_device
@pytest.mark.parametrize("actions", ["first", "all", "score"])
def test_every_horizon_has_the_same_means_and_norms(actions):
    torch.manual_seed(0)
    world = gradlab.tasks.path_tracking()
    model, gamma = world.prior, world.discount
    sizes = model.state_dim, model.action_dim
    policy = Policy(*sizes, hidden=(64, 64)).double()
    policy = Gaussian(policy, std=0.1).double() if actions == "score" else policy
    critic = QCritic(*sizes, hidden=(16,)).double()
    starts = world.starts(N, torch.Generator().manual_seed(0)).double()
    found = []
    for network, value, s in both(policy, critic, starts):
        tail = gradlab.Tail(H, value, gamma)
        differentiated = None if actions == "score" else model
        estimator = gradlab.Estimator(model, differentiated, actions, tail)
        found.append(horizon_gradients(estimator, network, as_starts(s, sizes[0])))
    here, there = found
    equal(there.means, here.means)
    equal(there.squared_norms, here.squared_norms)


@pytest.mark.cuda
@on_device
def test_gram_kernels_are_the_same():
    torch.manual_seed(0)
    policy = Policy(3, 2, hidden=(16, 16)).double()
    states, g = torch.randn(N, 3).double(), torch.randn(4, N, 2).double()
    v = torch.randn(2, sum(p.numel() for p in policy.parameters())).double()
    group = torch.arange(N) // 4
    found = []
    for network, s, of, direction, label in both(policy, states, g, v, group):
        jacobian = policy_jacobian(network, s, s.new_zeros(N, 0))
        total, within = gram.products(jacobian, of, label)
        found.append([
            gram.squared_norms(jacobian, of), gram.mean_gradients(jacobian, of),
            gram.along(jacobian, direction), total, within,
        ])  # fmt: skip
    for here, there in zip(*found, strict=True):
        equal(there, here)


@pytest.mark.cuda
@on_device
def test_sums_over_groups_are_the_same():
    starts = as_starts(torch.randn(N, 3).double(), 3)
    label, size = grouping(as_starts(starts.states.cuda(), 3))
    assert label.is_cuda
    assert size.sum() == N
    x = torch.randn(2, N).double()
    assert by_group(x.cuda(), label // 2) == pytest.approx(by_group(x, label.cpu() // 2))
    equal(group_sums(x.T.cuda(), label // 2), group_sums(x.T, label.cpu() // 2))


@pytest.mark.cuda
@on_device
def test_jacobians_of_an_ensemble_are_the_same():
    torch.manual_seed(0)
    ensemble = GaussianEnsemble(4, 2, members=3, hidden=(32, 32)).double().requires_grad_(False)
    s, a, noise = (torch.randn(*shape).double() for shape in ((N, 4), (N, 2), (N, 6)))
    noise[:, -1] = torch.rand(N).double()  # chooses the member
    found = []
    for network, state, action, xi in both(ensemble, s, a, noise):
        linear = LearnedSystem(network).linearize(state, action, xi)
        found.append([linear.A, linear.B, linear.r_s, linear.r_a])
    for here, there in zip(*found, strict=True):
        equal(there, here)


@pytest.mark.cuda
@on_device
@pytest.mark.parametrize("name", ["td3", "sac", "mpg-v2"])
def test_training_takes_the_same_first_steps(name, tmp_path):
    """float32 on both: updates differ by rounding alone, from the same draws."""
    short = SMALL | {"precision": "float32"}
    here, there = (
        numbers(train(row(name), task(), tmp_path / f"{place}.h5", **short, device=place))
        for place in ("cpu", "cuda")
    )
    torch.testing.assert_close(there, here, rtol=1e-2, atol=1e-3)


@pytest.fixture
def placed():
    """Tensors of the device "meta": no kernel may make one on the processor beside them."""
    return lambda *shape: torch.empty(*shape, device="meta", dtype=torch.float64)


def test_kernels_keep_to_the_device_of_their_inputs(placed):
    steps, width, da = 3, 5, 2
    rows = steps * N
    factor = Factor(placed(rows, da, width), placed(rows, 4), slice(0, 20), slice(20, 25))
    jacobian = PolicyJacobian((factor,), 25, rows, da)
    costates, g = placed(6, steps, N, da), placed(6, rows, da)
    made = [
        path_squared_norms(jacobian, costates),
        path_mean_gradients(jacobian, costates, (2,) * 6),
        gram.path_gradients(jacobian, costates[0]),
        gram.squared_norms(jacobian, g),
        gram.mean_gradients(jacobian, g),
        gram.along(jacobian, placed(2, 25)),
        gram.along_each(jacobian, placed(rows, 25)),
        gram.along_own(jacobian, placed(N, 25)),
    ]
    assert {tensor.device.type for tensor in made} == {"meta"}
