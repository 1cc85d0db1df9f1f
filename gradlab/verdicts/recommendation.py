"""What to do next, for every kind of run: at most five fields in one order, and a light.

    light   act      tried, and nothing that was measured contradicts it
            choose   nothing contradicts it; something was not looked at, or is not decided
            none     nothing to follow, or a check failed

Terminal, JSON, page and `str()` show the same fields. A field without evidence is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from gradlab.errors import InputError, imported
from gradlab.findings import Finding
from gradlab.runs.identity import Identity
from gradlab.wording import Writer, signed, with_ends

Light = Literal["act", "choose", "none"]
LIGHTS: dict[Light, str] = {"act": "Act", "choose": "Choose", "none": "Caution"}
_MARKS: dict[Light, str] = {"act": "●", "choose": "◐", "none": "○"}
MOST = 5  # fields


@dataclass(frozen=True)
class Field:
    """One field: what it says, and how that was measured."""

    name: str
    text: str
    how: str = ""

    @staticmethod
    def ranged(name: str, estimate: tuple[float, float, float], how: str, *write: Writer) -> Field:
        """Of a value and its two ends, which stand behind it where they are two."""
        value, ends = with_ends(*estimate, *write)
        return Field(name, value if ends == value else f"{value} (CI {ends})", how)


@dataclass(frozen=True)
class Follow:
    """The advised gradient, and how it was tested.

    Attributes:
        updates: how many; None: none was made. optimizer, rate: of these.
        config: of the measurement.
    """

    identity: Identity
    horizon: int
    updates: int | None
    optimizer: str
    rate: float
    config: Mapping[str, Any]

    @cached_property
    def task(self) -> Any:
        """The task as it was measured, made again once for all updates."""
        return imported("gradlab.measurement.following:task_of")(self.config)


def _text_of(name: str) -> Any:
    """A property with the text of one field."""
    return property(lambda shown: shown.field(name))


@dataclass(frozen=True)
class Recommendation:
    """What a reader sees first.

    Attributes:
        fields: at most `MOST`, always in one order.
        figure: name of the panel that is shown beside them; None where no panel is.
        rest: every sentence of the verdict, in order of use.
        notice: what stands before all else, such as that the run was interrupted; may be empty.
        word: of the light, where its own does not fit, as of a certificate.
        follow: the advised gradient of a measurement; None: nothing is to be followed.
    """

    light: Light
    fields: tuple[Field, ...]
    figure: str | None = None
    rest: tuple[Finding, ...] = ()
    notice: str = ""
    word: str = ""
    follow: Follow | None = None

    def __post_init__(self) -> None:
        if len(self.fields) > MOST:
            raise ValueError(f"{len(self.fields)} fields, expected at most {MOST}")

    def __str__(self) -> str:
        return "\n".join(lines(self))

    @property
    def document(self) -> dict[str, Any]:
        """As plain values: its fields by name; "findings" holds the others."""
        notice: dict[str, Any] = {"notice": self.notice} if self.notice else {}
        return notice | {
            "recommendation": {each.name: each.text for each in self.fields},
            "light": self.light,
            "lit": self.lit,
            "findings": [each.document for each in self.rest],
        }

    def field(self, name: str) -> str:
        """The text of one field; "" where there is no evidence for it."""
        return next((each.text for each in self.fields if each.name == name), "")

    @property
    def lit(self) -> str:
        """The light in words."""
        return self.word or LIGHTS[self.light]

    use, gain, tested = _text_of("use"), _text_of("gain"), _text_of("tested")
    avoid, fix_first = _text_of("avoid"), _text_of("fix first")

    @property
    def horizon(self) -> int | None:
        """Steps of the advised gradient; None: nothing is to be followed."""
        return None if self.follow is None else self.follow.horizon

    @property
    def updates(self) -> int | None:
        """For how many updates it was tested; 1 where none was made."""
        return None if self.follow is None else self.follow.updates or 1

    @property
    def optimizer(self) -> str | None:
        """Whose updates were tested, "adam" or "sgd"."""
        return None if self.follow is None else self.follow.optimizer

    @property
    def rate(self) -> float | None:
        """The learning rate of these."""
        return None if self.follow is None else self.follow.rate

    def loss(self, policy: Any, critic: Any, states: Any, task: Any = None) -> Any:
        """Advice as code: a scalar to minimise, whose gradient in θ is minus the advised one.

        Args:
            policy: the nn.Module to be trained; critic: None where no tail was measured.
            states: [N, ds], as of `states`.
            task: as measured; None: made again from what the run stores.

        Raises:
            InputError: nothing is to be followed, or the task cannot be made again.
        """
        to = self._followed()
        found = imported("gradlab.measurement.following:loss")
        task = to.task if task is None else task
        return found(to.identity, to.horizon, to.config, policy, critic, states, task)

    def states(self, n: int, task: Any = None, policy: Any = None) -> Any:
        """n states [n, ds] for one update, of the law at which the gradient was measured: the
        task's starts, or, where θ is in the first action alone, states that the `policy` visits.

        Raises:
            InputError: as of `loss`, or no policy where one is needed.
        """
        to = self._followed()
        found = imported("gradlab.measurement.following:states")
        return found(to.identity, to.config, n, to.task if task is None else task, policy)

    def _followed(self) -> Follow:
        if self.follow is None:
            raise InputError(f"nothing is to be followed: {self.use or self.fields[0].text}")
        return self.follow


def lines(shown: Recommendation) -> list[str]:
    """A recommendation as plain text: light, then a field a line."""
    width = max(len(each.name) for each in shown.fields)
    found = [
        *([shown.notice] if shown.notice else []),
        light_line(shown.light, shown.lit),
        *(f"  {each.name:{width}}  {each.text}" for each in shown.fields),
    ]
    return [signed(each) for each in found]


def light_line(light: Light, lit: str) -> str:
    """The light with its mark."""
    return f"{_MARKS[light]} {lit}"
