"""A cart in mujoco-torch: `gradlab certify examples/engines/mujoco_torch_cart.py:simulator`.

It wants an environment of its own: `pip install mujoco-torch==0.2.0 mujoco==3.5.0`.
"""

import copy

import mujoco
import mujoco_torch
import torch

import gradlab

CART = """<mujoco><option timestep="0.02" jacobian="dense"/><worldbody><body>
<joint name="slide" type="slide" axis="1 0 0" range="-9 9" limited="true"/>
<geom type="sphere" size="0.1" mass="10" contype="0" conaffinity="0"/></body></worldbody>
<actuator><motor joint="slide" gear="100"/></actuator></mujoco>"""


def system_of(model, reward, frame_skip=1, iterations=10):
    """State (qpos, qvel), action ctrl; reward: of batches of states, actions and next states."""
    model, nq = copy.deepcopy(model), model.nq
    model.opt.iterations, model.opt.ls_iterations = iterations, 6
    world = mujoco_torch.device_put(model)
    blank = mujoco_torch.make_data(world)
    substep = torch.vmap(lambda data: mujoco_torch.step(world, data, fixed_iterations=True))

    def step(s, a):
        data = blank.expand(len(s)).clone().replace(qpos=s[:, :nq], qvel=s[:, nq:], ctrl=a)
        for _ in range(frame_skip):
            data = substep(data)
        after = torch.cat([data.qpos, data.qvel], 1)
        return after, reward(s, a, after)

    return gradlab.systems.from_function(step, nq + model.nv, model.nu)


def simulator():
    model = mujoco.MjModel.from_xml_string(CART)
    return system_of(model, lambda s, a, after: -after.square().sum(1) - 0.1 * a[:, 0] ** 2, 2, 3)
