"""The loops as they are, in variants, and each with one fault: an edit of the text of a loop.

FAULTS    forty, each with the words that the first line must carry (a pattern)
UNSEEN    twelve that no check can see, or that do no harm: run, and not counted
SOUND     ten loops, on the environments that they are run on
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analyses.loops.worlds import PENDULUM, PUCK

POLE, HOPPER = "InvertedPendulum-v5", "Hopper-v5"
Edits = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """One loop on some environments, its text edited.

    Attributes:
        kind: of the fault; "" for a sound loop.
        words: the pattern that the first sentence must match, in lower case.
        library: the loop is Stable-Baselines3's of that name.
        seeds: of a sound loop, in each of its environments.
    """

    loop: str
    envs: tuple[str, ...]
    edits: Edits = ()
    kind: str = ""
    words: str = ""
    library: bool = False
    seeds: int = 5

    @property
    def text(self) -> str:
        """The loop's own text with its edits.

        Raises:
            ValueError: a line to be edited is not there exactly once.
        """
        text = (Path(__file__).parent / f"{self.loop}.py").read_text()
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"{self.loop} has {text.count(old)} times {old!r}, expected once")
            text = text.replace(old, new)
        return text


STORE = "rb.add(obs, action, reward, next_obs, terminated)"
FOLLOW = "q.data.copy_(TAU * p.data + (1 - TAU) * q.data)"
MASK = "GAMMA * (1 - dones) * next_"
SAMPLE = "observations, actions, rewards, next_observations, dones = rb.sample(BATCH)\n"
NOISY = """action += 0.1 * actor.action_scale * torch.randn_like(action)
                action = action.clamp(low, high).numpy()"""
SENT = """env.step(np.clip(
            action + 0.1 * actor.action_scale.numpy() * np.random.randn(len(action)),
            low.numpy(), high.numpy(),
        ).astype(np.float32))"""
BOTH = "torch.max(-adv * ratio, -adv * ratio.clamp(1 - CLIP, 1 + CLIP))"
RATIO = "(new_logprob - b_logprobs[rows]).exp()"
WEIGHTS = """adv = b_advantages[rows]
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)"""
PAID = "rewards[t] = torch.as_tensor(reward, dtype=torch.float32)"
ACTOR = "optim.Adam(actor.parameters(), lr="
CRITIC = "q_optimizer = optim.Adam([*qf1.parameters(), *qf2.parameters()], lr=1e-3)"


def _edit(kind: str, loop: str, env: str, words: str, *edits: tuple[str, str]) -> Case:
    return Case(loop, (env,), edits, kind, words)


FAULTS: Mapping[str, Case] = {
    # rewards
    "reward's sign": _edit(
        "reward", "td3", PENDULUM, r"reward.*(sign|negat|flip)",
        (STORE, STORE.replace("reward", "-reward"))),
    "costs clipped to [0, 1]": _edit(
        "reward", "sac", PENDULUM, r"reward.*(\b0\b|zero|lost)",
        (STORE, STORE.replace("reward", "np.clip(reward, 0, 1)"))),
    "reward of the step before": _edit(
        "reward", "td3", HOPPER, r"reward.*(before|earlier|late|paid|differ|step)",
        ("    obs, _ = env.reset(seed=seed)\n",
         "    obs, _ = env.reset(seed=seed)\n    last_reward = 0.0\n"),
        (STORE, STORE.replace("reward", "last_reward") + "\n        last_reward = reward")),
    "reward grows with the step": _edit(
        "reward", "td3", PENDULUM, r"reward|explod",
        (STORE, STORE.replace("reward", "reward * 1.02**step"))),
    # ends of episodes
    "termination lost": _edit(
        "ends", "td3", POLE, r"(not|lost|never).*terminat|terminat.*(not|lost|never)",
        (STORE, STORE.replace("terminated", "False"))),
    "time limit stored as terminal": _edit(
        "ends", "td3", PENDULUM, r"time limit",
        (STORE, STORE.replace("terminated", "terminated or truncated"))),
    "mask left out": _edit(
        "ends", "sac", POLE, r"beyond terminal|without \(1 . d\)|mask.*(left|missing)",
        (MASK + "value", "GAMMA * next_value")),
    "mask inverted": _edit(
        "ends", "ddpg", POLE, r"invert|terminal states alone",
        (MASK + "q", "GAMMA * dones * next_q")),
    "next episode's first observation": _edit(
        "ends", "ddpg", PENDULUM, r"next episode|first observation|final_obs|reset",
        ("rewards[i], real_next_obs[i]", "rewards[i], next_obs[i]")),
    # rows of the replay
    "next observation is the first": _edit(
        "rows", "sac", PENDULUM, r"next observation|observation itself",
        (STORE + "\n        obs = next_obs\n", "obs = next_obs\n        " + STORE + "\n")),
    "next observation late": _edit(
        "rows", "td3", PENDULUM, r"next observation.*(late|one step)|one step later",
        (STORE, "if step:\n            rb.add(*row, next_obs, terminated)\n"
         "        row = obs, action, reward")),
    "action stored without its noise": _edit(
        "rows", "td3", HOPPER, r"stored action|actions? .*(sent|stored)",
        (NOISY, "action = action.numpy()"), ("env.step(action)", SENT)),
    "the same batch again": _edit(
        "rows", "sac", PENDULUM, r"batch.*(same|again|repeat|stale|never)|same (rows|batch)",
        (SAMPLE, "if step == STARTS:\n            data = rb.sample(BATCH)\n"
         "        observations, actions, rewards, next_observations, dones = data\n")),
    # targets of the critic
    "γ = 1": _edit(
        "targets", "td3", PENDULUM, r"(γ|gamma|discount).*\b1\b",
        (MASK + "q", "(1 - dones) * next_q")),
    "γ squared": _edit(
        "targets", "sac", HOPPER, r"(γ|gamma|discount).*(squared|0?\.980)",
        (MASK + "value", "GAMMA**2 * (1 - dones) * next_value")),
    "[B, 1] against [B]": _edit(
        "targets", "ddpg", PENDULUM, r"shape|\[b, b\]|pair of rows|broadcast",
        ("        rewards, dones = rewards.flatten(), dones.flatten()\n", "")),
    # target networks
    "targets never updated": _edit(
        "target networks", "td3", PENDULUM, r"targets? .*(not moved|not move|frozen)",
        (FOLLOW, "q = TAU * p.data + (1 - TAU) * q.data")),
    "targets never updated, SHAC": _edit(
        "target networks", "shac", PUCK, r"targets? .*(not moved|not move|frozen)",
        (FOLLOW, "q = TAU * p.data + (1 - TAU) * q.data")),
    "τ and 1 − τ exchanged": _edit(
        "target networks", "sac", PENDULUM, r"τ|at each step|too fast",
        (FOLLOW, "q.data.copy_((1 - TAU) * p.data + TAU * q.data)")),
    "network and target exchanged": _edit(
        "target networks", "ddpg", POLE, r"towards its own target|network and target|exchanged",
        ("zip(net.parameters(), slow.parameters(),", "zip(slow.parameters(), net.parameters(),")),
    # the actor's step
    "sign of the actor's loss": _edit(
        "actor", "td3", PENDULUM, r"actor.*(sign|lower)",
        ("actor_loss = -qf1(", "actor_loss = qf1(")),
    "sign of the entropy": _edit(
        "actor", "sac", PENDULUM, r"entropy|log π|actor.*sign",
        ("(alpha * log_pi - min_q)", "(-alpha * log_pi - min_q)")),
    "actions detached": _edit(
        "actor", "shac", PENDULUM, r"detach|no gradient|dead path|gradient is (exactly )?0",
        ("field.step(action)", "field.step(action.detach())")),
    "actor's step moves the critic": _edit(
        "actor", "ddpg", PENDULUM, r"actor.*(moves? the critic|critic's parameters)",
        (ACTOR + "3e-4)", "optim.Adam([*actor.parameters(), *qf.parameters()], lr=3e-4)")),
    "gradients never cleared": _edit(
        "actor", "td3", PUCK, r"zero_grad|accumul|clear|add(s|ed)? up",
        ("            actor_optimizer.zero_grad()\n", "")),
    # density
    "log(1 − tanh²) left out": _edit(
        "density", "sac", PUCK, r"tanh|squash",
        ("        log_prob -= torch.log(self.action_scale * (1 - y.pow(2)) + 1e-6)\n", "")),
    # optimisers
    "optimiser holds the target actor": _edit(
        "optimiser", "td3", PENDULUM, r"optimi[sz]er.*(none of|parameters)|does not move",
        (ACTOR + "1e-3)", "optim.Adam(target_actor.parameters(), lr=1e-3)")),
    "optimiser holds the last layer": _edit(
        "optimiser", "ddpg", POLE, r"in part|optimi[sz]er.*(all|part)|none of .* changed",
        (ACTOR + "3e-4)", "optim.Adam(actor.net[-1].parameters(), lr=3e-4)")),
    "actor's rate is 0": _edit(
        "optimiser", "shac", PUCK, r"(actor|policy).*(not move|(not|never) chang)|\brate\b.*\b0\b",
        (ACTOR + "1e-3)", ACTOR + "0.0)")),
    "critic's optimiser holds the targets": _edit(
        "optimiser", "sac", HOPPER,
        r"critic does not move|critic.*(optimi[sz]er|no step|none of|never changed)",
        (CRITIC, CRITIC.replace("qf1.", "qf1_target.").replace("qf2.", "qf2_target."))),
    "rate a thousand times too large": _edit(
        "optimiser", "ppo", PENDULUM, r"learning rate|\brate\b", ("lr=3e-4", "lr=3e-1")),
    # advantages
    "ends left out of GAE": _edit(
        "advantages", "ppo", POLE, r"beyond the ends|dones|ends of episodes",
        ("nonterminal = 1.0 - ended[t]", "nonterminal = torch.ones(ENVS)")),
    "ends one step early in GAE": _edit(
        "advantages", "ppo", POLE, r"one step earlier|same index|shift",
        ("nonterminal = 1.0 - ended[t]",
         "nonterminal = 1.0 - ended[t - 1] if t else torch.ones(ENVS)")),
    "time limit as an end in GAE": _edit(
        "advantages", "ppo", PENDULUM, r"time limit",
        ("following * nonterminal + final_values[t]", "following * nonterminal")),
    "raw returns as weights": _edit(
        "advantages", "ppo", PENDULUM,
        r"\braw\b|baseline|normali[sz]|returns? (in place|instead)|weights",
        (WEIGHTS, "adv = b_returns[rows]")),
    # PPO's loss
    "sign of PPO's loss": _edit(
        "policy's loss", "ppo", POLE, r"sign|lower|against", (BOTH, BOTH.replace("-adv", "adv"))),
    "ratio inverted": _edit(
        "policy's loss", "ppo", HOPPER, r"sign|ratio|lower|against",
        (RATIO, "(b_logprobs[rows] - new_logprob).exp()")),
    # numbers
    "one infinite reward": _edit(
        "numbers", "ppo", HOPPER, r"(nan|finite|\binf).*(row|reward|return|loss|advantage|sample)",
        (PAID, f"{PAID}\n            if update == 32 and t == 10:\n"
         "                rewards[t, 1] = float('inf')")),
    "one NaN in an observation": _edit(
        "numbers", "sac", PUCK, r"(nan|finite).*(row|observation|sample|state)",
        (SAMPLE, f"{SAMPLE}        if step == STARTS + 100:\n"
         "            observations[17, 0] = float('nan')\n")),
    "√ at 0": _edit(
        "numbers", "shac", PUCK, r"(nan|finite).*(sqrt|√|pow|root)|(sqrt|√|root).*(nan|finite)",
        ("discount = GAMMA * discount\n",
         "discount = GAMMA * discount\n            actor_loss = actor_loss + 1e-3 * (\n"
         "                (next_obs - last_obs).pow(2).sum(1).sqrt().sum())\n")),
}  # fmt: skip

UNSEEN: Mapping[str, Case] = {
    "γ too small, and declared so": _edit(
        "not declared", "td3", PENDULUM, "",
        ("DELAY = 400, 256, 0.99", "DELAY = 400, 256, 0.5"),
        ("discount=0.99", "discount=0.5")),
    "reward wrong inside the environment": _edit(
        "below the recorder", "sac", PENDULUM, "",
        ("RecordEpisodeStatistics(gym.make(env_id))",
         "RecordEpisodeStatistics(\n"
         "        gym.wrappers.TransformReward(gym.make(env_id), lambda r: -r)\n    )")),
    "observations three steps old": _edit(
        "below the recorder", "td3", PENDULUM, "",
        ("    env = gym.make(env_id)\n",
         "    env = gym.wrappers.DelayObservation(gym.make(env_id), 3)\n")),
    "no exploration": _edit(
        "settings", "td3", PENDULUM, "", ("action += 0.1 * actor", "action += 0.0 * actor"),
        ("action = env.action_space.sample()", "action = np.zeros(len(low), np.float32)")),
    "actor's rate a thousand times too small": _edit(
        "settings", "ddpg", PENDULUM, "", (ACTOR + "3e-4)", ACTOR + "3e-7)")),
    "no entropy in the target": _edit(
        "harmless", "sac", PENDULUM, "",
        ("next_value = next_q - alpha * next_log_pi", "next_value = next_q")),
    "the larger of two critics": _edit(
        "values", "td3", PENDULUM, "", ("next_q = torch.min(", "next_q = torch.max(")),
    "networks in place of their targets": _edit(
        "harmless", "sac", PENDULUM, "",
        ("qf1_target(next_observations, next_actions)", "qf1(next_observations, next_actions)"),
        ("qf2_target(next_observations, next_actions)", "qf2(next_observations, next_actions)")),
    "old densities taken anew": _edit(
        "harmless", "ppo", POLE, "", (RATIO, "(new_logprob - new_logprob.detach()).exp()")),
    "sign of a small entropy bonus": _edit(
        "harmless", "ppo", POLE, "", ("pg_loss - 0.01", "pg_loss + 0.01")),
    "clipped the wrong way": _edit(
        "harmless", "ppo", POLE, "", (BOTH, BOTH.replace("torch.max", "torch.min"))),
    "value loss over all pairs": _edit(
        "values", "ppo", POLE, "",
        ("(agent.get_value(b_obs[rows]) -", "(agent.get_value(b_obs[rows])[:, None] -")),
}  # fmt: skip

ALL = (PENDULUM, POLE, HOPPER, PUCK)
N_STEP = (
    ("    rb = Replay(env)\n", "    rb, queue = Replay(env), []\n"),
    (STORE,
     "queue.append((obs, action, float(reward)))\n"
     "        if len(queue) == 3:\n"
     "            total = sum(GAMMA**k * r for k, (_, _, r) in enumerate(queue))\n"
     "            rb.add(*queue.pop(0)[:2], total, next_obs, terminated)\n"
     "        queue = [] if terminated or truncated else queue"),
    (MASK + "q", "GAMMA**3 * (1 - dones) * next_q"),
    ("discount=0.99", "discount=0.99**3"),
)  # fmt: skip
NEXT_STEP = (
    ("terminated, _, infos =", "terminated, truncated, infos ="),
    ("AutoresetMode.SAME_STEP", "AutoresetMode.NEXT_STEP"),
    ("    obs, _ = envs.reset(seed=seed)\n",
     "    obs, _ = envs.reset(seed=seed)\n    over = np.zeros(ENVS, bool)\n"),
    ("        for i in range(ENVS):\n", "        for i in np.flatnonzero(~over):\n"),
    ("        obs = next_obs\n", "        obs, over = next_obs, terminated | truncated\n"),
)  # fmt: skip
ONE_ADAM = (
    (CRITIC + "\n    actor_optimizer = optim.Adam(actor.parameters(), lr=3e-4)\n",
     "q_optimizer = actor_optimizer = optim.Adam(\n"
     "        [*actor.parameters(), *qf1.parameters(), *qf2.parameters()], lr=3e-4\n    )\n"),
    ("        pi, log_pi = actor.get_action(observations)\n",
     "        for p in [*qf1.parameters(), *qf2.parameters()]:\n"
     "            p.requires_grad_(False)\n"
     "        pi, log_pi = actor.get_action(observations)\n"),
    ("        actor_optimizer.step()\n",
     "        actor_optimizer.step()\n"
     "        for p in [*qf1.parameters(), *qf2.parameters()]:\n"
     "            p.requires_grad_(True)\n"),
)  # fmt: skip
SHARED = (
    ("self.actor, self.critic = Actor(envs), mlp(sizes(envs)[0], 1, 64)",
     "self.actor = Actor(envs)\n"
     "        body = self.actor.mean[:-1]\n"
     "        self.critic = nn.Sequential(*body, nn.Linear(body[-2].out_features, 1))"),
)  # fmt: skip
SOUND: Mapping[str, Case] = {
    "TD3": Case("td3", ALL),
    "TD3, three steps": Case("td3", ALL, N_STEP),
    "DDPG": Case("ddpg", ALL),
    "DDPG, reset in the next step": Case("ddpg", ALL, NEXT_STEP),
    "SAC": Case("sac", ALL),
    "SAC, one Adam": Case("sac", ALL, ONE_ADAM),
    "PPO": Case("ppo", ALL),
    "PPO, shared trunk": Case("ppo", ALL, SHARED),
    "SHAC": Case("shac", (PENDULUM, PUCK), seeds=10),
    "SB3 TD3": Case("TD3", (PENDULUM, POLE, HOPPER), library=True, seeds=2),
    "SB3 SAC": Case("SAC", (PENDULUM, POLE, HOPPER, PUCK), library=True, seeds=2),
    "SB3 PPO": Case("PPO", (PENDULUM, POLE, HOPPER), library=True, seeds=2),
}
