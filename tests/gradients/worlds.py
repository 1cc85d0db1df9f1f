"""Small systems, policies and critics on which laws are tested.

A linear system with noise, its policy, critic and starts, for the estimators of the papers.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn

from gradlab import systems
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import jacobian_noise, rollout
from gradlab.gradients.setting import Starts
from gradlab.networks.interface import act
from gradlab.networks.mlp import judge
from gradlab.networks.policies import GaussianPolicy
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.system import System
from gradlab.tasks import inverted_pendulum, path_tracking


def matrix(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def linear(scale: float = 1.0) -> LinearQuadratic:
    A, B = matrix((1.0, 0.1), (0.2, 0.9)), matrix((0.02,), (0.5,))
    eye = torch.eye(2, dtype=torch.float64)
    return LinearQuadratic(scale * A, B / scale, eye, 0.1 * eye[:1, :1], 0.01 * eye)


def nonlinear(gain: float = 1.0) -> System:
    """Two-dimensional, two actions, noise inside a nonlinearity, reward with cross terms."""

    def step(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        speed = torch.tanh(s[:, 1:] + gain * a[:, :1] + 0.1 * xi)
        following = torch.cat([s[:, :1] + 0.2 * speed, speed * torch.cos(s[:, :1] + a[:, 1:])], 1)
        return following, -(s**2).sum(1) - 0.1 * (a**2).sum(1) + 0.3 * s[:, 0] * a[:, 1]

    return systems.from_function(step, state_dim=2, action_dim=2, noise_dim=1)


def worlds() -> dict[str, tuple[System, System, Tensor]]:
    """name → simulator, model, scale of the starts."""
    table3 = path_tracking(parameters="table3")
    pendulum = inverted_pendulum(engine="analytic")
    assert table3.prior is not None and pendulum.prior is not None
    vehicle = torch.tensor([2.0, 0.5, 0.2, 1.0, 0.1, 100.0], dtype=torch.float64)
    return {
        "linear": (linear(), linear(0.95), torch.ones(2, dtype=torch.float64)),
        "nonlinear": (nonlinear(), nonlinear(0.8), torch.ones(2, dtype=torch.float64)),
        "vehicle": (table3.simulator, table3.prior, vehicle),
        "cart-pole": (pendulum.simulator, pendulum.prior, 0.1 * torch.ones(4, dtype=torch.float64)),
    }


class Noisy(nn.Module):
    """A Gaussian policy whose spread is a network output, so that θ sits in linear layers only."""

    def __init__(self, body: nn.Module, action_dim: int) -> None:
        super().__init__()
        self.body, self.noise_dim = body, action_dim

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        mean, spread = self.body(state).chunk(2, dim=1)
        return mean + 0.1 * torch.sigmoid(spread) * noise


def network(sizes: tuple[int, ...], activation: type[nn.Module], bias: bool = True) -> nn.Module:
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(sizes):
        layers += [nn.Linear(wide, narrow, bias=bias), activation()]
    return nn.Sequential(*layers[:-1]).double()


class Critic(nn.Module):
    """Q(s, a), or V(s) where no action is given."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = network((inputs, 8, 1), nn.Tanh)

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat(inputs, dim=1))
        return out[:, 0]


GAMMA = 0.9
SIM, MODEL = nonlinear(), nonlinear(0.8)


def ingredients(squash=False):
    torch.manual_seed(3)
    policy = GaussianPolicy(2, 2, hidden=(8,), squash=squash).double()
    starts = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return policy, Critic(4), starts


def same(a, b, policy, starts):
    found = (each.gradients(policy, starts, seed=5) for each in (a, b))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def reference_gradients(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int = 0,
    termination: str = "ignore",
) -> Tensor:
    """Per-sample gradients [N, P] by one backward pass per start; differentiable systems only.

    Nothing is shared with the sweeps: derivatives come from autograd through `System.step`. Where
    the differentiated system is not the one that makes the states, the model's derivative is
    spliced onto the simulator's value by x.detach() + (y − y.detach()).
    """
    states, tail, horizon = estimator.states, estimator.tail, estimator.tail.horizon
    jacobians = states if estimator.jacobians is None else estimator.jacobians
    frozen = copy.deepcopy(policy)
    later = policy if estimator.way.all_actions else frozen
    path = rollout(states, policy, starts, horizon, seed)
    xi = jacobian_noise(states, jacobians, path)
    s, total, discounting = starts.states, starts.states.new_zeros(len(starts.weight)), 1.0
    for t in range(horizon):
        a = act(policy if t == 0 else later, s, path.policy_noise[t])
        out = jacobians.step(s, a, None if xi is None else xi[t])
        mask = path.alive[t].to(s.dtype) if termination == "mask" else 1.0
        total = total + discounting * mask * out.reward
        s = path.states[t + 1] + (out.state - out.state.detach())
        discounting *= tail.discount
    if tail.critic is not None:
        mask = path.alive[horizon].to(s.dtype) if termination == "mask" else 1.0
        tail_policy = policy if horizon == 0 else later
        if tail.terminal_action == "detached":
            tail_policy = frozen
        a = act(tail_policy, s, path.policy_noise[horizon])
        total = total + discounting * mask * judge(tail.critic, tail.value, s, a)
    parameters, gradients = list(policy.parameters()), []
    trained = [p for p in parameters if p.requires_grad]
    for term in total * starts.weight:  # zeros for frozen and unused parameters
        grads = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True)
        given = {id(p): g for p, g in zip(trained, grads, strict=True) if g is not None}
        flat = [given.get(id(p), torch.zeros_like(p)).flatten() for p in parameters]
        gradients.append(torch.cat(flat))
    return torch.stack(gradients)
