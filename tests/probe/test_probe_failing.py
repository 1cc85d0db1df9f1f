"""Whatever breaks inside a probe, the loop around it goes on with the same bits.

Every function and method of the probe's is made to raise in its turn.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradlab.probe
import gradlab.runs.probe
from gradlab.probe import measured, signals
from gradlab.storage.journal import Journal
from tests.probe.small_loops import linear_task

UPDATES = 24  # rows, and pairs of updates enough for each of its measurements
LOST = 14  # the update whose gradient is not finite
APART = ("results", "tables")  # modules that read a run, no part of one
PACKAGES = ("gradlab.probe.", "gradlab.runs.probe.")
# What a user calls outside of the loop, and what catches: a guard cannot guard itself.
NOT_PLANTED = {
    "Probe.__call__", "Probe.close", "Probe.resume", "Probe.alarms", "Probe.spent",
    "Probe._attempt", "Probe._fail", "Probe._leave", "Probe._let_go",
    "_Marked.__enter__", "_Marked.__exit__",
    "Passes.__call__", "passes.inert", "Movements._heard", "Movements._arrives",
}  # fmt: skip


class Planted(Exception):
    """What is raised."""


def modules() -> Iterator[Any]:
    for package in (gradlab.probe, gradlab.runs.probe):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.rsplit(".", 1)[-1] not in APART:
                yield importlib.import_module(found.name)


def callables() -> list[tuple[Any, str]]:
    """(module or class, name) of all that can run once a probe has begun."""
    places: list[tuple[Any, str]] = []
    for module in modules():
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                places += [(value, method) for method in vars(value) if _runs(value, method)]
            # torch.compile leaves functions of no module in those that it has traced.
            elif inspect.isfunction(value) and (value.__module__ or "").startswith(PACKAGES):
                places.append((module, name))
    places += [(TorchDispatchMode, "__enter__"), (TorchDispatchMode, "__exit__")]
    places += [(Journal, "append"), (Journal, "close")]
    return [place for place in places if label(place) not in NOT_PLANTED]


def _runs(kind: type, name: str) -> bool:
    value = vars(kind)[name]
    special = name.startswith("__") and name not in ("__call__", "__enter__", "__exit__")
    return (inspect.isfunction(value) or isinstance(value, property)) and not special


def whose(owner: Any) -> str:
    return str(owner.__name__.removeprefix("gradlab.probe."))


def label(place: tuple[Any, str]) -> str:
    """Without the package: `updates.replayed`, `alarms.gradients.lost_now`, `Probe.close`."""
    return f"{whose(place[0])}.{place[1]}"


def run(
    between: Callable[[], None] | None, probe_of: Callable[..., gradlab.Probe] | None = None
) -> tuple[list[Tensor], gradlab.Probe | None]:
    """θ after every update; `between` runs once the probe is there."""
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Tanh())
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    probe = None if probe_of is None else probe_of(policy, optimizer)
    neighbours(policy, optimizer)
    if between is not None:
        between()
    found = []
    for step in range(UPDATES):
        optimizer.zero_grad()
        loss = (policy(torch.randn(8, 2)) * (torch.nan if step == LOST else 1.0)).sum()
        if probe is None:
            loss.backward()
        else:
            with probe(step):
                loss.backward()
        if step != LOST:
            optimizer.step()
        found.append(torch.cat([p.detach().flatten() for p in policy.parameters()]).clone())
    if probe is not None:
        probe.close()
    return [*found, torch.get_rng_state()], probe


def neighbours(policy: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Other people's hooks behind the probe's: torch goes through them while the probe fails."""
    average = [p.detach().clone() for p in policy.parameters()]

    def smooth(*_: Any) -> None:
        for kept, p in zip(average, policy.parameters(), strict=True):
            kept.lerp_(p.detach(), 0.01)

    optimizer.register_step_pre_hook(lambda *_: None)
    optimizer.register_step_post_hook(smooth)
    policy.register_forward_hook(lambda *_: None)


