"""Simulators and models behind one protocol."""

from gradlab.systems.closed_form import (
    CartPoleModel,
    CartPoleParameters,
    CartPoleSimulator,
    LinearQuadratic,
    Pendulum,
)
from gradlab.systems.engines import from_jax, from_warp
from gradlab.systems.function import from_function
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.systems.mujoco import MujocoEnvironment
from gradlab.systems.mujoco_pendulum import MujocoPendulum
from gradlab.systems.stateful import from_environment
from gradlab.systems.system import Certificate, Linearization, System, Transition
from gradlab.systems.vehicle import VehicleModel, VehicleParameters, VehicleSimulator

__all__ = [
    "CartPoleModel",
    "CartPoleParameters",
    "CartPoleSimulator",
    "Certificate",
    "LearnedSystem",
    "LinearQuadratic",
    "Linearization",
    "MujocoEnvironment",
    "MujocoPendulum",
    "Pendulum",
    "System",
    "Transition",
    "TwoModels",
    "VehicleModel",
    "VehicleParameters",
    "VehicleSimulator",
    "from_environment",
    "from_function",
    "from_jax",
    "from_warp",
]
