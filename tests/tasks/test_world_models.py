"""World models with latents of their own, against autograd through loops as their users write.

Policies that remember, against autograd through the recurrent loop as its user writes it.
"""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.errors import InputError
from gradlab.gradients.setting import as_starts
from gradlab.measurement.config import MeasureConfig
from gradlab.measurement.resolve import resolve
from gradlab.networks.interface import flat_parameters
from gradlab.networks.policies import GaussianPolicy
from gradlab.runs.identity import by_known_name, competing
from gradlab.systems import from_function
from tests.integrations.bits import example

GAMMA, HORIZON = 0.95, 6


class Recurrent(nn.Module):
    """(observation, memory) → (action, memory), by one of torch's cells."""

    def __init__(self, kind, seen):
        super().__init__()
        self.kind = kind
        cells = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "plain": nn.RNNCell, "stacked": nn.Linear}
        cell = cells[kind]
        self.width = {"lstm": 10, "stacked": 2 * seen}.get(kind, 5)
        self.cell = cell(3 * seen, 5) if kind == "stacked" else cell(seen, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, seen, memory):
        if self.kind in ("gru", "plain"):
            memory = self.cell(seen, memory)
            return self.head(memory), memory
        if self.kind == "lstm":
            hidden, cell = self.cell(seen, tuple(memory.chunk(2, 1)))
            return self.head(hidden), torch.cat([hidden, cell], 1)
        frames = torch.cat([seen, memory], 1)
        return self.head(torch.tanh(self.cell(frames))), frames[:, : self.width]


def pushed(state, action):
    """A cart with friction on a spring, of which policies see the place alone."""
    place, speed = state[:, :1], state[:, 1:]
    after = torch.cat([place + 0.1 * speed, 0.95 * speed - 0.1 * torch.sin(place) + action], 1)
    return after, -(place[:, 0] ** 2) - 0.1 * action[:, 0] ** 2


def cart():
    return gradlab.Task(
        "cart", from_function(pushed, 2, 1), None,
        lambda n, generator: torch.randn(n, 2, generator=generator, dtype=torch.float64),
        GAMMA, HORIZON,
    )  # fmt: skip


def see_position(state):
    return state[:, :1]


@pytest.mark.parametrize("kind", ["gru", "plain", "lstm", "stacked"])
def test_bptt_through_the_memory_is_that_of_the_recurrent_loop(kind):
    torch.manual_seed(0)
    policy = Recurrent(kind, 1).double()
    task, wide, critic = gradlab.tasks.with_memory(cart(), policy, policy.width, see_position)
    assert critic is None and task.simulator.state_dim == 2 + policy.width
    begin = task.starts(16, torch.Generator().manual_seed(1))
    estimator = Estimator(task.simulator, task.simulator, "all", Tail(HORIZON, None, GAMMA))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no Jacobians are formed explicitly
        got = estimator.gradients(wide, begin).mean(0)
    state, memory, total = begin[:, :2], torch.zeros(16, policy.width).double(), torch.zeros(())
    for t in range(HORIZON):
        action, memory = policy(see_position(state), memory)
        state, reward = pushed(state, action)
        total = total + GAMMA**t * reward.mean()
    want = torch.autograd.grad(total, list(wide.parameters()))
    assert {id(p) for p in wide.parameters()} == {id(p) for p in policy.parameters()}
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in want]), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_recurrent_policy_is_measured_and_its_first_step_helps():
    torch.manual_seed(0)
    policy = Recurrent("gru", 1)
    task, wide, _ = gradlab.tasks.with_memory(cart(), policy, 5, see_position)
    whole = Estimator(task.simulator, task.simulator, "all", Tail(HORIZON, None, GAMMA))
    profile = gradlab.measure(
        task, wide, None, {"bptt": whole}, horizon=HORIZON, starts=64, rehearse=False
    )
    table = profile.realised.table()
    of_bptt = table[(table.estimator == "bptt") & (table.horizon == HORIZON) & table["update"]]
    assert (of_bptt.ci_low > 0).all() and len(of_bptt) == 1


