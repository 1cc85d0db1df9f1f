"""Every file of examples/engines is a sound System: its derivatives are those of its own step."""

import importlib
from pathlib import Path

import pytest

import gradlab

FOLDER = Path(__file__).parents[2] / "examples/engines"
NEEDED = {
    "mjx_cart": "mujoco.mjx", "mujoco_torch_cart": "mujoco_torch", "newton_ball": "newton",
    "vmas_transport": "vmas",
}  # fmt: skip


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("*.py"))])
def test_the_derivatives_of_an_example_are_those_of_its_step(name):
    pytest.importorskip(NEEDED[name])
    system = importlib.import_module(f"examples.engines.{name}").simulator()
    assert gradlab.certify(system, samples=64).passed