@pytest.fixture(scope="module")
def bare() -> list[Tensor]:
    return run(None)[0]


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Labels of what runs in the loop when nothing fails."""
    found: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)

        def listen() -> None:
            for place in callables():
                _wrap(patch, place, found)

        run(listen, probed(tmp_path_factory.mktemp("reached") / "run.h5"))
    return found


def _wrap(patch: pytest.MonkeyPatch, place: tuple[Any, str], found: set[str]) -> None:
    owner, name = place
    old = inspect.getattr_static(owner, name)
    work = old.fget if isinstance(old, property) else old

    def heard(*given: Any, **named: Any) -> Any:
        found.add(label(place))
        return work(*given, **named)

    patch.setattr(owner, name, property(heard) if isinstance(old, property) else heard)


def probed(path: Path | None) -> Callable[[nn.Module, Any], gradlab.Probe]:
    sinks: list[Any] = [lambda row: None]
    return lambda policy, optimizer: gradlab.Probe(
        policy, optimizer, linear_task(), log=sinks if path is None else [path, *sinks], every=8
    )  # fmt: skip


PLACES = callables()


@pytest.mark.parametrize("owner", dict.fromkeys(owner for owner, _ in PLACES), ids=whose)
@pytest.mark.sampled(30)
def test_training_goes_on_when_this_fails(owner, bare, reached, monkeypatch, tmp_path):
    """Places that the loop does not reach are of other loops than this one."""
    quick(monkeypatch)
    for place in PLACES:
        if place[0] is owner and label(place) in reached:
            found, words = failing(place, tmp_path / f"{place[1]}.h5")
            assert all(torch.equal(a, b) for a, b in zip(bare, found, strict=True)), label(place)
            # Two where measuring goes first and the rest after it.
            said = 1 <= len(words) <= 2 or label(place).startswith(SILENT)
            assert said and len(set(words)) == len(words), (label(place), words)


def failing(place: tuple[Any, str], path: Path) -> tuple[list[Tensor], list[str]]:
    """θ after every update where this raises, and what the probe warns of."""
    owner, name = place
    old = inspect.getattr_static(owner, name)

    def raising(*given: Any, **_: Any) -> Any:
        if place == (TorchDispatchMode, "__exit__"):  # else its mode stays for all tests to come
            old(*given)
        raise Planted("on purpose")

    with warnings.catch_warnings(record=True) as caught, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")

        def plant() -> None:
            patch.setattr(owner, name, property(raising) if isinstance(old, property) else raising)

        found, _ = run(plant, probed(path if label(place).startswith(FILED) else None))
    return found, [str(each.message) for each in caught if "gradlab's probe" in str(each.message)]


# What only a probe with a file does; the others have none, for a file takes half the time.
FILED = ("Journal.", "_File.", "log.", "gradlab.runs.probe.")


# Nothing is said where saying fails, where a check is undecided then, nor about an origin of NaN.
SILENT = (
    "isolation.warn", "LoopChecks.rest", "Movements.close", "Movements.own", "Movements._owner",
    "moved._waits", "origin.", "loop.origin",
    "Passes.lost", "passes.by_row",
)  # fmt: skip


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a probe does happens within the loop's few updates."""
    monkeypatch.setattr(signals, "PAIRS", 6)
    made = {"starts": 64, "variance": np.ones((4, 11))}
    monkeypatch.setattr(measured, "measured", lambda *given: (dict(made), given[-1]))


def test_all_of_a_probe_is_at_work_in_this_loop(bare, monkeypatch):
    """Otherwise the test above would say nothing."""
    rows: list[dict[str, Any]] = []
    quick(monkeypatch)
    found, probe = run(
        None,
        lambda policy, optimizer: gradlab.Probe(
            policy, optimizer, linear_task(), log=rows.append, every=8
        ),
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(bare, found, strict=True))
    assert probe is not None
    keys = {key.split("/")[0] for row in rows for key in row}
    assert keys >= {"vitals", "successive", "measured", "findings"}
    assert any(each.code.startswith("nan.") for each in probe.alarms)
