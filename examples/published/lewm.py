"""LeWM, the JEPA planner of stable-worldmodel, in gradlab; a latent holds its last frames.

pip install stable-worldmodel; in your script:

    task, policy, critic = in_gradlab(task, model, goal, observe=render)
"""

import torch
from torch import nn

import gradlab


class LeWM(nn.Module):  # pays −|e − goal|² of the next embedding, as the planner's cost does
    def __init__(self, model, goal, action_dim):
        super().__init__()
        self.model, self.frames = model, model.predictor.num_frames
        self.width, self.da = model.predictor.input_dim, action_dim
        self.latent_dim = self.frames * (self.width + action_dim)
        self.policy = nn.Linear(self.latent_dim, action_dim)  # none: a planner's model
        nn.init.zeros_(self.policy.weight), nn.init.zeros_(self.policy.bias)
        self.register_buffer("goal", self.embedded(goal[None]).detach())

    def embedded(self, pixels):
        return self.model.encode({"pixels": pixels[:, None]})["emb"][:, 0]

    def parts(self, z):
        e, a = z.tensor_split([self.frames * self.width], 1)
        return e.unflatten(1, (self.frames, -1)), a.unflatten(1, (self.frames, -1))

    def encode(self, pixels, z, a):
        e, acts = self.parts(z)
        new, first = self.embedded(pixels)[:, None], (z == 0).all(1)[:, None, None]
        e = torch.where(first, new.expand_as(e), torch.cat([e[:, 1:], new], 1))
        return torch.cat([e.flatten(1), torch.cat([acts[:, 1:], a[:, None]], 1).flatten(1)], 1)

    def step(self, z, a):  # the embedder's own forward casts to float32
        (e, acts), embed = self.parts(z), self.model.action_encoder
        acts = torch.cat([acts[:, 1:], a[:, None]], 1)
        acting = embed.embed(embed.patch_embed(acts.transpose(1, 2)).transpose(1, 2))
        e = torch.cat([e[:, 1:], self.model.predict(e, acting)[:, -1:]], 1)
        return torch.cat([e.flatten(1), acts.flatten(1)], 1)

    def reward(self, z, a):
        return -(self.parts(self.step(z, a))[0][:, -1] - self.goal).square().sum(1)

    q = reward


def in_gradlab(task, model, goal, observe=None):
    return gradlab.tasks.with_world_model(
        task, LeWM(model, goal, task.simulator.action_dim), observe
    )
