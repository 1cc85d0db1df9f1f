"""Whether the first call of a step decides what later ones give, as where it fills a cache.

Before anything is called, two processes branch off. The one steps some points at once, the other
steps points that are moved and fewer before: what it then gives at the same points is the same,
unless something of a first call was kept.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.systems.system import System
from gradlab.tasks.task import Task
from gradlab.tools.certify.evaluation import Points, at_once
from gradlab.tools.certify.repeats import gap, kept_from_calls
from gradlab.tools.certify.result import Certification, Finding
from gradlab.tools.certify.sampling import labelled, law

_LONGEST = 20.0  # s of a process
_THREADED = ("jax", "warp")  # whose threads a process that branches off would wait for
Calls = tuple[Tensor, Tensor]


def _first_calls(made: System | Task, seed: int) -> Calls | str:
    """y of the same points as a first call and after another one, or why that was not tried."""
    threaded = [name for name in _THREADED if name in sys.modules]
    if threaded or torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return f"not tried: {(*threaded, 'CUDA')[0]} does not branch off"
    task = made if isinstance(made, Task) else None
    system = made.simulator if isinstance(made, Task) else made
    drawn = law(system, task, None, None, seed)
    action = drawn.action_size * drawn.draw("anew", len(drawn.starts), system.action_dim)
    points = labelled(system, torch.cat([drawn.starts, action], 1), "given", seed, None).points
    few = points.at(slice(0, len(points) // 2))
    other = Points(few.z.flip(0) * 1.1 + 0.1, few.noise)

    def after() -> Tensor:
        at_once(system, other)
        return at_once(system, points)

    try:
        return _apart(lambda: at_once(system, points)), _apart(after)
    except (OSError, ValueError, RuntimeError) as error:
        return f"not tried: {str(error).splitlines()[0][:90]}"


def certified_anew(
    made: System | Task, seed: int, examine: Callable[[], Certification]
) -> Certification:
    """What `examine` finds, and whether a first call leaves something behind, which is tried
    before anything is called."""
    calls = _first_calls(made, seed)
    certificate = examine()
    size = 0.0 if isinstance(calls, str) else gap(*calls)
    findings = list(certificate.findings)
    if kept_from_calls(size, certificate.facts["precision"]):
        text = (
            f"The step depends on its first call (by {size:.2g} of its size): what it had is kept"
        )
        found = Finding("stale", None, None, None, None, max(size, 1.0), None, "wrong", f"{text}.")
        findings.insert(0, found)
    tried = calls if isinstance(calls, str) else "tried"
    return replace(
        certificate, findings=tuple(findings), facts={**certificate.facts, "first call": tried}
    )


def _apart(work: Callable[[], Tensor]) -> Tensor:
    """The result of work in a process that branches off here.

    Raises:
        RuntimeError: it fails there, or does not end.
        ValueError: processes do not branch off on this system.
    """
    context: Any = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_sent, args=(send, work), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the other process does not use
        process.start()
    try:
        if not receive.poll(_LONGEST):
            raise RuntimeError(f"no answer after {_LONGEST:g} s")
        try:
            found = receive.recv()
        except EOFError:
            raise RuntimeError("the process ended without an answer") from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    return torch.from_numpy(found)


def _sent(send: Any, work: Callable[[], Tensor]) -> None:
    """Send the result's numbers, or the words of what failed."""
    torch.set_num_threads(1)  # threads do not branch off
    answer: np.ndarray[Any, Any] | str
    try:
        answer = work().double().cpu().numpy()
    except Exception as error:
        answer = str(error) or type(error).__name__
    send.send(answer)