def test_a_critic_sees_what_the_policy_sees():
    class Q(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, seen, action):
            return self.layer(torch.cat([seen, action], 1))[:, 0]

    inner = Q()
    task, _, critic = gradlab.tasks.with_memory(cart(), Recurrent("gru", 1), 5, see_position, inner)
    state, action = torch.randn(4, 7), torch.randn(4, 6)
    assert torch.equal(critic(state, action), inner(state[:, :1], action[:, :1]))
    assert task.simulator.action_dim == 6


class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.layer, self.answer = nn.Linear(1, 1), answer

    def forward(self, seen, memory=None):
        action = self.layer(seen)
        if self.answer == "action alone":
            return action
        if self.answer == "hidden of another batch":
            return action, torch.zeros(1, 5)
        return (torch.cat([action, action], 1), memory)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("action alone", r"policy returned .*expected \(action, next memory\)"),
        ("hidden of another batch", r"shape \(1, 5\), .*the memory \[2, 5\]"),
        ("two actions", "policy gives 2 actions for an observation, the task has 1"),
    ],
)
def test_policies_of_other_shapes_are_refused(answer, words):
    with pytest.raises(InputError, match=words):
        gradlab.tasks.with_memory(cart(), Wrong(answer), 5, see_position)


def test_an_observation_of_all_states_at_once_is_refused():
    with pytest.raises(InputError, match=r"what observe returns .*expected a tensor \[2, …\]"):
        gradlab.tasks.with_memory(cart(), Wrong(""), 5, lambda s: s.mean(0, keepdim=True))


def see(state):
    return torch.cat([state[:, :1].sin(), state[:, :1].cos(), state[:, 1:]], 1)


