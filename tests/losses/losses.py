"""Actor losses as arguments of `gradlab.audit`, sound and faulty, and those of public sources.

Sound ones have the shapes of published code; each faulty one stands with the kind that names its
fault. Ten sound and ten faulty losses are of public threads and published code, each with its
source: written anew after what the thread or the file says, with the networks of `networks.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, OneHotCategorical

from gradlab.systems import from_function
from tests.losses.networks import (
    ACTION,
    ROWS,
    STATE,
    Arguments,
    Deterministic,
    Dynamics,
    Environment,
    Gaussian,
    Q,
    TwoCritics,
    Value,
    case,
    dreamer,
    mlp,
    reinforcing_dreamer,
    states,
)


@case(Gaussian, lambda: [Q(), Q()])
def sac_cleanrl(actor, critics, obs):
    pi, log_pi, _ = actor.get_action(obs)
    min_qf_pi = torch.min(*(qf(obs, pi) for qf in critics))
    return ((0.2 * log_pi) - min_qf_pi).mean()


def sac_sb3() -> Arguments:
    actor, critic = Gaussian(), TwoCritics()
    log_ent_coef = torch.zeros(1, requires_grad=True)

    def loss(obs: Tensor) -> Tensor:
        actions_pi, log_prob, _ = actor.get_action(obs)
        ent_coef = torch.exp(log_ent_coef.detach())
        q_values_pi = torch.cat(critic(obs, actions_pi), dim=1)
        min_qf_pi, _ = torch.min(q_values_pi, dim=1, keepdim=True)
        return (ent_coef * log_prob.reshape(-1, 1) - min_qf_pi).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def sac_vmapped() -> Arguments:
    """Both critics in one call, as LeanRL."""
    actor, critics = Gaussian(), nn.ModuleList([Q(), Q()])
    stacked, _ = torch.func.stack_module_state(list(critics))
    base = copy.deepcopy(critics[0])

    def batched_qf(params: dict[str, Tensor], obs: Tensor, a: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(base, params, (obs, a))
        return value

    def loss(obs: Tensor) -> Tensor:
        pi, log_pi, _ = actor.get_action(obs)
        data = {name: p.detach() for name, p in stacked.items()}
        qf_pi = torch.vmap(batched_qf, (0, None, None))(data, obs, pi)
        return ((0.2 * log_pi) - qf_pi.min(0).values).mean()

    return dict(loss=loss, actor=actor, critic=base, inputs=states())


@case(lambda: mlp(STATE, 4), lambda: mlp(STATE, 4))
def sac_discrete(actor, qf, obs):
    """The expectation over all actions: nothing is sampled."""
    policy = Categorical(logits=actor(obs))
    policy.sample()
    log_pi = F.log_softmax(policy.logits, dim=1)
    with torch.no_grad():
        values = qf(obs)
    return (policy.probs * (0.2 * log_pi - values)).mean()


@case(Deterministic, Q)
def ddpg(actor, qf, obs):
    return -qf(obs, actor(obs)).mean()


@case(Deterministic, TwoCritics)
def td3(actor, critic, obs):
    return -critic.q1_forward(obs, actor(obs)).mean()


@case(Deterministic, Q, inputs=lambda: (states(), torch.zeros(ROWS, ACTION)))
def td3_bc(actor, critic, obs, action):
    pi = actor(obs)
    value = critic(obs, pi)
    scale = 2.5 / value.abs().mean().detach()
    return -scale * value.mean() + F.mse_loss(pi, action)


@case(Gaussian, Value, Dynamics, lambda: (states(), torch.zeros(ROWS, ACTION), states(1)),
      trained=False)  # fmt: skip
def svg(actor, value, model, s, a, s2):
    """SVG(1): the recorded action's noise is inferred, a critic of states."""
    mean, log_std = actor(s)
    noise = ((a - mean) / log_std.exp()).detach()
    action = mean + log_std.exp() * noise
    predicted, reward = model.predict(s, action)
    residual = (s2 - predicted).detach()
    return -(reward + 0.99 * value(predicted + residual)[:, 0]).mean()


