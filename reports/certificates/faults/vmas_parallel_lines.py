"""VMAS 1.5.2: the gradient in a line's angle is NaN while the line is parallel to a box's side, as
at every reset: `_get_intersection_point_line_line` divides by their cross product in `where`."""

import torch
import vmas

for angle in (0.0, 1e-3):
    env = vmas.make_env("balance", num_envs=1, n_agents=3, grad_enabled=True)
    env.reset()
    line = next(entity for entity in env.world.entities if entity.name == "line")
    line.state.rot = at = torch.full((1, 1), angle, requires_grad=True)
    for agent in env.world.agents:
        agent.state.force = torch.zeros(1, 2)
    env.world.step()
    print(angle, torch.autograd.grad(line.state.pos.sum() + line.state.rot.sum(), at))