def net(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


class Latent(nn.Module):
    """Latent step, reward and policy."""

    def __init__(self, encoded, critic):
        super().__init__()
        self.latent_dim, self.policy = 4, net(4, 1)
        self.encoder, self.dynamics = net(encoded, 4), net(5, 4)
        self.paid, self.critic = net(5, 1), net(critic, 1)

    def step(self, z, a):
        return z + self.dynamics(torch.cat([z, a], 1))

    def reward(self, z, a):
        return self.paid(torch.cat([z, a], 1))


class World(Latent):
    """Like TD-MPC2: an encoder and Q."""

    def __init__(self):
        super().__init__(3, 5)

    def encode(self, seen):
        return self.encoder(seen)

    def q(self, z, a):
        return self.critic(torch.cat([z, a], 1))


class Filter(Latent):
    """Like a recurrent state-space model's posterior, and a value as Dreamer's."""

    def __init__(self):
        super().__init__(8, 4)

    def encode(self, seen, z, a):
        return self.encoder(torch.cat([seen, z, a], 1))

    def value(self, z):
        return self.critic(z)


class Mixing(World):
    def encode(self, seen):
        return self.encoder(seen) - self.encoder(seen).mean(0)


class Valueless(Latent):
    encode = World.encode


def made(kind):
    torch.manual_seed(0)
    model = kind().double()
    task, policy, critic = gradlab.tasks.with_world_model(cart(), model, see)
    return model, task, policy, critic, task.starts(8, torch.Generator().manual_seed(1))


def first_latent(model, state):
    if isinstance(model, Filter):
        return model.encode(see(state), torch.zeros(8, 4).double(), torch.zeros(8, 1).double())
    return model.encode(see(state))


def gradient(total, policy):
    rows = torch.autograd.grad(total, list(policy.parameters()))
    return torch.cat([g.flatten() for g in rows])


@pytest.mark.parametrize("kind", [World, Filter])
def test_imagined_gradients_are_those_of_the_loop_in_the_latent(kind):
    model, task, policy, critic, begin = made(kind)
    z, total = first_latent(model, begin[:, :2]).detach(), torch.zeros(8).double()
    torch.testing.assert_close(begin[:, 2:], z)
    for t in range(3):
        a = model.policy(z)
        total = total + GAMMA**t * model.reward(z, a)[:, 0]
        z = model.step(z, a)
    a = model.policy(z)
    if kind is Filter:
        tail = model.reward(z, a)[:, 0] + GAMMA * model.value(model.step(z, a))[:, 0]
    else:
        tail = model.q(z, a)[:, 0]
    want = gradient((total + GAMMA**3 * tail).mean(), model.policy)
    estimator = Estimator(task.prior, task.prior, "all", Tail(3, critic, GAMMA))
    got = estimator.gradients(policy, begin).mean(0)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert torch.equal(flat_parameters(policy), flat_parameters(model.policy))


@pytest.mark.parametrize("kind", [World, Filter])
def test_the_environments_gradient_passes_through_the_encoder(kind):
    model, task, policy, _, begin = made(kind)
    s, total = begin[:, :2], torch.zeros(8).double()
    z = first_latent(model, s)
    for t in range(HORIZON):
        a = model.policy(z)
        s, r = pushed(s, a)
        z = model.encode(see(s), z, a) if kind is Filter else model.encode(see(s))
        total = total + GAMMA**t * r
    estimator = Estimator(task.simulator, task.simulator, "all", Tail(HORIZON, None, GAMMA))
    got = estimator.gradients(policy, begin).mean(0)
    torch.testing.assert_close(got, gradient(total.mean(), model.policy), rtol=1e-9, atol=1e-12)


def test_scores_of_a_gaussian_policy_are_those_of_the_loop_in_the_latent():
    """REINFORCE in imagination (Dreamer): Σ_t ∇log π_t · what is paid from t on."""
    torch.manual_seed(0)
    model = World().double()
    model.policy = GaussianPolicy(4, 1, (8,), squash=True, limit=2.0).double()
    task, policy, critic = gradlab.tasks.with_world_model(cart(), model, see)
    begin = as_starts(task.starts(8, torch.Generator().manual_seed(1)), 6)
    z, states, noise, paid = begin.states[:, 2:], [], [], []
    for t in range(3):
        noise.append(begin.policy_noise(policy, 5, t))
        states.append(z)
        a = model.policy(z, noise[t]).detach()
        paid.append(GAMMA**t * model.reward(z, a)[:, 0].detach())
        z = model.step(z, a).detach()
    noise.append(begin.policy_noise(policy, 5, 3))
    states.append(z)
    paid.append(GAMMA**3 * model.q(z, model.policy(z, noise[3]))[:, 0].detach())
    density = model.policy.log_prob_of_draw
    total = sum(density(states[t], noise[t]) * sum(paid[t:]) for t in range(4))
    want = gradient(total.mean(), model.policy)
    estimator = Estimator(task.prior, None, "score", Tail(3, critic, GAMMA))
    got = estimator.gradients(policy, begin, seed=5).mean(0)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        policy.infer_noise(begin.states, policy(begin.states, noise[0])), noise[0]
    )


def test_a_policy_with_a_density_is_measured_by_its_scores_in_the_latent_too():
    torch.manual_seed(0)
    model = World().double()
    plain, density = model.policy, GaussianPolicy(4, 1, (8,), squash=True, limit=2.0).double()
    for policy, beside in ((plain, {}), (density, {"model_score": "none", "model_ivw": "model"})):
        model.policy = policy
        given = gradlab.tasks.with_world_model(cart(), model, see)
        posed = resolve(MeasureConfig(horizon=3, starts=16, batch=64), *given)
        added = {
            name: identity.jacobians
            for name, identity in posed.identities.items()
            if identity.actions in ("score", "ivw")
        }
        assert added == beside
        for name in added:
            assert posed.chosen[name].states is posed.task.prior
            assert by_known_name([name])[name] == replace(posed.identities[name], ambiguous=False)
        assert set(added) <= set(competing(posed.identities))