@case(Gaussian, Q, Dynamics, trained=False)
def maac(actor, critic, model, s, length=3):
    """H steps through the model with entropy inside the sum, then the critic."""
    total = torch.zeros(len(s))
    for t in range(length):
        a, log_pi, _ = actor.get_action(s)
        s, r = model.predict(s, a)
        total = total + 0.95**t * (r - 0.1 * log_pi[:, 0])
    a, log_pi, _ = actor.get_action(s)
    return -(total + 0.95**length * critic(s, a)[:, 0]).mean()


@case(Gaussian, Value, Environment, lambda: ())
def shac(actor, target, env, length=5):
    """A window of a simulator that keeps its state, resets rows, and is divided by its length."""
    env.steps = 0
    env.obs = torch.linspace(-1, 1, ROWS * STATE).reshape(ROWS, STATE)
    obs = env.initialize_trajectory()
    rewards = torch.zeros(length + 1, ROWS)
    gamma, total = torch.ones(ROWS), torch.tensor(0.0)
    for i in range(length):
        actions, _, _ = actor.get_action(obs)
        obs, rew, done, info = env.step(torch.tanh(actions))
        ends = done.nonzero(as_tuple=False).squeeze(-1)
        values = target(obs).squeeze(-1)
        for row in ends:
            values[row] = target(info["obs_before_reset"][row]).squeeze(-1)
        rewards[i + 1, :] = rewards[i, :] + gamma * rew
        which = ends if i < length - 1 else slice(None)
        total = total - (rewards[i + 1, which] + 0.99 * gamma[which] * values[which]).sum()
        gamma = gamma * 0.99
        gamma[ends] = 1.0
        rewards[i + 1, ends] = 0.0
    return total / (length * ROWS)


@case(Deterministic, Q, Dynamics)
def mpg_first_action(actor, critic, model, s):
    """θ in the first action: a copy that is made in the loss acts afterwards."""
    later = copy.deepcopy(actor).requires_grad_(False)
    a, total = actor(s), torch.zeros(len(s))
    for t in range(3):
        s, r = model.predict(s, a)
        total = total + 0.98**t * r
        a = later(s)
    return -(total + 0.98**3 * critic(s, a)[:, 0]).mean()


def _pushed(s, a):
    return 0.9 * s + 0.2 * a.sum(1, keepdim=True), -(s**2).sum(1)


@case(lambda: Deterministic().double(), model=lambda: from_function(_pushed, STATE, ACTION),
      inputs=lambda: states().double())  # fmt: skip
def system(actor, simulator, s):
    """gradlab's own systems: objects with methods."""
    total = torch.zeros(len(s), dtype=s.dtype)
    for _ in range(3):
        out = simulator.step(s, actor(s), None)
        s, total = out.state, total + out.reward
    return -total.mean()


@case(Gaussian, Q, trained=False)
def reinforce(actor, critic, s):
    """Scores of sampled actions, weighed by a critic: no path through the action is meant."""
    mean, log_std = actor(s)
    normal = Normal(mean, log_std.exp())
    a = normal.sample()
    return -(normal.log_prob(a).sum(1) * critic(s, a)[:, 0]).mean()


@case(lambda: mlp(STATE, 4), lambda: mlp(STATE, 4), trained=False)
def reinforce_categorical(actor, critic, s):
    policy = Categorical(logits=actor(s))
    a = policy.sample()
    chosen = critic(s).gather(1, a[:, None])[:, 0]
    advantage = chosen - critic(s).mean(1)
    return -(policy.log_prob(a) * advantage).mean() - 0.01 * policy.entropy().mean()


