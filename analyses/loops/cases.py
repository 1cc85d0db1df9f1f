"""The loops as they are, in variants, and each with one fault: an edit of the text of a loop.

FAULTS    forty, each with the words that the probe's first line ought to have (a pattern)
UNSEEN    twelve that are not counted: outside of what is declared, or of little harm
SOUND     ten loops, with the environments that they take in turn
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PENDULUM, POLE, HOPPER, PUCK = "Pendulum-v1", "InvertedPendulum-v5", "Hopper-v5", "Puck-v0"


@dataclass(frozen=True)
class Case:
    """One loop on some environments, its text edited.

    Attributes:
        kind: of the fault; "" for a sound loop.
        words: the pattern that the first line must match, in lower case; "": none names it.
        library: the loop is Stable-Baselines3's of that name.
    """

    loop: str
    envs: tuple[str, ...]
    edits: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    words: str = ""
    library: bool = False

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


def _fault(kind: str, loop: str, env: str, words: str, *edits: tuple[str, str]) -> Case:
    return Case(loop, (env,), edits, kind, words)


STORE = "rb.add(obs, action, reward, next_obs, terminated)"
FOLLOW = "q.data.copy_(TAU * p.data + (1 - TAU) * q.data)"
STILL = "q = TAU * p.data + (1 - TAU) * q.data"
MASK = 'GAMMA * (1 - batch["terminated"]) * next_'
SAMPLE = "batch = rb.sample(BATCH)\n"
RESET = "    obs, _ = env.reset(seed=seed)\n"
NOISY = """action += 0.1 * actor.action_scale * torch.randn_like(action)
                action = action.clamp(low, high).numpy()"""
SENT = """env.step(np.clip(
            action + 0.1 * actor.action_scale.numpy() * np.random.randn(len(action)),
            low.numpy(), high.numpy(),
        ).astype(np.float32))"""
BOTH = "torch.max(-adv * ratio, -adv * ratio.clamp(1 - CLIP, 1 + CLIP))"
RATIO = '(new_logprob - batch["old_log_prob"]).exp()'
WEIGHTS = """adv = batch["advantage"]
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)"""
GOING = "nonterminal = 1.0 - ended[t]"
PAID = "rewards[t] = torch.as_tensor(reward, dtype=torch.float32)"
ACTOR = "optim.Adam(actor.parameters(), lr="
CRITIC = "q_optimizer = optim.Adam([*qf1.parameters(), *qf2.parameters()], lr=1e-3)"
FROZEN = r"target.*has not moved"

FAULTS: Mapping[str, Case] = {
    # rewards
    "reward's sign": _fault(
        "reward", "td3", PENDULUM, r"rewards?\b.*(sign|negat)",
        (STORE, STORE.replace("reward", "-reward"))),
    "costs clipped to [0, 1]": _fault(
        "reward", "sac", PENDULUM, r"rewards?\b.*(\b0\b|lost|clipped)",
        (STORE, STORE.replace("reward", "np.clip(reward, 0, 1)"))),
    "reward of the step before": _fault(
        "reward", "td3", HOPPER, r"rewards?\b.*the step before",
        (RESET, f"{RESET}    last_reward = 0.0\n"),
        (STORE, STORE.replace("reward", "last_reward") + "\n        last_reward = reward")),
    "reward grows with the step": _fault(
        "reward", "td3", PENDULUM, r"rewards?\b.*(not the recorded|correlation|other steps)",
        (STORE, STORE.replace("reward", "reward * 1.02**step"))),
    # ends of episodes
    "termination lost": _fault(
        "ends", "td3", POLE, r"terminations?\b.*\bnot\b",
        (STORE, STORE.replace("terminated", "False"))),
    "time limit stored as terminal": _fault(
        "ends", "td3", PENDULUM, r"time limits?\b.*terminat",
        (STORE, STORE.replace("terminated", "terminated or truncated"))),
    "mask left out": _fault(
        "ends", "sac", POLE, r"mask.*beyond ends|what follows an end",
        (MASK + "value", "GAMMA * next_value")),
    "mask inverted": _fault(
        "ends", "ddpg", POLE, r"mask.*inverted",
        ("GAMMA * (1 - terminated) * next_q", "GAMMA * terminated * next_q")),
    "next episode's first observation": _fault(
        "ends", "ddpg", PENDULUM, r"next episode's first observation",
        ("rewards[i], real_next_obs[i]", "rewards[i], next_obs[i]")),
    # rows of the replay
    "next observation is the first": _fault(
        "rows", "sac", PENDULUM, r"observation.*(itself|the step (after|before))",
        (STORE + "\n        obs = next_obs\n", "obs = next_obs\n        " + STORE + "\n")),
    "next observation late": _fault(
        "rows", "td3", PENDULUM, r"next observations?\b.*the step after",
        (STORE, "if step:\n            rb.add(*row, next_obs, terminated)\n"
         "        row = obs, action, reward")),
    "action stored without its noise": _fault(
        "rows", "td3", HOPPER, r"stored actions",
        (NOISY, "action = action.numpy()"), ("env.step(action)", SENT)),
    "the same batch again": _fault(
        "rows", "sac", PENDULUM, r"batches are",
        (SAMPLE, f"if step == STARTS:\n            {SAMPLE}")),
    # targets of the critic
    "γ = 1": _fault(
        "targets", "td3", PENDULUM, r"discount.*(\b1\b|left out)",
        (MASK + "q", '(1 - batch["terminated"]) * next_q')),
    "γ squared": _fault(
        "targets", "sac", HOPPER, r"discount.*(twice|0?\.980)",
        (MASK + "value", MASK.replace("GAMMA", "GAMMA**2") + "value")),
    "[B, 1] against [B]": _fault(
        "targets", "ddpg", PENDULUM, r"\[b, 1\] against \[b\]",
        ('batch["reward"].flatten(), batch["terminated"].flatten()',
         'batch["reward"], batch["terminated"]')),
    # target networks
    "targets never updated": _fault("target networks", "td3", PENDULUM, FROZEN, (FOLLOW, STILL)),
    "targets never updated, SHAC": _fault("target networks", "shac", PUCK, FROZEN, (FOLLOW, STILL)),
    "τ and 1 − τ exchanged": _fault(
        "target networks", "sac", PENDULUM, r"target.*takes .* at each step",
        (FOLLOW, "q.data.copy_((1 - TAU) * p.data + TAU * q.data)")),
    "network and target exchanged": _fault(
        "target networks", "ddpg", POLE, r"moves between steps|exchanged",
        ("zip(net.parameters(), slow.parameters(),", "zip(slow.parameters(), net.parameters(),")),
    # the actor's step
    "sign of the actor's loss": _fault(
        "actor", "td3", PENDULUM, r"sign: the loss rises with q",
        ("return -qf1(", "return qf1(")),
    "sign of the entropy": _fault(
        "actor", "sac", PENDULUM, r"entropy.*sign",
        ("(alpha * log_pi - min_q)", "(-alpha * log_pi - min_q)")),
    "actions detached": _fault(
        "actor", "shac", PENDULUM, r"detached|gradient of the actor|dead path|lost path",
        ("state, reward = field.step(state, action)",
         "state, reward = field.step(state, action.detach())")),
    "actor's step moves the critic": _fault(
        "actor", "ddpg", PENDULUM, r"critic moves at steps of the actor|also moves.*critic",
        (ACTOR + "3e-4)", "optim.Adam([*actor.parameters(), *qf.parameters()], lr=3e-4)")),
    "gradients never cleared": _fault(
        "actor", "td3", PUCK, r"gradients of actor add up",
        ("            actor_optimizer.zero_grad()\n", "")),
    # density
    "log(1 − tanh²) left out": _fault(
        "density", "sac", PUCK, r"density",
        ("        log_prob -= torch.log(self.action_scale * (1 - y.pow(2)) + 1e-6)\n", "")),
    # optimisers
    "optimiser holds the target actor": _fault(
        "optimiser", "td3", PENDULUM, r"optimi[sz]er has none of the policy's parameters",
        (ACTOR + "1e-3)", "optim.Adam(target_actor.parameters(), lr=1e-3)")),
    "optimiser holds the last layer": _fault(
        "optimiser", "ddpg", POLE, r"moved actor, but never|lacks",
        (ACTOR + "3e-4)", "optim.Adam(actor.net[-1].parameters(), lr=3e-4)")),
    "actor's rate is 0": _fault(
        "optimiser", "shac", PUCK, r"actor has not moved|`lr` .*actor is 0",
        (ACTOR + "1e-3)", ACTOR + "0.0)")),
    "critic's optimiser holds the targets": _fault(
        "optimiser", "sac", HOPPER, r"critic.*(has not moved|moves at steps of the critic)",
        (CRITIC, CRITIC.replace("qf1.", "qf1_target.").replace("qf2.", "qf2_target."))),
    "rate a thousand times too large": _fault(
        "optimiser", "ppo", PENDULUM, r"a step moves|`lr`", ("lr=3e-4", "lr=3e-1")),
    # advantages
    "ends left out of GAE": _fault(
        "advantages", "ppo", POLE, r"ends: left out",
        (GOING, "nonterminal = torch.ones_like(last_value)")),
    "ends one step early in GAE": _fault(
        "advantages", "ppo", POLE, r"ends: one step",
        (GOING, "nonterminal = 1.0 - ended[t - 1] if t else torch.ones_like(last_value)")),
    "time limit as an end in GAE": _fault(
        "advantages", "ppo", PENDULUM, r"time limits",
        ("following * nonterminal + final_value[t]", "following * nonterminal")),
    "raw returns as weights": _fault(
        "advantages", "ppo", PENDULUM, r"weights by advantage",
        (WEIGHTS, 'adv = batch["return"]')),
    # PPO's loss
    "sign of PPO's loss": _fault(
        "policy's loss", "ppo", POLE, r"(weights by advantage|ratio): (negated|inverted)",
        (BOTH, BOTH.replace("-adv", "adv"))),
    "ratio inverted": _fault(
        "policy's loss", "ppo", HOPPER, r"(weights by advantage|ratio): (negated|inverted)",
        (RATIO, '(batch["old_log_prob"] - new_logprob).exp()')),
    # numbers
    "one infinite reward": _fault(
        "numbers", "ppo", HOPPER, r"(reward|return|advantage).*not finite|not finite.*row",
        (PAID, f"{PAID}\n            if update == 32 and t == 10:\n"
         "                rewards[t, 1] = float('inf')")),
    "one NaN in an observation": _fault(
        "numbers", "sac", PUCK, r"(input|observation).*not finite|not finite.*row",
        (SAMPLE, f"{SAMPLE}        if step == STARTS + 100:\n"
         '            batch["observation"][17, 0] = float("nan")\n')),
    "√ at 0": _fault(
        "numbers", "shac", PUCK, r"sqrt|√|\broot\b|\bpow",
        ("            action = actor(field.observe(state))\n            state, reward",
         "            action = actor(field.observe(state))\n"
         "            change = action - (last if k else action)\n"
         "            total, last = total - 1e-3 * change.pow(2).sum(1).sqrt(), action\n"
         "            state, reward")),
}  # fmt: skip

UNSEEN: Mapping[str, Case] = {
    "γ too small, and declared so": _fault(
        "not declared", "td3", PENDULUM, "", ("DELAY = 400, 256, 0.99", "DELAY = 400, 256, 0.5")),
    "reward wrong inside the environment": _fault(
        "below the recorder", "sac", PENDULUM, "",
        ("RecordEpisodeStatistics(gym.make(env_id))",
         "RecordEpisodeStatistics(\n"
         "        gym.wrappers.TransformReward(gym.make(env_id), lambda r: -r)\n    )")),
    "observations three steps old": _fault(
        "below the recorder", "td3", PENDULUM, "",
        ("    env = gym.make(env_id)\n",
         "    env = gym.wrappers.DelayObservation(gym.make(env_id), 3)\n")),
    "no exploration": _fault(
        "settings", "td3", PENDULUM, "", ("action += 0.1 * actor", "action += 0.0 * actor"),
        ("action = env.action_space.sample()", "action = np.zeros(len(low), np.float32)")),
    "actor's rate a thousand times too small": _fault(
        "settings", "ddpg", PENDULUM, r"a step moves actor|`lr`",
        (ACTOR + "3e-4)", ACTOR + "3e-7)")),
    "no entropy in the target": _fault(
        "harmless", "sac", PENDULUM, r"entropy in the target: left out",
        ("next_value = next_q - alpha * next_log_pi", "next_value = next_q")),
    "the larger of two critics": _fault(
        "values", "td3", PENDULUM, r"twins: the largest",
        ("next_q = torch.min(", "next_q = torch.max(")),
    "networks in place of their targets": _fault(
        "harmless", "sac", PENDULUM, r"target networks.*not used",
        ("qf1_target(next_obs, next_action), qf2_target(", "qf1(next_obs, next_action), qf2(")),
    "old densities taken anew": _fault(
        "harmless", "ppo", POLE, r"ratio: always 1",
        (RATIO, "(new_logprob - new_logprob.detach()).exp()")),
    "sign of a small entropy bonus": _fault(
        "harmless", "ppo", POLE, r"entropy bonus: wrong sign",
        ("pg_loss - 0.01", "pg_loss + 0.01")),
    "clipped the wrong way": _fault(
        "harmless", "ppo", POLE, r"clip: ", (BOTH, BOTH.replace("torch.max", "torch.min"))),
    "value loss over all pairs": _fault(
        "values", "ppo", POLE, r"fitted value: moved by other rows",
        ('(agent.get_value(batch["observation"]) -',
         '(agent.get_value(batch["observation"])[:, None] -')),
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
    (MASK + "q", MASK.replace("GAMMA", "GAMMA**3") + "q"),
    ("actor=actor_loss, discount=GAMMA", "actor=actor_loss, discount=GAMMA**3"),
    ("record(env, discount=GAMMA)", "record(env, steps=3, discount=GAMMA)"),
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
    "SAC": Case("sac", ALL),
    "PPO": Case("ppo", ALL),
    "PPO, shared trunk": Case("ppo", ALL, SHARED),
    "SHAC": Case("shac", (PENDULUM, PUCK)),
    "SB3 TD3": Case("TD3", (PENDULUM, POLE, HOPPER), library=True),
    "SB3 SAC": Case("SAC", ALL, library=True),
    "SB3 PPO": Case("PPO", (PENDULUM, POLE, HOPPER), library=True),
}
GROUPS: Mapping[str, Mapping[str, Case]] = {"faults": FAULTS, "unseen": UNSEEN, "sound": SOUND}