@pytest.mark.slow
def test_a_world_model_is_measured_against_what_the_environment_pays():
    _, task, policy, critic, _ = made(World)
    profile = gradlab.measure(task, policy, critic, horizon=3, starts=64, rehearse=False)
    table = profile.table().set_index(["estimator", "quantity", "horizon"])
    assert {"data", "model", "mixed", "true_dynamics", "model_all", "mixed_all"} <= set(
        table.index.get_level_values(0)
    )
    # Networks at random know nothing: what they imagine is biased, the environment's own is not.
    assert table.loc[("model_all", "relative_mse", 3), "value"] > 0.5


@pytest.mark.parametrize("name", ["encode", "step", "reward", "policy"])
def test_what_a_model_lacks_is_named_with_its_signature(name):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            whole = World()
            for part in {"encode", "step", "reward", "policy", "q"} - {name}:
                setattr(self, part, getattr(whole, part))

    with pytest.raises(InputError, match=f"model has no {name}"):
        gradlab.tasks.with_world_model(cart(), Model(), see)


def test_models_of_other_observations_without_a_value_or_that_mix_rows_are_refused():
    with pytest.raises(
        InputError, match=r"model.encode .*shapes.*observations \[2, 2\]; observe=state"
    ):
        gradlab.tasks.with_world_model(cart(), World())
    with pytest.raises(InputError, match=r"no q\(latent, action\), or value\(z\)"):
        gradlab.tasks.with_world_model(cart(), Valueless(3, 5), see)
    with pytest.raises(InputError, match=r"model.encode mixes the rows"):
        gradlab.tasks.with_world_model(cart(), Mixing(), see)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("encode", lambda x: nn.functional.dropout(x, 0.5), r"model\.encode gives other values"),
        ("step", lambda x: x + torch.randn_like(x), r"model\.step gives other values"),
        ("reward", lambda x: x.repeat(1, 2), r"reward"),
        ("q", lambda x: x + torch.randn_like(x), r"q gives other values"),
    ],
)
def test_parts_that_draw_inside_or_have_another_shape_are_refused(part, change, words):
    whole = getattr(World, part)
    changed = type("Changed", (World,), {part: lambda self, *given: change(whole(self, *given))})
    model = changed()
    with pytest.raises(InputError, match=words):
        gradlab.tasks.with_world_model(cart(), model, see)


@pytest.mark.parametrize("kind", ["tdmpc", "dreamer", "jepa"])
def test_a_loss_moves_every_part(kind):
    torch.manual_seed(0)
    module = example("world_models")
    model = module.KINDS[kind](3, (2.0,), 0.97)
    target = copy.deepcopy(model).requires_grad_(False)
    o, a, r = torch.randn(6, 32, 3), torch.randn(5, 32, 1), torch.randn(5, 32)
    loss = model.loss(target, o, a, r)
    loss.backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    unused = {"jepa": ("paid", "policy"), "dreamer": ("encoder", "dynamics")}.get(kind, ())
    assert loss.isfinite() and {name.split(".")[0] for name in still} == set(unused)


@pytest.mark.parametrize("kind", ["tdmpc", "dreamer", "jepa"])
def test_a_checkpoint_is_a_task_with_its_latents(kind, tmp_path):
    module, file = example("world_models"), tmp_path / "world.pt"
    model = module.KINDS[kind](5, (1.0,), 0.95)
    torch.save({"kind": kind, "task": "cart-pole", "model": model.state_dict()}, file)
    task, policy, critic = module.loaded(str(file))
    begin = task.starts(4, torch.Generator().manual_seed(0))
    assert begin.shape == (4, 5 + module.DZ)
    noise = (torch.zeros(4, 1).double(),) if hasattr(policy, "noise_dim") else ()
    action = policy.double()(begin, *noise)
    after = task.prior.step(begin, action, torch.zeros(4, task.prior.noise_dim).double())
    assert action.shape == (4, 1) and after.state.shape == begin.shape
    assert critic(begin, action).shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tdmpc", "dreamer"])
def test_it_learns_to_swing_the_pendulum_up(kind):
    said: list[str] = []
    for _ in example("world_models").train(kind, "pendulum", 16_000, report=said.append):
        pass
    assert max(float(line.split()[-1]) for line in said) > -400  # at random about −1,100