@case(Gaussian, model=Dynamics)
def score_through_model(actor, model, s):
    """Scores weighed by returns of a model whose gradients are not cut."""
    scores, returns = torch.zeros(len(s)), torch.zeros(len(s))
    for _ in range(3):
        mean, log_std = actor(s)
        normal = Normal(mean, log_std.exp())
        a = normal.sample()
        scores = scores + normal.log_prob(a).sum(1)
        s, r = model.predict(s, a)
        s, returns = s.detach(), returns + r
    return -(scores * returns).mean()


def ppo(clip: float = 0.2, moved: float = 0.0) -> Arguments:
    actor, value = Gaussian(), Value()
    old = copy.deepcopy(actor)
    for p in actor.parameters():
        p.data += moved * p.data.square().mean().sqrt() * torch.randn_like(p)

    def loss(s: Tensor) -> Tensor:
        with torch.no_grad():
            a, before, _ = old.get_action(s)
            advantage = a.sum(1) - value(s)[:, 0]
        mean, log_std = actor(s)
        normal = Normal(mean, log_std.exp())
        ratio = (normal.log_prob(a).sum(1) - before[:, 0]).exp()
        clipped = torch.clamp(ratio, 1 - clip, 1 + clip)
        surrogate = torch.min(ratio * advantage, clipped * advantage).mean()
        return -surrogate - 0.01 * normal.entropy().sum(1).mean()

    return dict(loss=loss, actor=actor, critic=value, inputs=states())


@case(lambda: mlp(STATE, ACTION), Q)
def gumbel(actor, critic, s):
    """Straight-through one-hot actions."""
    return -critic(s, F.gumbel_softmax(actor(s), hard=True)).mean()


SOUND: tuple[Callable[[], Arguments], ...] = (
    sac_cleanrl, sac_sb3, sac_vmapped, sac_discrete, ddpg, td3, td3_bc, svg, maac, shac,
    mpg_first_action, system, reinforce, reinforce_categorical, score_through_model, ppo, gumbel,
    dreamer, reinforcing_dreamer,
)  # fmt: skip


@case(Gaussian, Q)
def sampled(actor, critic, obs):
    """SAC on `sample`: the entropy alone has a gradient."""
    pi, log_pi, _ = actor.get_action(obs, draw="sample")
    return (0.2 * log_pi - critic(obs, pi)).mean()


@case(lambda: mlp(STATE, ACTION), Q)
def categorical(actor, critic, obs):
    """The historical one: the critic judges a sampled one-hot action, and nothing is left."""
    return -critic(obs, OneHotCategorical(logits=actor(obs)).sample()).mean()


@case(lambda: mlp(STATE, ACTION), Q)
def argmax(actor, critic, obs):
    return -critic(obs, F.one_hot(actor(obs).argmax(1), ACTION).float()).mean()


@case(lambda: mlp(STATE, ACTION), Q)
def categorical_with_entropy(actor, critic, obs):
    policy = Categorical(logits=actor(obs))
    a = F.one_hot(policy.sample(), ACTION).float()
    return -critic(obs, a).mean() - 0.01 * policy.entropy().mean()


@case(lambda: mlp(STATE, 4), lambda: mlp(STATE, 4))
def chosen_value(actor, critic, obs):
    """Q(s, ·)[a] of a sampled a."""
    policy = Categorical(logits=actor(obs))
    a = policy.sample()
    return -critic(obs).gather(1, a[:, None]).mean() - 0.01 * policy.entropy().mean()


@case(lambda: mlp(STATE, 4), model=lambda: nn.Embedding(4, 1))
def embedded(actor, model, obs):
    """A discrete action, embedded by the model."""
    policy = Categorical(logits=actor(obs))
    return -model(policy.sample()).mean() - 0.01 * policy.entropy().mean()


@case(Gaussian, Q)
def normal(actor, critic, obs):
    """torch.normal, whose derivative is zero."""
    mean, log_std = actor(obs)
    a = torch.normal(mean, log_std.exp())
    return -critic(obs, a).mean() - 0.01 * log_std.mean()


