"""Certificates of simulators: are an engine's derivatives those of its own step?

    python -m analyses.certificates certify NAME [--samples 2048] [--output reports/certificates]
    python -m analyses.certificates table [--output reports/certificates]

`certify` writes NAME.json and NAME.html in an environment that has the engine (`make engines`);
`table` writes the README's table from all JSON files. A page depends on versions, settings, samples
and seed alone: made twice it is the same.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tyro.conf import Positional

import gradlab
from gradlab.systems import System
from gradlab.systems.engines.from_jax import in_float64
from gradlab.tasks import Task
from gradlab.tools.certify.result import Certification

FOLDER = Path("reports/certificates")
CART_POLE = """
<mujoco>
  <option timestep="0.02" iterations="100" tolerance="1e-12" jacobian="dense"/>
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0" range="-1 1" limited="true" damping="1"/>
      <geom type="sphere" size="0.1" mass="10" contype="0" conaffinity="0"/>
      <body>
        <joint name="pole" type="hinge" axis="0 1 0" damping="0.1"/>
        <geom type="sphere" pos="0 0 0.6" size="0.05" mass="5" contype="0" conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="100" ctrlrange="-3 3" ctrllimited="true"/></actuator>
</mujoco>
"""
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Engine:
    """A row: what is certified, by which packages, with which settings."""

    task: Callable[[], Task]
    packages: tuple[str, ...]
    settings: str


def normal(mean: tuple[float, ...], deviation: tuple[float, ...]) -> Any:
    """A start law of independent normal coordinates."""

    def starts(n: int, generator: torch.Generator) -> Tensor:
        draws = torch.randn(n, len(mean), generator=generator, dtype=torch.float64)
        return draws * draws.new_tensor(deviation) + draws.new_tensor(mean)

    return starts


def mjx_cart_pole() -> Task:
    """A cart on a slider with limits, and a pole."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(CART_POLE)
    system = gradlab.systems.from_mjx(
        model, lambda s, a, after: -(after[:2] @ after[:2]) - 1e-3 * a[0] ** 2, frame_skip=2
    )
    return cart_pole("a cart-pole in MJX", system)


def cart_pole(name: str, system: System) -> Task:
    """Names, limits and a start law that reaches the slider's limits."""
    return Task(
        name, system, None, normal((0,) * 4, (0.6, 0.3, 0.5, 0.5)), 0.99, 25,
        ("slider [m]", "pole [rad]", "slider rate [m/s]", "pole rate [rad/s]"), ("force",),
        action_limit=(3.0,),
    )  # fmt: skip


def mujoco_torch_cart_pole() -> Task:
    """The same model in mujoco-torch."""
    import mujoco

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return -after[:, :2].square().sum(1) - 1e-3 * action[:, 0].square()

    model = mujoco.MjModel.from_xml_string(CART_POLE)
    system = gradlab.systems.from_mujoco_torch(model, reward, frame_skip=2, iterations=3)
    return cart_pole("a cart-pole in mujoco-torch", system)


def brax_pendulum() -> Task:
    """brax's inverted pendulum, stepped by its pipeline in generalized coordinates."""
    import jax
    from brax import envs
    from brax.generalized import pipeline

    with in_float64():
        environment = envs.get_environment("inverted_pendulum", backend="generalized")
    model, nq = environment.sys, environment.sys.q_size()

    def step(state: Any, action: Any) -> tuple[Any, Any]:
        def substep(data: Any, _: None) -> tuple[Any, None]:
            return pipeline.step(model, data, action), None

        data = pipeline.init(model, state[:nq], state[nq:])
        data, _ = jax.lax.scan(substep, data, None, environment._n_frames)
        after = jax.numpy.concatenate([data.q, data.qd])
        return after, -(after[:2] @ after[:2]) - 1e-3 * action[0] ** 2

    system = gradlab.systems.from_jax(step, nq + model.qd_size(), model.act_size())
    return cart_pole("brax's inverted pendulum", system)


def vmas_transport() -> Task:
    """Two agents push a package to the origin."""

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return -after[:, 12:14].square().sum(1) - 0.1 * action.square().sum(1)

    system = gradlab.systems.from_vmas("transport", reward, n_agents=2)
    bodies = [f"{name} {part}" for name in ("agent 0", "agent 1")
              for part in ("x", "y", "vx", "vy", "angle", "turn rate")]  # fmt: skip
    bodies += [f"package {part}" for part in ("x", "y", "vx", "vy")]
    return Task(
        "transport in VMAS", system, None, normal((0.0,) * 16, (0.08,) * 16), 0.99, 25,
        tuple(bodies), ("agent 0 fx", "agent 0 fy", "agent 1 fx", "agent 1 fy"),
        action_limit=(1.0,) * 4,
    )  # fmt: skip


