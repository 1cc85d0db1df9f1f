"""A cart in MJX as a System: `gradlab certify examples/engines/mjx_cart.py:simulator`.

With one iteration of its constraint solver MJX has reverse mode; with more, forward mode alone.
"""

import copy

import jax
import mujoco
from mujoco import mjx

import gradlab

CART = """<mujoco><option timestep="0.02" jacobian="dense"/><worldbody><body>
<joint name="slide" type="slide" axis="1 0 0" range="-9 9" limited="true"/>
<geom type="sphere" size="0.1" mass="10" contype="0" conaffinity="0"/></body></worldbody>
<actuator><motor joint="slide" gear="100"/></actuator></mujoco>"""


def system_of(model, reward, frame_skip=1, iterations=1, rows=256):
    """State (qpos, qvel), action ctrl; reward: of one state, action and next state, in JAX."""
    model, nq = copy.deepcopy(model), model.nq
    model.opt.iterations = iterations
    with jax.enable_x64(True):
        world = mjx.put_model(model)
        blank = mjx.make_data(world)

    def step(state, action):
        data = blank.replace(qpos=state[:nq], qvel=state[nq:], ctrl=action)
        data, _ = jax.lax.scan(lambda d, _: (mjx.step(world, d), None), data, None, frame_skip)
        after = jax.numpy.concatenate([data.qpos, data.qvel])
        return after, reward(state, action, after)

    return gradlab.systems.from_jax(step, nq + model.nv, model.nu, rows=rows)


def simulator():
    model = mujoco.MjModel.from_xml_string(CART)
    return system_of(model, lambda s, a, after: -(after @ after) - 0.1 * a[0] ** 2, 2)
