"""A loss is asked by calling it on changed batches, with numbers added to networks' outputs.

    Law(code, needs, test)                  one question; a table of them is a kind of loss
    judge(laws, asked)                      a finding each, in the order of the table
    AskedLoss(loss, batch, declared)        the loss, called without a trace
    asked(batch, {key: offset})             its value and calls of the declared networks

The output of each call gets an offset [B] and a zero leaf, whose gradient is ∂L/∂output by row.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab import validation
from gradlab.errors import InputError, in_short, one_line
from gradlab.findings import Decision, Finding
from gradlab.findings.losses import NEEDS
from gradlab.user_code import running

Batch = Mapping[str, Any]
Key = tuple[str, int]  # a network and the number of its call
Modules = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module] | None


class Answer(NamedTuple):
    """What a law found.

    Attributes:
        name: of the code below the law's; "" where it passes.
        value, limit: as in `Finding`. at: where, or by what.
    """

    decision: Decision
    name: str = ""
    value: float = float("nan")
    limit: float = float("nan")
    at: str = ""


def held(value: float | Tensor, limit: float, name: str, at: str = "") -> Answer:
    """Passes where the value is at most the limit, else fails under this name."""
    value = float(value)
    return Answer("pass" if value <= limit else "fail", "" if value <= limit else name, value,
                  float(limit), at)  # fmt: skip


def fail(name: str, at: str = "", value: float = float("nan")) -> Answer:
    return Answer("fail", name, value, at=at)


def undecided(name: str, at: str = "", value: float = float("nan")) -> Answer:
    """It cannot be judged; the code of this name has the declaration that would decide."""
    return Answer("undecided", name, value, at=at)


PASS = Answer("pass")


@dataclass(frozen=True)
class Law:
    """One question.

    Attributes:
        needs: of `AskedLoss.has`; where one is missing the law is skipped with the line to write.
        stops: where it fails no further law is asked.
    """

    code: str
    needs: tuple[str, ...]
    test: Callable[[Any], Answer]
    stops: bool = False

    @property
    def name(self) -> str:
        """As in `meant`."""
        return self.code.partition(".")[2]


def judge(laws: Iterable[Law], asked: AskedLoss) -> tuple[Finding, ...]:
    """A finding for each law, in their order, which is that of their weight. A law that raises is
    undecided; nothing is raised."""
    found = []
    for law in laws:
        missing = [need for need in law.needs if not asked.has(need)]
        if law.name in asked.declared.meant:
            answer = Answer("skipped", "meant")
        elif missing:
            answer = Answer("skipped", "skipped", at=NEEDS.get(missing[0], missing[0]))
        else:
            try:
                answer = law.test(asked)
            except Exception as error:  # a law never ends a user's loop
                words = in_short(one_line(f"{type(error).__name__}: {error}"), 120)
                answer = undecided("error", words)
        code = f"{law.code}.{answer.name}" if answer.name else law.code
        found.append(
            Finding(code, answer.decision, asked.term, answer.value, threshold=answer.limit,
                    at=answer.at)
        )  # fmt: skip
        if law.stops and answer.decision == "fail":
            break
    return tuple(found)


@dataclass(frozen=True)
class Declared:
    """What is known of a loss beside its batch; every entry may be missing.

    Attributes:
        critic, target, actor, target_actor: networks that the loss calls, one or several.
        model: a model or simulator that it calls, a module or an object with methods.
        discount: γ; also a column of the batch, one for each row. trace: λ of GAE.
        temperature: the tensor log α that the loss reads.
        temperature_loss: of log π [B] → a scalar that is minimised in log α.
        draw: of observations → (action, log π), as the loss draws.
        log_prob, entropy: of the batch → [B], of the policy as it is.
        clip: ε of PPO. monotone: weights rise with advantages, as in AWR, not in proportion.
        action_limit: largest |action|, a number or one for each coordinate.
        optimizer: the actor's. lengths: two of a segment, which the loss takes as `length=`.
        columns: the batch's name of a column where it is another, {"observation": "obs"}.
        meant: names of laws that the loss breaks on purpose.
        seed: of every draw in the loss.
    """

    critic: Modules = None
    target: Modules = None
    actor: Modules = None
    target_actor: Modules = None
    model: Any = None
    discount: float | None = None
    trace: float | None = None
    temperature: Tensor | None = None
    temperature_loss: Callable[[Tensor], Tensor] | None = None
    draw: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    log_prob: Callable[[Any], Tensor] | None = None
    entropy: Callable[[Any], Tensor] | None = None
    clip: float | None = None
    monotone: bool = False
    action_limit: float | Tensor | None = None
    optimizer: Optimizer | None = None
    lengths: tuple[int, int] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    meant: Collection[str] = ()
    seed: int = 0