def newton_ball() -> Task:
    """A ball thrown at the ground."""
    import newton

    stiffness = dict(ke=1e3, kf=0.0, kd=10.0, mu=0.2)
    world = newton.ModelBuilder(up_axis=newton.Axis.Z)
    world.add_particle(pos=(0.0, 0.0, 1.0), vel=(0.0, 0.0, 0.0), mass=1.0, radius=0.1)
    world.add_ground_plane(cfg=newton.ModelBuilder.ShapeConfig(**stiffness))

    def prepare(model: Any) -> None:
        for name, value in stiffness.items():
            setattr(model, f"soft_contact_{name}", value)

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return -after[:, :3].square().sum(1) - 0.01 * action.square().sum(1)

    system = gradlab.systems.from_newton(world, reward, 1 / 60, 4, prepare)
    return Task(
        "a bouncing ball in Newton", system, None,
        normal((0, 0, 0.15, 0, 0, -0.5), (0.3, 0.3, 0.1, 0.5, 0.5, 0.5)), 0.99, 25,
        tuple(f"{what} {axis}" for what in ("position", "velocity") for axis in "xyz"),
        ("fx", "fy", "fz"),
    )  # fmt: skip


ENGINES = {
    "brax-inverted-pendulum": Engine(
        brax_pendulum, ("brax", "jax"),
        "generalized backend, 2 substeps, float64, XLA on the CPU",
    ),
    "gradlab-vehicle": Engine(
        gradlab.tasks.path_tracking, ("torch",), "20 substeps, closed-form linearization"
    ),
    "gymnasium-mujoco-hopper": Engine(
        lambda: gradlab.tasks.mujoco("Hopper-v5"), ("mujoco", "gymnasium"),
        "Newton solver, linearized by certified differences; no autograd",
    ),
    "mjx-cart-pole": Engine(
        mjx_cart_pole, ("mujoco", "mujoco-mjx", "jax"),
        "Euler, 2 substeps, one iteration of the Newton solver, float64",
    ),
    "mujoco-torch-cart-pole": Engine(
        mujoco_torch_cart_pole, ("mujoco-torch", "mujoco", "torch"),
        "Euler, 2 substeps, three iterations of the Newton solver, float64",
    ),
    "newton-ball": Engine(
        newton_ball, ("newton", "warp-lang"),
        "SolverSemiImplicit, 4 substeps, contacts in every substep, float32",
    ),
    "vmas-transport": Engine(
        vmas_transport, ("vmas", "torch"), "its own penalty contacts, 1 substep, float64"
    ),
}  # fmt: skip


def certify(
    name: Positional[str], samples: int = 2048, seed: int = 0, output: Path = FOLDER
) -> None:
    """Certify one engine."""
    if name not in ENGINES:
        raise SystemExit(f"no engine is called {name!r}: {', '.join(ENGINES)}")
    engine = ENGINES[name]
    certificate = described(gradlab.certify(engine.task(), samples=samples, seed=seed), engine)
    for suffix in (".json", ".html"):
        certificate.save(output / f"{name}{suffix}")
    print(*certificate.sentences, sep="\n")


def described(certificate: Certification, engine: Engine) -> Certification:
    """The certificate with versions and settings of what was certified."""
    versions = {name: importlib.metadata.version(name) for name in engine.packages}
    about = {"versions": versions, "engine": engine.settings}
    return replace(certificate, facts={**certificate.facts, **about})


def row(name: str, document: dict[str, Any]) -> str:
    """One line of the table."""
    facts = document["facts"]
    versions = ", ".join(f"{package} {v}" for package, v in facts["versions"].items())
    judged = [r for r in document["table"] if r["p95"] is not None and r["stratum"] != "onset"]
    median = max((r["median"] for r in judged), default=float("nan"))
    p95 = max((r["p95"] for r in judged), default=float("nan"))
    verdict = "sound" if document["passed"] else "**not sound**"
    cells = (
        f"[{document['system']}]({name}.html)", f"{versions}; {facts['engine']}",
        str(facts["states"]), f"{median:.0e}", f"{p95:.0e}", verdict,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(output: Path = FOLDER) -> None:
    """Write the table into the README."""
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(output.glob("*.json"))}
    lines = [
        "| simulator | versions and settings | states | median error | 95% below | verdict |",
        "|---|---|---|---|---|---|",
        *(row(name, document) for name, document in documents.items()),
        "",
    ]
    for name, document in documents.items():
        lines += [f"**{name}**", *(f"- {sentence}" for sentence in document["sentences"][:6]), ""]
    readme = output / "README.md"
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"{END}{after}")
