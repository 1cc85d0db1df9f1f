"""Public functions with hostile arguments: one or two of a call that works are replaced.

    done         it returned
    refused      InputError or Failure, in one line that names one of the arguments
    traceback    any other exception, or a message of several lines
    hang         nothing for `PATIENCE` seconds

Hypothesis draws what is replaced by what.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import math
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import gradlab
from gradlab import figures
from gradlab.errors import Failure, InputError
from gradlab.progress import silent

PATIENCE = 60  # seconds
ALLOWED = frozenset({"done", "refused"})
Call = tuple[Callable[..., Any], Mapping[str, Any]]


class Critic(nn.Module):
    """A value that is right for nothing."""

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return -(state**2).sum(1) - (action**2).sum(1)


def _task() -> gradlab.Task:
    eye = torch.eye(2, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(**_linear(eye), prior=(0.8 * eye, 0.5 * eye))


def _linear(eye: Tensor) -> dict[str, Any]:
    return dict(
        A=0.9 * eye, B=0.5 * eye, Q=eye, R=eye, noise_covariance=0.01 * eye,
        start_mean=torch.zeros(2, dtype=torch.float64), start_covariance=eye, discount=0.9,
    )  # fmt: skip


def _policy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2, bias=False, dtype=torch.float64)


def _moved() -> nn.Module:
    policy = _policy()
    policy.weight.data += 0.1
    return policy


class Still(gymnasium.Env[Any, Any]):
    """An environment of one step."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2), float(np.sum(action)), True, False, {}


def _step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * state + 0.5 * action, -(state**2).sum(1)


def _gradients(
    states: Any, jacobians: Any, actions: Any, tail: Any, policy: Any, starts: Any, seed: Any
) -> Tensor:
    return gradlab.Estimator(states, jacobians, actions, tail).gradients(policy, starts, seed)


def _differentiated(state: Any, action: Any, **settings: Any) -> None:
    env = gradlab.differentiable(**settings)
    after, reward, _ = env.step(state, action)
    (after.sum() + reward.sum()).requires_grad_().backward()
    _ = env.flagged


def _stepped(step: Any, state_dim: Any, action_dim: Any, noise_dim: Any, alive: Any) -> None:
    system = gradlab.systems.from_function(step, state_dim, action_dim, noise_dim, alive)
    state = torch.ones(3, 2, dtype=torch.float64)
    system.step(state, state)
    system.linearize(state, state)


def _actor_loss(policy: nn.Module, critic: Critic, states: Tensor) -> Callable[..., Tensor]:
    def loss(*_: Any) -> Tensor:
        return -critic(states, policy(states)).mean()

    return loss


def _probed(policy: Any, optimizer: Any, task: Any, critic: Any, log: Any, **more: Any) -> None:
    probe = gradlab.Probe(policy, optimizer, task, critic, log=log, **more)
    with probe(0):
        pass
    probe.close()


def _handed(**parts: Any) -> None:
    """What a loop declares, notes and hands over."""
    probe, policy = gradlab.Probe(_policy()), _policy()
    env = probe.record(parts.pop("env"))
    env.reset()
    env.step(np.zeros(2))
    names = ("critic", "target", "target_actor", "model", "temperature", "optimizers")
    probe.networks(**{name: parts.pop(name) for name in names})
    probe.losses(critic=parts.pop("loss"), discount=parts.pop("discount"))
    noted = {name: parts.pop(name) for name in ("episode_return",)}
    for k in range(21):
        probe.look(parts)
        probe.note(**noted)
        with probe(k):
            policy(torch.zeros(8, 2, dtype=torch.float64)).sum().backward()
    probe.close()


