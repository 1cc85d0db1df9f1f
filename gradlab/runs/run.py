"""The result of everything: one labelled tree, in memory and on disk.

    run = gradlab.load(path)      run.tree      run.table("updates")      run.recommendation

A kind of result is a frozen class of typed fields (`gradlab.runs.layout` says where each lies), or
a view on the tables of a run that grows. Its file is the tree, and opens in any reader of HDF5:

    tree = xarray.open_datatree(path, engine="h5netcdf")
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gradlab import validation
from gradlab.errors import Doubtful, InputError, imported
from gradlab.findings import Finding, failed, in_order
from gradlab.runs.layout import (
    attributes_of,
    fields_of,
    groups_of,
    json_object,
    objects_of,
    rows,
    table,
)
from gradlab.storage import journal, records
from gradlab.storage.records import Attribute, Record

if TYPE_CHECKING:
    import pandas as pd
    import xarray

# What a foreign file can raise where its content is taken apart.
_UNREADABLE = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
_MOST = 30  # lines of a repr
_VERDICT = "verdict"  # the group of what the numbers say

# The class of every kind of run; those of tools are named, and looked up where they are.
KINDS: Mapping[str, str] = {
    "profile": "gradlab.runs.profile:Profile",
    "training": "gradlab.runs.training.results:Training",
    "probe": "gradlab.runs.probe.results:ProbeRun",
    "fit": "gradlab.runs.run:PlainRun",
    "jacobians": "gradlab.tools.jacobians.result:JacobianRun",
    "logs": "gradlab.tools.logs.findings:LogsRun",
    "remedies": "gradlab.tools.remedies.result:Remedies",
    "race": "gradlab.tools.race.result:Race",
    "certificate": "gradlab.tools.certify.result:Certification",
    "audit": "gradlab.runs.run:FindingsRun",
    "conformance": "gradlab.runs.run:FindingsRun",
}


class Run:
    """The result of one kind.

    Attributes:
        kind: of its files; noun: the same in messages.
        config: what was asked for; environment: what it ran on.
    """

    kind: str = ""
    noun: ClassVar[str] = ""
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    file: Path | None

    @cached_property
    def record(self) -> Record:
        """What its file holds, or will hold: its fields, and what they say."""
        groups = groups_of(self, self.kind)
        if said := self._said():
            groups[_VERDICT] = table(said, Finding)
        objects = {"config": self.config, "environment": self.environment} | objects_of(self)
        return Record(header(self.kind, **objects), groups)

    @cached_property
    def tree(self) -> xarray.DataTree:
        """Every array with its dimensions, units and description; attributes are of "run".

        Raises:
            InputError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise InputError("xarray is not installed: python -m pip install 'xarray'") from error
        groups = {"/run": xarray.Dataset(attrs=dict(self.record.attributes))}
        for name, arrays in self.record.groups.items():
            groups[f"/{name}"] = xarray.Dataset({
                key: (each.dims, each.values, {"units": each.unit, "description": each.description})
                for key, each in arrays.items()
            })  # fmt: skip
        return xarray.DataTree.from_dict(groups)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was checked and what the numbers say, a row each."""
        checked: tuple[Finding, ...] = getattr(self, "sanity", None) or ()
        stored = self.record.groups.get(_VERDICT)
        return (*checked, *(self._said() if stored is None else rows(Finding, stored)))

    def _said(self) -> tuple[Finding, ...]:
        """What the numbers say; nothing where that fails: a run must be saved all the same."""
        try:
            found: tuple[Finding, ...] = self.recommendation.rest
        except Exception as error:
            warnings.warn(f"no findings: {error}", Doubtful, stacklevel=3)
            return ()
        return found

    @cached_property
    def recommendation(self) -> Any:
        """What to do next, a `Recommendation`: at most five fields and a light; of a measurement
        also as code."""
        return imported("gradlab.reporting.output:recommended")(self)

    def table(self, name: str | None = None) -> pd.DataFrame:
        """A group of the tree as a table, a row for every entry of its dimensions.

        Args:
            name: of the group; None: the table that stands for the whole run.

        Raises:
            InputError: there is no such group.
        """
        groups = self.record.groups
        name = self.kind if name is None else name
        if name not in groups:
            raise InputError(f"name is {name!r}, expected a table: {', '.join(groups)}")
        found: pd.DataFrame = self.tree[name].to_dataset().to_dataframe().reset_index()
        return found

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        path = validation.path("path", path)
        validation.instance("overwrite", overwrite, bool, "True or False")
        records.write(path, self.record, overwrite)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The run in a file of this kind; nothing but the file is needed.

        Raises:
            InputError: the file is missing, foreign, damaged, or of another kind.
        """
        path = validation.path("path", path)
        return cls.of_record(journal.read(path), path)

    @classmethod
    def of_record(cls, record: Record, path: Path) -> Self:
        """The same of what was read from `path`."""
        with content_of(record, path, cls.kind, cls.noun):
            found = cls._from(record, path)
            found.__dict__.update({"file": path, "record": record})
            return found

    @classmethod
    def _from(cls, record: Record, path: Path) -> Self:
        objects = described(record, *attributes_of(cls))
        return cls(**fields_of(cls, record.groups, cls.kind), **objects)

    def __repr__(self) -> str:
        """What to do, and what is in it, in a few lines."""
        try:
            advice = str(self.recommendation).splitlines()
        except InputError as error:
            advice = [f"no recommendation: {error}"]
        lines = [f"<{type(self).__name__} of {self.config.get('task', 'a run')}", *advice]
        lines += [f"  {name}: {_sizes(group)}" for name, group in self.record.groups.items()]
        file = getattr(self, "file", None)
        lines = lines[: _MOST - 1] if len(lines) < _MOST else [*lines[: _MOST - 2], "  …"]
        return "\n".join([*lines, f"  file: {file or 'not saved: .save(path)'}>"])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