@case(Gaussian, model=Dynamics)
def sampled_in_a_rollout(actor, model, s):
    """The first action has a path, later ones are sampled."""
    total = torch.zeros(len(s))
    for t in range(3):
        a, _, _ = actor.get_action(s, draw="rsample" if t == 0 else "sample")
        s, r = model.predict(s, a)
        total = total + r
    return -total.mean()


@case(Gaussian, Q)
def detached(actor, critic, obs):
    """The historical one: the actor's path is cut by a detach before the critic."""
    pi, log_pi, _ = actor.get_action(obs)
    return (0.2 * log_pi - critic(obs, pi.detach())).mean()


@case(Gaussian, Value, Dynamics)
def detached_data(actor, value, model, s):
    a, log_pi, _ = actor.get_action(s)
    s, r = model.predict(s, a.data)
    return (0.1 * log_pi[:, 0] - r - value(s)[:, 0]).mean()


@case(Gaussian, Q)
def without_gradients(actor, critic, obs):
    with torch.no_grad():
        pi = actor.get_action(obs)[0]
    return (0.2 * actor.get_action(obs)[1] - critic(obs, pi)).mean()


@case(Gaussian, Q, inputs=lambda: (states(), torch.zeros(ROWS, ACTION)))
def replayed_action(actor, critic, obs, action):
    """The critic judges the batch's action, not the actor's."""
    return (0.2 * actor.get_action(obs)[1] - critic(obs, action)).mean()


OTHER = Deterministic()


@case(Deterministic, Q)
def other_actor(actor, critic, obs):
    """The loss calls another actor."""
    return -critic(obs, OTHER(obs)).mean()


@case(Gaussian, Q)
def unused_log_std(actor, critic, obs):
    """The mean acts: the deviation's layer gets nothing."""
    return -critic(obs, actor.get_action(obs)[2]).mean()


@case(Deterministic, Q)
def not_a_number(actor, critic, obs):
    """√0 of the first action's distance from itself."""
    a = actor(obs)
    return -critic(obs, a).mean() + (a - a.detach()).norm(dim=1).pow(2).sqrt().mean()


def _of_normal(actor, critic, obs):
    """π, a reparameterised action a, Q(s, a)."""
    mean, log_std = actor(obs)
    pi = Normal(mean, log_std.exp())
    a = pi.rsample()
    return pi, a, critic(obs, a)


@case(Gaussian, Q)
def detached_entropy(actor, critic, obs):
    """SAC whose entropy is of a detached action: E[∇ log π(a)] = 0."""
    pi, a, q = _of_normal(actor, critic, obs)
    return (0.2 * pi.log_prob(a.detach()).sum(1) - q).mean()


@case(Gaussian, Q)
def reparameterised_score(actor, critic, obs):
    """REINFORCE whose action is not stopped: in the mean score and path cancel (rlax #109)."""
    pi, a, q = _of_normal(actor, critic, obs)
    return (-pi.log_prob(a).sum(1) * q.detach()).mean()


FAULTS = (
    (detached_entropy, "actor.score.constant", "losses.py"),
    (reparameterised_score, "actor.score.cancels", "losses.py"),
    (sampled, "actor.lost.sampled", "Normal.sample"),
    (categorical, "actor.gradient.sampled", "OneHotCategorical.sample"),
    (argmax, "actor.gradient.discrete", "argmax"),
    (categorical_with_entropy, "actor.lost.sampled", "Categorical.sample"),
    (chosen_value, "actor.lost.sampled", "Categorical.sample"),
    (embedded, "actor.lost.sampled", "Categorical.sample"),
    (normal, "actor.lost.sampled", "torch.normal"),
    (sampled_in_a_rollout, "actor.lost.sampled", "Normal.sample"),
    (detached, "actor.lost.detached", "detach"),
    (detached_data, "actor.lost.detached", "data"),
    (without_gradients, "actor.lost.no_grad", "torch.no_grad"),
    (replayed_action, "actor.reached.apart", "critic"),
    (other_actor, "actor.gradient.apart", "another actor is called"),
    (unused_log_std, "actor.parameters.none", "fc_logstd.weight"),
    (not_a_number, "actor.finite.not_finite", "net.0.weight"),
)