@functools.cache
def calls() -> Mapping[str, Call]:
    """What works, by name. A new public function is a row here."""
    folder = Path(tempfile.mkdtemp(prefix="calls"))
    task, policy, critic, eye = _task(), _policy(), Critic(), torch.eye(2, dtype=torch.float64)
    system, tail = task.simulator, gradlab.Tail(2, critic, 0.9)
    profile = gradlab.measure(task, policy, critic, horizon=2, starts=16, batch=4)
    saved = profile.save(folder / "profile.h5")
    table = profile.table()
    states = task.starts(8, torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    found: dict[str, Call] = {
        "tasks.linear_quadratic": (gradlab.tasks.linear_quadratic, {**_linear(eye), "prior": None}),
        "tasks.path_tracking": (gradlab.tasks.path_tracking, {"parameters": "table3"}),
        "tasks.inverted_pendulum": (
            gradlab.tasks.inverted_pendulum,
            {"engine": "analytic", "slider": "stock", "reward": "pre_step"},
        ),
        "tasks.mujoco": (gradlab.tasks.mujoco, {"env_id": "InvertedPendulum-v5"}),
        "differentiable": (
            _differentiated,
            dict(
                environment="InvertedPendulum-v5", batch=2,
                state=torch.zeros(2, 4), action=torch.zeros(2, 1),
            ),
        ),
        "systems.from_function": (
            _stepped,
            dict(step=_step, state_dim=2, action_dim=2, noise_dim=0, alive=None),
        ),
        "Task": (
            gradlab.Task,
            dict(
                name="mine", simulator=system, prior=None, starts=task.starts, discount=0.9,
                horizon=2,
            ),
        ),
        "Tail": (gradlab.Tail, dict(horizon=2, critic=critic, discount=0.9, value="Q")),
        "Estimator.gradients": (
            _gradients,
            dict(
                states=system, jacobians=system, actions="all", tail=tail, policy=policy,
                starts=states, seed=0,
            ),
        ),
        "measure": (
            gradlab.measure,
            dict(
                task=task, policy=policy, critic=critic, estimators=None, horizon=2, starts=8,
                batch=4, truth="objective", termination="ignore", law="visited", seed=0,
                progress=silent, attribute=False, also=(), update=None,
            ),
        ),
        "choose": (gradlab.choose, dict(profile=profile)),
        "attribute": (gradlab.attribute, dict(profile=profile)),
        "load": (gradlab.load, dict(path=saved)),
        "report": (gradlab.report, dict(path=saved)),
        "Profile.save": (profile.save, dict(path=folder / "again.h5", overwrite=True)),
        "compare_jacobians": (
            gradlab.compare_jacobians,
            dict(
                simulator=system, model=task.prior, states=states, policy=policy, data=None,
            ),
        ),
        "Probe": (
            _probed,
            dict(
                policy=policy, optimizer=optimizer, task=None, critic=None, log=None,
                every=50, seed=0, env=None, critic_alone=False,
            ),
        ),
        "Probe.networks": (
            _handed,
            dict(
                env=Still(), critic=nn.Linear(2, 1), target=None, target_actor=None, model=None,
                temperature=None, optimizers=None, loss=lambda batch: batch["reward"].sum(),
                discount=0.9, episode_return=1.0, observation=torch.zeros(8, 2),
                action=torch.zeros(8, 2), reward=torch.zeros(8), terminated=torch.zeros(8),
            ),
        ),
        "fitting.fit_critic": (
            gradlab.fitting.fit_critic,
            dict(
                task=task, policy=policy, steps=1, termination="ignore", spectral=None, bound=1.0,
                seed=0, progress=_enough,
            ),
        ),
        "fitting.stabilising_policy": (
            gradlab.fitting.stabilising_policy,
            dict(task=task, share=0.01, spectral=None, bound=1.0, seed=0, progress=_enough),
        ),
        "fitting.collect": (
            gradlab.fitting.collect, dict(task=task, rows=8, policy=None, length=None, seed=0),
        ),
        "race": (
            gradlab.race,
            dict(
                task=task, policy=policy, critic=critic, candidates=None, updates=1, batch=8,
                starts=8, horizon=1, length=2, refit_critic=False, progress=silent,
            ),
        ),
        "certify": (
            gradlab.certify,
            dict(
                system=system, states=states, actions=states, samples=8, task=None, policy=None,
                progress=silent,
            ),
        ),
        "step": (
            gradlab.step,
            dict(
                before=policy, after=_moved(), env=Still, starts=2,
                at_most=2, updates=None, seed=0, progress=silent,
            ),
        ),
        "audit": (
            gradlab.audit,
            dict(
                loss=_actor_loss(policy, critic, states), actor=policy, critic=critic, model=None,
                inputs=(), seed=0,
            ),
        ),
        "train": (
            gradlab.train,
            dict(
                algorithm="mpg-v2", task=task, output=folder / "trained.h5", overwrite=True,
                iterations=2, seeds=1, warmup=4, batch=4, hidden=(4,), horizons=(0, 1),
            ),
        ),
    }  # fmt: skip
    for name in [name for name in figures.__all__ if name != "column"]:
        draw = getattr(figures, name)
        first, *rest = inspect.signature(draw).parameters.values()
        needed = {each.name: "x" for each in rest if each.default is each.empty}
        found[f"figures.{name}"] = (draw, {first.name: table, "ax": None, **needed})
    return found


def _nothing(*_: Any) -> None:
    return None


def _enough(*_: Any) -> None:
    """A fit takes a minute: it has begun, which is what is tried."""
    raise Failure("enough")


def _raising(*_: Any) -> None:
    raise RuntimeError("mine")


HOSTILE: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: 0, lambda: -1, lambda: 1, lambda: 3, lambda: 2**63,
    lambda: -(2**63) - 1, lambda: 10**400, lambda: 0.5, lambda: 2.0, lambda: math.nan,
    lambda: math.inf, lambda: -0.0, lambda: 1e-320, lambda: 1j, lambda: "", lambda: "first",
    lambda: "x" * 300, lambda: "\0", lambda: "\udcff", lambda: b"\xff", lambda: "/dev/null",
    lambda: Path("/nowhere/at/all.h5"), lambda: Path("."), list, dict, tuple, set, object,
    lambda: [None], lambda: [[1.0, 0.0], [0.0, 1.0]], lambda: {"a": 1}, lambda: (1, 2),
    lambda: int, lambda: _nothing, lambda: _raising, lambda: (lambda s: s),
    lambda: (lambda s, a: s), lambda: (lambda s, a: (s, a)), lambda: (lambda s, a: None),
    lambda: (lambda n, g: torch.zeros(n, 2)), lambda: (lambda n, g: np.zeros((n, 2))),
    lambda: (lambda n, g: torch.full((n, 2), math.nan)), lambda: torch.zeros(()),
    lambda: torch.zeros(0), lambda: torch.zeros(0, 2), lambda: torch.zeros(4),
    lambda: torch.zeros(4, 2), lambda: torch.zeros(2, 2), lambda: torch.ones(4, 3),
    lambda: torch.full((8, 2), math.nan), lambda: torch.full((8, 2), math.inf),
    lambda: torch.full((8, 2), 1e200, dtype=torch.float64), lambda: torch.zeros(8, 2).int(),
    lambda: torch.zeros(8, 2).bool(), lambda: torch.zeros(8, 2, dtype=torch.complex64),
    lambda: torch.randn(8, 2, requires_grad=True), lambda: torch.randn(8, 2).half(),
    lambda: torch.randn(8, 2).to_sparse(), lambda: torch.randn(8, 2, device="meta"),
    lambda: np.zeros((8, 2)), lambda: np.array("a"), lambda: np.array([None]),
    lambda: np.float32(0.5), lambda: np.int64(2), lambda: np.nan, lambda: range(3),
    lambda: nn.Linear(2, 2), lambda: nn.Linear(3, 2), lambda: nn.Linear(2, 1).double(),
    lambda: nn.Identity(), lambda: nn.Linear(4, 1), lambda: nn.BatchNorm1d(2), nn.ReLU,
    lambda: Critic(), lambda: nn.ModuleList(), lambda: torch.nn.LSTM(2, 2), _task,
    lambda: _task().simulator, lambda: gradlab.Tail(0, None, 1.0),
    lambda: gradlab.Tail(3, Critic(), 0.5), lambda: torch.Generator(),
    lambda: torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1), lambda: io.StringIO(),
)  # fmt: skip


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """TimeoutError after so long."""

    def ring(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(name: str, replaced: Mapping[str, Any]) -> tuple[str, str]:
    """The outcome of one call, and what led to it where it is not allowed."""
    function, valid = calls()[name]
    quiet = io.StringIO()
    try:
        with (
            tempfile.TemporaryDirectory() as here,
            contextlib.chdir(here),
            within(PATIENCE),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(quiet),
        ):
            warnings.simplefilter("ignore")
            function(**{**valid, **replaced})
    except TimeoutError:
        return "hang", f"{name}({_said(replaced)})"
    except (InputError, Failure) as error:
        if "\n" not in str(error).strip():
            return "refused", ""
        return "traceback", f"{name}({_said(replaced)}): several lines: {error}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [each for each in place if "/gradlab/" in each.filename][-1:]
        where = "".join(f"{Path(each.filename).name}:{each.lineno}" for each in ours)
        word = f"{type(error).__name__}: {str(error)[:150]}"
        return "traceback", f"{name}({_said(replaced)}) at {where}: {word}"
    return "done", ""


def _said(replaced: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={repr(value)[:60]}" for name, value in replaced.items())


def call_outcomes(count: int, seed: int = 0, told: list[str] | None = None) -> Counter[str]:
    """How often each outcome was met in `count` calls.

    Args:
        told: gets what led to each outcome that is not allowed; None: it is printed.
    """
    import hypothesis  # takes a second, which a collection of tests should not pay
    from hypothesis import strategies as st

    found: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def run(data: Any) -> None:
        drawn = data.draw(st.booleans()) and data.draw(st.booleans())
        named = [each for each in sorted(calls()) if each.startswith("figures.") == drawn]
        name = data.draw(st.sampled_from(named))
        names = st.sampled_from(sorted(calls()[name][1]))
        chosen = data.draw(st.lists(names, min_size=1, max_size=2, unique=True))
        made = {each: data.draw(st.sampled_from(HOSTILE))() for each in chosen}
        kind, words = outcome(name, made)
        found[kind] += 1
        if words and told is not None:
            told.append(words)
        elif words:
            print(words, flush=True)

    run()
    return found
