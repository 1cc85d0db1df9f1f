"""Whatever requires gradients around a measurement, and whatever grad mode it is called in: the
numbers are those of detached parameters, bit for bit, and the user's `.grad` stay as they were."""

import contextlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.fitting import critics, fit_critic, policies, stabilising_policy
from gradlab.measurement.update import Update
from gradlab.systems.system import Linearization, Transition

MODES = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def net(inputs: int, outputs: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs)
        return nn.Sequential(*layers).double()


class Valued(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(3, 1, 1)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([state, action], 1))[:, 0]


class Leaky:
    """A System of the user's own, whose Jacobians carry the graph of its parameters."""

    state_dim, action_dim, noise_dim, differentiable = 2, 1, 0, True

    def __init__(self, inner: gradlab.systems.System, net: nn.Module) -> None:
        self.inner, self.net = inner, net

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        return self.inner.step(state, action)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        found = self.inner.linearize(state, action)
        one = self.net[0].weight.sum() / self.net[0].weight.detach().sum()
        return Linearization(one * found.A, found.B, found.r_s, found.r_a, found.certificate)

    def sample_noise(self, n: int, generator: object, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(n, 0, dtype=dtype)


class World:
    """A learned model, a critic and a policy; `grad`: as torch makes them, or frozen."""

    def __init__(self, grad: bool, leaky: bool = False) -> None:
        self.net, self.critic, self.policy = net(3, 2, 0), Valued(), net(2, 1, 2)
        self.net.requires_grad_(grad)
        self.critic.requires_grad_(grad)

        def step(s: Tensor, a: Tensor, share: float = 0.1) -> tuple[Tensor, Tensor]:
            after = 0.9 * s + share * self.net(torch.cat([s, a], 1))
            return after, -(s**2).sum(1) - (a**2).sum(1)

        def starts(n: int, generator: torch.Generator) -> Tensor:
            drawn = torch.randn(n, 2, generator=generator, dtype=torch.float64)
            return drawn.requires_grad_() if grad and torch.is_grad_enabled() else drawn

        simulator = gradlab.systems.from_function(partial(step, share=0.2), 2, 1)
        model = gradlab.systems.from_function(step, 2, 1)
        model = Leaky(model, self.net) if leaky else model
        self.task = gradlab.Task("mine", simulator, model, starts, discount=0.8, horizon=2)
        self.starts = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(8, 2)

    def estimator(self, actions: str) -> gradlab.Estimator:
        model = self.task.prior
        return gradlab.Estimator(model, model, actions, gradlab.Tail(2, self.critic, 0.8))


def of_parameters(network: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()


def measured(world: World, **more: object) -> np.ndarray:
    found = gradlab.measure(
        world.task, world.policy, world.critic, starts=8, batch=8, judges=8,
        update=Update(refit=1), **more
    )  # fmt: skip
    if "attribute" in more:
        gradlab.attribute(found)
    return found.table()["value"].to_numpy()


CALLS: dict[str, Callable[[World], np.ndarray]] = {
    "measure": lambda w: measured(w),
    "attribute": lambda w: measured(w, law="start", attribute=[2]),
    "gradients": lambda w: w.estimator("first").gradients(w.policy, w.starts).numpy(),
    "mean_gradient": lambda w: w.estimator("all").mean_gradient(w.policy, w.starts).numpy(),
    "compare_jacobians": lambda w: (
        gradlab.compare_jacobians(w.task.simulator, w.task.prior, w.starts, w.policy)
        .table()
        .select_dtypes("number")
        .to_numpy()
    ),
    "fit_critic": lambda w: of_parameters(fit_critic(w.task, w.policy)),
    "stabilising_policy": lambda w: of_parameters(stabilising_policy(w.task)),
}
FROZEN: dict[str, np.ndarray] = {}


@pytest.fixture(autouse=True)
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critics, "UPDATES", 3)
    monkeypatch.setattr(critics, "TRAJECTORIES", 16)
    monkeypatch.setattr(policies, "UPDATES", 3)


@pytest.mark.parametrize(
    ("mode", "leaky"), [("plain", False), ("no_grad", True), ("inference", False)]
)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.sampled(7)
def test_parameters_that_require_gradients_change_no_bit_in_any_mode(name, mode, leaky):
    if name not in FROZEN:
        FROZEN[name] = CALLS[name](World(grad=False))
    world = World(grad=True, leaky=leaky)
    with MODES[mode]():
        found = CALLS[name](world)
    assert np.array_equal(found, FROZEN[name], equal_nan=True)
    networks = world.net, world.critic, world.policy
    assert all(p.grad is None for each in networks for p in each.parameters())


@pytest.mark.parametrize("kind", ["requires_grad", "inference"])
def test_starts_may_come_from_a_graph_or_from_inference_mode(kind):
    world = World(grad=True)
    plain = world.estimator("first").gradients(world.policy, world.starts)
    with torch.inference_mode(kind == "inference"):
        starts = world.starts.clone()
    starts = starts.requires_grad_() if kind == "requires_grad" else starts
    assert torch.equal(world.estimator("first").gradients(world.policy, starts), plain)
    path = gradlab.measure(world.task, world.policy, world.critic, starts=starts, batch=8)
    assert len(path.table()) and starts.grad is None


def test_a_probe_measures_a_learned_model_and_leaves_its_gradients_alone():
    world = World(grad=True)
    optimizer = torch.optim.Adam(world.policy.parameters(), 1e-3)
    probe = gradlab.Probe(
        world.policy,
        optimizer,
        task=world.task,
        critic=world.critic,
        every=1,
    )
    for update in range(3):
        optimizer.zero_grad()
        with probe(update):
            (world.policy(world.starts) ** 2).mean().backward()
        optimizer.step()
    probe.close()
    learned = [*world.net.parameters(), *world.critic.parameters()]
    assert all(p.grad is None for p in learned)
    assert probe._log.rows.get("measured")
