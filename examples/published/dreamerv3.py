"""DreamerV3 in torch (NM512/dreamerv3-torch), in gradlab; latents are modes, straight through.

git clone https://github.com/NM512/dreamerv3-torch; pip install tensorboard; in your script, its
folder on the path and its agent loaded:

    gradlab.measure(*in_gradlab(task, agent._wm, agent._task_behavior), horizon=15)
"""

from torch import nn

import gradlab


class Dreamer(nn.Module):  # of a trained agent's WorldModel and ImagBehavior
    def __init__(self, world, behavior, key="obs"):
        super().__init__()
        self.encoder, self.rssm, self.paid = world.encoder, world.dynamics, world.heads["reward"]
        actor, self.critic, self.key = behavior.actor, behavior.value, key
        self.policy = nn.Sequential(actor.layers, actor.mean_layer, nn.Tanh())  # its mode
        self.latent_dim = self.rssm._stoch * self.rssm._discrete + self.rssm._deter

    def parts(self, z):
        stoch, deter = z.tensor_split([self.rssm._stoch * self.rssm._discrete], 1)
        return {"stoch": stoch.unflatten(1, (self.rssm._stoch, -1)), "deter": deter}

    def encode(self, observation, z, a):
        first = (z == 0).all(1).to(z)
        embed = self.encoder({self.key: observation})
        after, _ = self.rssm.obs_step(self.parts(z), a.clone(), embed, first, sample=False)
        return self.rssm.get_feat(after)

    def step(self, z, a):
        return self.rssm.get_feat(self.rssm.img_step(self.parts(z), a, sample=False))

    def reward(self, z, a):
        return self.paid(self.step(z, a)).mode()[:, 0]

    def value(self, z):
        return self.critic(z).mode()[:, 0]


def in_gradlab(task, world, behavior):
    """Task, policy and critic; actions in [-1, 1], as the agent has them."""
    return gradlab.tasks.with_world_model(task, Dreamer(world, behavior))
