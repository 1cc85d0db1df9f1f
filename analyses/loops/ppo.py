"""PPO on a vector of four environments, time limits bootstrapped, on a page of its user's own."""

import gymnasium as gym
import numpy as np
import torch
from torch import nn, optim

import gradlab
from analyses.loops.worlds import mlp, sizes

ENVS, STEPS, EPOCHS, MINIBATCH, GAMMA, LAMBDA, CLIP = 4, 64, 4, 64, 0.99, 0.95, 0.2


class Actor(nn.Module):
    def __init__(self, envs):
        super().__init__()
        self.mean = mlp(*sizes(envs), 64)
        with torch.no_grad():
            self.mean[-1].weight.mul_(0.1)
        self.log_std = nn.Parameter(torch.zeros(1, sizes(envs)[1]))

    def forward(self, x):
        mean = self.mean(x)
        return mean, self.log_std.expand_as(mean)


class Agent(nn.Module):
    def __init__(self, envs):
        super().__init__()
        self.actor, self.critic = Actor(envs), mlp(sizes(envs)[0], 1, 64)

    def get_value(self, x):
        return self.critic(x).squeeze(-1)

    def get_action(self, x, action=None):
        mean, log_std = self.actor(x)
        normal = torch.distributions.Normal(mean, log_std.exp())
        action = normal.sample() if action is None else action
        return action, normal.log_prob(action).sum(1), normal.entropy().sum(1)


def train(env_id, seed, updates, log):
    np.random.seed(seed)
    torch.manual_seed(seed)
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.make(env_id) for _ in range(ENVS)],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    low, high = envs.single_action_space.low, envs.single_action_space.high
    ds, da = sizes(envs)
    agent = Agent(envs)
    optimizer = optim.Adam(agent.parameters(), lr=3e-4, eps=1e-5)

    def gae(reward, value, ended, last_value, final_value):
        advantage, trace, following = torch.zeros_like(reward), 0.0, last_value
        for t in reversed(range(len(reward))):
            nonterminal = 1.0 - ended[t]
            following = following * nonterminal + final_value[t]
            delta = reward[t] + GAMMA * following - value[t]
            advantage[t] = trace = delta + GAMMA * LAMBDA * nonterminal * trace
            following = value[t]
        return advantage

    def chosen(batch):
        return agent.get_action(batch["observation"], batch["action"])[1:]

    def policy_loss(batch):
        new_logprob, entropy = chosen(batch)
        ratio = (new_logprob - batch["old_log_prob"]).exp()
        adv = batch["advantage"]
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        pg_loss = torch.max(-adv * ratio, -adv * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
        v_loss = 0.5 * (agent.get_value(batch["observation"]) - batch["return"]).square().mean()
        return pg_loss - 0.01 * entropy.mean() + 0.5 * v_loss

    probe = gradlab.Probe(agent.actor, optimizer, log=log)
    probe.networks(critic=agent.critic)
    probe.losses(
        policy=policy_loss, gae=gae, discount=GAMMA, trace=LAMBDA, clip=CLIP,
        log_prob=lambda batch: chosen(batch)[0], entropy=lambda batch: chosen(batch)[1],
    )  # fmt: skip
    envs = probe.record(envs, discount=GAMMA)

    obs = torch.zeros(STEPS, ENVS, ds)
    actions = torch.zeros(STEPS, ENVS, da)
    logprobs, rewards, values, ended, final_values = torch.zeros(5, STEPS, ENVS)
    next_obs, _ = envs.reset(seed=seed)
    update = 0
    while update < updates:
        for t in range(STEPS):
            obs[t] = torch.as_tensor(next_obs, dtype=torch.float32)
            with torch.no_grad():
                actions[t], logprobs[t], _ = agent.get_action(obs[t])
                values[t] = agent.get_value(obs[t])
            clipped = actions[t].numpy().clip(low, high)
            next_obs, reward, terminated, truncated, infos = envs.step(clipped)
            rewards[t] = torch.as_tensor(reward, dtype=torch.float32)
            ended[t] = torch.as_tensor(terminated | truncated, dtype=torch.float32)
            final_values[t] = 0
            for i in np.flatnonzero(truncated & ~terminated):
                final = torch.as_tensor(infos["final_obs"][i], dtype=torch.float32)
                with torch.no_grad():
                    final_values[t, i] = agent.get_value(final[None])[0]

        with torch.no_grad():
            last_value = agent.get_value(torch.as_tensor(next_obs, dtype=torch.float32))
        advantages = gae(rewards, values, ended, last_value, final_values)
        whole = {
            "observation": obs.reshape(-1, ds), "action": actions.reshape(-1, da),
            "old_log_prob": logprobs.flatten(), "advantage": advantages.flatten(),
            "return": (advantages + values).flatten(),
        }  # fmt: skip
        for _ in range(EPOCHS):
            for rows in torch.randperm(STEPS * ENVS).split(MINIBATCH):
                batch = {name: column[rows] for name, column in whole.items()}
                probe.look(batch)
                optimizer.zero_grad()
                with probe(update):
                    policy_loss(batch).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
                update += 1

    probe.close()
    return [agent], [optimizer]