class StoredRun(Run):
    """A view on a record: a run that grows, or one of which nothing but its tree is known."""

    stored: Record

    @property
    def record(self) -> Record:
        return self.stored

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """Of its file."""
        return self.stored.attributes


class PlainRun(StoredRun):
    """A run of which nothing but its tree is known."""

    def __init__(self, record: Record, path: Path | None = None) -> None:
        self.stored, self.file = record, path
        attributes = record.attributes
        self.kind = str(attributes.get("kind", ""))
        self.config = _json(attributes.get("config"))
        self.environment = {k: str(v) for k, v in _json(attributes.get("environment")).items()}

    @classmethod
    def of_record(cls, record: Record, path: Path) -> Self:
        return cls(record, path)


class FindingsRun(PlainRun):
    """A run that is its findings, in order of weight."""

    @classmethod
    def of_record(cls, record: Record, path: Path) -> Self:
        kind = str(record.attributes.get("kind"))
        with content_of(record, path, kind, kind):
            if not rows(Finding, record.groups[_VERDICT]):
                raise ValueError("no findings")
        return cls(record, path)

    @property
    def passed(self) -> bool:
        """No finding fails."""
        return not failed(self.findings)

    @property
    def headline(self) -> str:
        """What is broken first; else how much was asked."""
        broken = failed(self.findings)
        first = self.findings[0]
        if broken or first.code.startswith("conform"):
            return _line(broken[0] if broken else first)
        held = sum(each.decision == "pass" for each in self.findings)
        return f"Passed: {held} of {len(self.findings)} laws hold."

    def __str__(self) -> str:
        rest = [each for each in in_order(self.findings) if each.decision != "pass"]
        return "\n".join([self.headline, *(f"{each.mark} {_line(each)}" for each in rest)])

    __repr__ = __str__


def _line(finding: Finding) -> str:
    return f"{finding.headed} {finding.remedy}".rstrip()


def load(path: str | Path) -> Run:
    """The result in any file of gradlab, finished or still growing.

    Raises:
        InputError: the file is missing, foreign, damaged, incomplete, or of a kind that this
            version does not know.
    """
    path = validation.path("path", path)
    record = journal.read(path)
    kind = str(record.attributes.get("kind"))
    if kind not in KINDS:
        raise InputError(f"{path} holds {kind!r}, expected a run of {', '.join(KINDS)}")
    cls: type[Run] = imported(KINDS[kind])
    return cls.of_record(record, path)


def header(
    kind: str, config: Mapping[str, Any], environment: Mapping[str, str], **more: Mapping[str, Any]
) -> dict[str, Attribute]:
    """The attributes of a run: its kind, the command that makes it again, seed, commit, and as JSON
    the configuration, the environment, and whatever else a kind of run has to say."""
    objects = {"config": config, "environment": environment, **more}
    return {
        "kind": kind,
        "command": str(config.get("command", "")),
        "seed": int(config.get("seed", 0)),
        "commit": environment.get("commit", ""),
        **{name: json.dumps(value) for name, value in objects.items()},
    }


def described(record: Record, *names: str) -> dict[str, Any]:
    """The objects of these names, as `header` got them; configuration and environment by default.

    Raises:
        KeyError, ValueError: one is missing, or no JSON object.
    """
    named = names or ("config", "environment")
    objects = {name: json_object(record.attributes[name]) for name in named}
    if "environment" in objects:
        texts = {key: str(value) for key, value in objects["environment"].items()}
        objects["environment"] = texts
    return objects


@contextlib.contextmanager
def content_of(record: Record, path: Path, kind: str, what: str) -> Iterator[None]:
    """Within, the content of a record is taken apart, and any fault in it is an InputError.

    Args:
        what: a run of this kind, as a message calls it, "measurement".

    Raises:
        InputError: the record is of another kind, or not complete.
    """
    held = record.attributes.get("kind")
    if held != kind:
        shown = f": see `gradlab report {path}`" if "config" in record.attributes else ""
        raise InputError(f"{path} holds {held!r}, expected a {what}{shown or ': it is no run'}")
    try:
        yield
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path} is not a complete {what} ({error}): make it again") from error


def _sizes(group: Mapping[str, Any]) -> str:
    """estimator 4 × horizon 26; 7 arrays"""
    scales = {name: each for name, each in group.items() if each.dims == (name,)}
    dims = " × ".join(f"{name} {len(each.values)}" for name, each in scales.items())
    return f"{dims or 'numbers'}; {len(group) - len(scales)} arrays"


def _json(text: object) -> dict[str, Any]:
    try:
        return json_object(text)
    except ValueError:
        return {}
