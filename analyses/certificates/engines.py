"""Certificates of simulators: are an engine's derivatives those of its own step?

    python -m analyses.certificates certify ENGINE-SCENE [--samples 2048]
    python -m analyses.certificates table

`certify` writes a page, ENGINE-SCENE.html, and its digest into pages.json, in an environment that
has the engine; `table` writes the README's table from the digests. A page depends on versions,
settings, samples and seed alone: made twice it is the same.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

import gradlab
from analyses.certificates import scenes
from analyses.certificates.scenes import FIELDS, MODELS, several
from gradlab.tools.certify.compute import certify_function
from gradlab.tools.certify.page import screen
from gradlab.tools.certify.result import Certification

FOLDER = Path("reports/certificates")
PAGES = "pages.json"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Engine:
    """What is certified, by which packages, with which settings.

    Attributes:
        scenes: by name, each makes a Task, or a function and its inputs [N, n].
    """

    packages: tuple[str, ...]
    settings: str
    scenes: Mapping[str, Callable[[], Any]]


_BRAX = ("inverted_pendulum", "inverted_double_pendulum", "reacher")
ENGINES = {
    "gradlab": Engine(
        ("torch",), "closed-form linearization",
        several(scenes.own, "path_tracking", "cart_pole_swing_up", "pendulum"),
    ),
    "gymnasium-mujoco": Engine(
        ("mujoco", "gymnasium"), "Newton solver, linearized by certified differences; no autograd",
        several(scenes.gymnasium, "Hopper-v5", "InvertedPendulum-v5", "HalfCheetah-v5"),
    ),
    "mjx": Engine(
        ("mujoco", "mujoco-mjx", "jax"),
        "Euler, 2 substeps, one iteration of the Newton solver, float64",
        several(scenes.mjx, *MODELS),
    ),
    "mujoco-torch": Engine(
        ("mujoco-torch", "mujoco", "torch"),
        "Euler, 2 substeps, three iterations of the Newton solver, float64",
        several(scenes.mujoco_torch, *MODELS),
    ),
    "brax-generalized": Engine(
        ("brax", "jax"), "generalized pipeline, float64",
        several(scenes.brax, *_BRAX, backend="generalized"),
    ),
    "brax-spring": Engine(
        ("brax", "jax"), "spring pipeline, float64", several(scenes.brax, *_BRAX, backend="spring")
    ),
    "brax-positional": Engine(
        ("brax", "jax"), "positional pipeline, float64",
        several(scenes.brax, *_BRAX, backend="positional"),
    ),
    "newton": Engine(
        ("newton", "warp-lang"),
        "SolverSemiImplicit, 4 substeps, contacts in every substep, float32",
        several(scenes.newton, "ball", "spring", "chain"),
    ),
    "rewarped": Engine(
        ("rewarped", "warp-lang", "torch"), "Featherstone integrator, 4 substeps, float32",
        several(scenes.rewarped, "cartpole"),
    ),
    "vmas": Engine(
        ("vmas", "torch"), "its own penalty contacts, 1 substep, float64",
        several(scenes.vmas, "transport", "navigation", "balance", agents=3),
    ),
    "torchdiffeq": Engine(
        ("torchdiffeq", "torch"), "dopri5, rtol 1e-7, atol 1e-9, through the solver, float64",
        several(scenes.torchdiffeq, *FIELDS),
    ),
    "cvxpylayers": Engine(
        ("cvxpylayers", "diffcp", "cvxpy"), "SCS to 1e-12, derivative of the optimality conditions",
        several(scenes.cvxpylayers, "mpc", "simplex", "cone"),
    ),
    "genesis": Engine(
        ("genesis-world", "quadrants", "torch"), "rigid solver, three steps of 20 ms, float64",
        several(scenes.genesis, "sphere", "box", "flight"),
    ),
}  # fmt: skip
NAMES = {f"{name}-{scene}": (name, scene) for name, one in ENGINES.items() for scene in one.scenes}


def certify(
    name: Positional[str], samples: int = 2048, seed: int = 0, output: Path = FOLDER
) -> None:
    """Certify one scene of one engine."""
    if name not in NAMES:
        raise SystemExit(f"no engine's scene is called {name!r}: {', '.join(NAMES)}")
    engine, scene = NAMES[name]
    made = ENGINES[engine].scenes[scene]()
    if isinstance(made, tuple):
        certificate = certify_function(*made, seed=seed)
    else:
        certificate = gradlab.certify(made, samples=samples, seed=seed)
    certificate = described(certificate, ENGINES[engine])
    certificate.save(output / f"{name}.html")
    pages = output / PAGES
    known = json.loads(pages.read_text()) if pages.exists() else {}
    known[name] = digest(certificate)
    pages.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n")
    print(*certificate.sentences, sep="\n")


def described(certificate: Certification, engine: Engine) -> Certification:
    """The certificate with versions and settings of what was certified."""
    versions = {name: importlib.metadata.version(name) for name in engine.packages}
    about = {"versions": versions, "engine": engine.settings}
    return replace(certificate, facts={**certificate.facts, **about})


def digest(certificate: Certification) -> dict[str, Any]:
    """What the table has of a page."""
    table, facts = certificate.table(), certificate.facts
    median = table.loc[table["p95"].notna() & (table["stratum"] != "onset"), "median"].max()
    word = screen(certificate).word.lower()
    versions = ", ".join(f"{package} {v}" for package, v in facts["versions"].items())
    return {
        "system": certificate.system, "settings": f"{versions}; {facts['engine']}",
        "states": facts["states"], "median": f"{median:.0e}",
        "p95": f"{certificate.largest:.0e}",
        "verdict": word if certificate.passed else f"**{word}**",
        "sentences": list(certificate.sentences[:6]),
    }  # fmt: skip


def row(name: str, page: Mapping[str, Any]) -> str:
    """One line of the table."""
    cells = (f"[{page['system']}]({name}.html)", page["settings"], str(page["states"]),
             page["median"], page["p95"], page["verdict"])  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(output: Path = FOLDER) -> None:
    """Write the table into the README."""
    pages = json.loads((output / PAGES).read_text())
    lines = [
        "| simulator | versions and settings | states | median error | 95% below | verdict |",
        "|---|---|---|---|---|---|",
        *(row(name, page) for name, page in pages.items()),
        "",
    ]
    for name, page in pages.items():
        lines += [f"**{name}**", *(f"- {sentence}" for sentence in page["sentences"]), ""]
    readme = output / "README.md"
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"{END}{after}")