@case(Gaussian, Q, Dynamics)
def value_without_gradient(actor, critic, model, s):
    """Imagined values under no_grad: only the entropy is left."""
    entropy = torch.zeros(())
    for _ in range(3):
        a, log_pi, _ = actor.get_action(s)
        entropy = entropy - log_pi.mean()
        s, _ = model.predict(s, a)
    with torch.no_grad():
        value = critic(s, actor.get_action(s)[0])
    return -value.mean() - 1e-3 * entropy


@case(Gaussian, Q)
def detached_value(actor, critic, obs):
    """SAC's α log π − Q with Q detached, since the line raised an error otherwise."""
    a, log_pi, _ = actor.get_action(obs)
    return (0.2 * log_pi - critic(obs, a).detach()).mean()


@case(lambda: nn.Linear(3, 4), lambda: nn.Linear(3, 4))
def discrete_with_frozen_critic(actor, critic, obs):
    """Discrete SAC, whose critic is under no_grad: probabilities carry the gradient."""
    log_pi = torch.log_softmax(actor(obs), 1)
    with torch.no_grad():
        q = critic(obs)
    return (log_pi.exp() * (0.2 * log_pi - q)).sum(1).mean()


@case(Gaussian, Q, inputs=lambda: (states(), torch.randn(ROWS, ACTION)))
def weighted_regression(actor, critic, obs, action):
    """−exp(A) log π of the batch's actions."""
    mean, log_std = actor(obs)
    with torch.no_grad():
        advantage = critic(obs, action) - critic(obs, torch.tanh(actor(obs)[0]))
    log_pi = Normal(mean, log_std.exp()).log_prob(action).sum(1, keepdim=True)
    return -(advantage.exp().clamp(max=20) * log_pi).mean()


THREADS: tuple[tuple[str, Callable[[], Arguments], str], ...] = (
    ("jurgisp/pydreamer/issues/12", value_without_gradient, "actor.values.detached"),
    ("google-deepmind/rlax/issues/109", reparameterised_score, "actor.score.cancels"),
    (
        "TianhongDai/reinforcement-learning-algorithms/issues/8",
        detached_value,
        "actor.values.detached",
    ),
    (
        "MorvanZhou/Reinforcement-learning-with-tensorflow/pull/125",
        replayed_action,
        "actor.reached.apart",
    ),
    ("jankrepl/deepdow/pull/106", sampled, "actor.lost.sampled"),
    ("shariqiqbal2810/maddpg-pytorch/issues/11", argmax, "actor.gradient.discrete"),
    ("kashif/firedup/issues/9", sampled_in_a_rollout, "actor.lost.sampled"),
)
PUBLISHED: tuple[tuple[str, Callable[[], Arguments]], ...] = (
    ("vwxyzjn/cleanrl/blob/master/cleanrl/sac_continuous_action.py", sac_cleanrl),
    ("DLR-RM/stable-baselines3/blob/master/stable_baselines3/sac/sac.py", sac_sb3),
    ("toshikwa/sac-discrete.pytorch/issues/24", discrete_with_frozen_critic),
    ("sfujim/TD3/blob/master/TD3.py", td3),
    ("sfujim/TD3_BC/blob/main/TD3_BC.py", td3_bc),
    ("vwxyzjn/cleanrl/blob/master/cleanrl/ppo_continuous_action.py", ppo),
    ("NVlabs/DiffRL/blob/main/algorithms/shac.py", shac),
    ("iclavera/meta-mb", maac),
    ("thu-ml/tianshou/issues/29", ddpg),
    ("ikostrikov/implicit_q_learning/blob/master/actor.py", weighted_regression),
)
