"""Likelihood ratio (RP-PGM eq. 2.5): 16 steps of the simulator with Gaussian noise of 10% of the
actions' size on the policy, the critic's value at the end, less the batch's mean at each step."""

import torch

from gradlab.networks.interface import act, noise_dim

NAME = "the score at h = 16"


def mean_action(policy, state):
    return act(policy, state, state.new_zeros(len(state), noise_dim(policy)))


def make(task, critic):
    simulator, gamma, steps = task.simulator, task.discount, 16

    def loss(policy, states):
        with torch.no_grad():
            sigma = 0.1 * mean_action(policy, states).square().mean(0).sqrt().clamp_min(1e-3)
        visited, actions, rewards = [], [], []
        state = states
        with torch.no_grad():
            for _ in range(steps):
                mean = mean_action(policy, state)
                action = mean + sigma * torch.randn_like(mean)
                noise = torch.randn(len(state), simulator.noise_dim, dtype=state.dtype)
                after = simulator.step(state, action, noise)
                visited.append(state)
                actions.append(action)
                rewards.append(after.reward)
                state = after.state
            value = critic(state, mean_action(policy, state)).reshape(-1)
        total = torch.zeros(())
        for t in reversed(range(steps)):
            value = rewards[t] + gamma * value
            advantage = value - value.mean()
            misfit = ((actions[t] - mean_action(policy, visited[t])) / sigma).square().sum(1) / 2
            total = total + gamma**t * (advantage * misfit).mean()
        return total

    return loss
