"""On a CUDA device the numbers are those of the processor; without one these count as skipped."""

import copy

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import Factor, PolicyJacobian, policy_jacobian
from gradlab.gradients.setting import as_starts, by_group, group_sums, grouping
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.systems import LearnedSystem, from_function
from gradlab.training.loop import train
from tests.gradients.every_horizon import horizon_gradients
from tests.probe.small_loops import linear_task
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
    found = []
    for network, s, of, direction in both(policy, states, g, v):
        jacobian = policy_jacobian(network, s, s.new_zeros(N, 0))
        found.append([
            jacobian.squared_norms(of[:, None]), jacobian.T @ of, jacobian @ direction,
            jacobian.gram(), jacobian.gradients(of[:1]),
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


@pytest.mark.cuda
@on_device
@pytest.mark.parametrize("name", ["td3", "mbpo"])
def test_a_training_goes_on_from_where_it_was_stopped(name, tmp_path):
    """Between two rows, with a model whose optimiser counts its steps on the device."""

    def stop(part, done, of):
        if part == "training" and done >= 33:
            raise KeyboardInterrupt

    settings = SMALL | {"device": "cuda"}
    whole = numbers(train(row(name), task(), tmp_path / "whole.h5", **settings))
    with pytest.raises(KeyboardInterrupt):
        train(row(name), task(), tmp_path / "parts.h5", **settings, progress=stop)
    parts = numbers(train(row(name), task(), tmp_path / "parts.h5", **settings, resume=True))
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


def profiled(task, policy, critic, starts=16):
    profile = gradlab.measure(task, policy, critic, horizon=2, starts=starts, batch=8)
    return torch.from_numpy(profile.table()["value"].to_numpy(copy=True)).nan_to_num()


@pytest.mark.cuda
@on_device
def test_networks_starts_and_steps_of_the_device_are_measured_as_on_the_processor():
    torch.manual_seed(0)
    world = linear_task()
    networks = Policy(2, 1, hidden=(8,)).double(), QCritic(2, 1, hidden=(8,)).double()
    here, there = (profiled(world, *each) for each in both(*networks))
    torch.testing.assert_close(there, here, rtol=0, atol=0)

    actor, critic = both(*networks)[1]

    def plain(state, action):
        return 0.8 * state + torch.cat([action, action], 1), -state.square().sum(1)

    def there_and_left(state, action):
        return tuple(x.cuda() for x in plain(state, action))

    def starts(n, generator):
        return world.starts(n, generator).cuda()

    found = []
    for step, law in ((plain, world.starts), (there_and_left, starts)):
        system = from_function(step, 2, 1)
        moved = gradlab.Task("there", system, system, law, 0.8, 5)
        found.append(profiled(moved, actor, lambda s, a: critic(s.cuda(), a.cuda())))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    mixed = from_function(lambda s, a: (s, s[:, 0] @ torch.eye(len(s), device="cuda")), 2, 1)
    with pytest.raises(InputError, match=r"its states are on cpu; .*\.to\(state\.device\)"):
        mixed.step(torch.zeros(3, 2), torch.zeros(3, 1))


def watched(place, lost=-1, updates=300):
    """Rows and alarms of a small critic-alone loop; at one update the loss is NaN."""
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2), nn.Tanh()).double()
    critic = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    states = torch.randn(updates, 32, 3, dtype=torch.float64).to(place)
    actor, critic = actor.to(place), critic.to(place)
    target = copy.deepcopy(critic)
    steps, fits = (torch.optim.Adam(x.parameters(), 1e-3) for x in (actor, critic))
    rows = []
    probe = gradlab.Probe(actor, steps, log=rows.append, critic_alone=True)
    probe.networks(critic=critic, target=target, optimizers={"critic": fits})
    for k, s in enumerate(states):
        with torch.no_grad():
            value = target(torch.cat([s, actor(s)], 1))
        fits.zero_grad()
        (
            critic(torch.cat([s, actor(s).detach()], 1)) - s[:, :1] - 0.9 * value
        ).square().mean().backward()
        fits.step()
        steps.zero_grad()
        loss = -critic(torch.cat([s, actor(s)], 1)).mean()
        with probe(k):
            (loss * (torch.nan if k == lost else 1.0)).backward()
        steps.step()
    probe.close()
    return rows, probe.alarms


@pytest.mark.cuda
@on_device
def test_a_probe_finds_the_same_in_a_loop_on_the_device():
    """Its target is never updated."""
    (here, alarms), (there, others) = watched("cpu"), watched("cuda")
    assert "moved_target_frozen" in [alarm.code for alarm in alarms]
    assert [(a.code, a.message) for a in alarms] == [(a.code, a.message) for a in others]
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for name in (name for name in one if name.startswith("vitals/")):
            if isinstance(one[name], float):
                assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-12, nan_ok=True)


@pytest.mark.cuda
@on_device
def test_an_update_that_is_lost_on_the_device_is_named():
    _, alarms = watched("cuda", lost=41)
    found = next(alarm for alarm in alarms if alarm.code == "non-finite gradient")
    assert "update 42" in found.message
    assert any("since update 42" in alarm.message for alarm in alarms)


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
        jacobian.squared_norms(costates),
        jacobian.gradients(costates[0]),
        jacobian.T @ g,
        jacobian @ placed(2, 25),
        jacobian.along_own(placed(N, 25)),
    ]
    assert {tensor.device.type for tensor in made} == {"meta"}
