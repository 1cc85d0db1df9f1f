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
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError, in_short, one_line
from gradlab.findings import Decision, Finding
from gradlab.findings.losses import NEEDS
from gradlab.losses.finite import Finder
from gradlab.user_code import running

COLUMNS = (
    "observation", "action", "reward", "next_observation", "terminated", "truncated", "discount",
    "weight", "return", "value", "advantage", "old_log_prob", "mask",
)  # fmt: skip
_PLAIN = (
    str, bytes, int, float, Tensor, NoneType, FunctionType, MethodType, BuiltinFunctionType,
)  # fmt: skip
Key = tuple[str, int, int]  # a network, the number of its call, the place of the tensor in it
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
        stops: where it does not pass no further law is asked.
        whole: of all terms of a dict together, not of each.
    """

    code: str
    needs: tuple[str, ...]
    test: Callable[[Any], Answer]
    stops: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """As in `meant`."""
        return self.code.partition(".")[2]


def judge(laws: Iterable[Law], asked: AskedLoss) -> tuple[Finding, ...]:
    """A finding for each law, in their order, which is that of their weight. A law that raises is
    undecided; nothing is raised."""
    found = []
    for law in laws:
        try:
            missing = next((need for need in law.needs if not asked.has(need)), None)
            if law.name in asked.declared.meant:
                answer = Answer("skipped", "meant")
            elif missing is not None:
                answer = Answer("skipped", "skipped", at=NEEDS.get(missing, missing))
            else:
                answer = law.test(asked)
        except Exception as error:  # a law never ends a user's loop
            words = in_short(one_line(f"{type(error).__name__}: {error}"), 120)
            answer = undecided("error", words)
        code = f"{law.code}.{answer.name}" if answer.name else law.code
        found.append(
            Finding(code, answer.decision, asked.term, answer.value, threshold=answer.limit,
                    at=answer.at)
        )  # fmt: skip
        if law.stops and answer.decision in ("fail", "undecided"):
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
    columns: Mapping[str, Any] = field(default_factory=dict)
    meant: Collection[str] = ()
    seed: int = 0

    def check(self) -> None:
        """Raises InputError where a number or a tensor is none."""
        for name in ("discount", "trace"):
            if (value := getattr(self, name)) is not None:
                validation.number(name, value, least=0, most=1)
        if self.clip is not None:
            validation.number("clip", self.clip, above=0)
        kinds = (Tensor, NoneType)
        validation.instance("temperature", self.temperature, kinds, "the tensor log α")
        validation.whole("seed", self.seed)


def declare(caller: str, **given: Any) -> Declared:
    """What a user hands over by name; None is nothing.

    Raises:
        InputError: an entry is unknown.
    """
    known = {each.name for each in fields(Declared)}
    if unknown := given.keys() - known:
        wanted = ", ".join(sorted(known))
        raise InputError(f"{caller} has {', '.join(sorted(unknown))}, expected any of {wanted}")
    said = {name: value for name, value in given.items() if value is not None}
    if isinstance(said.get("meant"), str):
        said["meant"] = (said["meant"],)
    return Declared(**said)


def networks(name: str, given: Any, objects: bool = False) -> dict[str, Any]:
    """Declared modules by name: "critic", "critic 1", or "critic qf1" of a mapping; or objects
    whose methods the loss calls.

    Raises:
        InputError: something else is among them.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping) and not isinstance(given, nn.Module):
        found = {f"{name} {key}": each for key, each in given.items()}
    elif isinstance(given, tuple | list):
        found = {f"{name} {k}": each for k, each in enumerate(given, 1)}
    else:
        found = {name: given}
    if not found:
        raise InputError(f"{name} is empty, expected a torch.nn.Module or several")
    for each, module in found.items():
        if not objects:
            validation.instance(each, module, nn.Module, "a torch.nn.Module")
        elif isinstance(module, _PLAIN):
            wanted = "a torch.nn.Module, or an object whose method the loss calls"
            raise validation.expected(each, module, wanted)
    return found


@contextmanager
def untouched(modules: Iterable[nn.Module], seed: int) -> Iterator[None]:
    """Inside, draws are those of the seed, and compiled or distributed modules run as they were
    written; afterwards generators, buffers and gradients are as before."""
    modules = list(modules)
    buffers = [(b, b.detach().clone()) for module in modules for b in module.buffers()]
    slopes = [(p, p.grad) for module in modules for p in module.parameters()]
    states = random.getstate(), np.random.get_state()
    cuda = {p.device for p, _ in slopes if p.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=list(cuda)))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module in modules:  # a reducer that waits for a backward pass would not get one
            stack.enter_context(getattr(module, "no_sync", nullcontext)())
        # Not torch.manual_seed: for devices that are not in use it notes the seed, at 10 ms each.
        torch.default_generator.manual_seed(seed)
        for device in cuda:
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            for p, _ in slopes:
                p.grad = None  # for a backward pass in the loss
            yield
        finally:
            for p, slope in slopes:
                p.grad = slope
            random.setstate(states[0])
            np.random.set_state(states[1])
            for b, kept in buffers:
                if not torch.equal(b, kept):
                    b.data.copy_(kept)  # .data: a graph that holds it can still go backward


@contextmanager
def moved(tensor: Tensor, by: float | Tensor) -> Iterator[None]:
    """Inside, a tensor is larger; afterwards it is as before, bit for bit."""
    kept = tensor.detach().clone()
    try:
        tensor.data.add_(by)
        yield
    finally:
        tensor.data.copy_(kept)


def columns_of(batch: Any, names: Mapping[str, Any]) -> dict[str, Tensor]:
    """The columns of a batch that are tensors, by house name.

    Raises:
        InputError: there are none, or a name of `columns` is missing.
    """
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        found = {key: batch[key] for key in batch.keys()}  # noqa: SIM118 (a TensorDict gives rows)
        found |= {name: batch.get(key) for name, key in names.items()}
    elif hasattr(batch, "_asdict"):
        found = batch._asdict()
        found |= {name: found.get(key) for name, key in names.items()}
    else:
        raise validation.expected("batch", batch, "a mapping of columns, or a named tuple")
    lost = [f"{name!r}: {names[name]!r}" for name in names if found[name] is None]
    if lost:
        raise InputError(f"columns has {', '.join(lost)}: the batch has no such column")
    found = {
        name: torch.as_tensor(each) if isinstance(each, np.ndarray) else each
        for name, each in found.items()
    }
    return {name: each for name, each in found.items() if isinstance(each, Tensor) and each.ndim}


def terms_of(value: Any) -> dict[str, Tensor]:
    """What a loss has returned, as scalars by name; "" of one that is no dict.

    Of a dict with names that begin with "loss" (TorchRL's), those alone are terms.

    Raises:
        InputError: something is no scalar of floats.
    """
    value = value[0] if isinstance(value, tuple) and value else value
    named = {"": value}
    if isinstance(value, Mapping):
        named = {str(key): each for key, each in value.items()}
        losses = {key: each for key, each in named.items() if key.startswith("loss")}
        named = losses or named
        if not named:
            raise InputError("loss returns no term, expected a scalar tensor or a dict of them")
    for name, term in named.items():
        what = f"loss returns for {name!r}" if name else "loss returns"
        if not isinstance(term, Tensor):
            raise InputError(f"{what} a {type(term).__name__}, expected a scalar tensor")
        if term.numel() != 1 or not term.is_floating_point():
            raise InputError(
                f"{what} a tensor of shape {tuple(term.shape)} and {term.dtype}, expected a "
                f"scalar of floats: end it with mean() or sum(), or leave it out"
            )
    return named


def summed(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([term.reshape(()).double() for term in terms.values()]).sum()


@dataclass
class Call:
    """One call of a declared network; of a joint pass of k B rows, each part.

    Attributes:
        inputs: tensors that it was given, with B rows.
        value: its output, with the offset; of a call that repeats each row k times [B, k, …]; None
            inside of vmap.
        leaf: zero, added to the output. row: the dimension of its rows.
        slope: ∂L/∂output.
    """

    key: Key
    inputs: tuple[Tensor, ...]
    value: Tensor | None
    leaf: Tensor
    row: int
    slope: Tensor

    def by_rows(self, x: Tensor) -> Tensor:
        """Of the output's shape → [B, numbers of a row]."""
        x = x.movedim(self.row, 0)
        return x.reshape(len(x), -1)

    @property
    def by_row(self) -> Tensor:
        """∂L/∂(an offset of the row), [B]."""
        return self.by_rows(self.slope).sum(1)


class AskedLoss:
    """A loss with its batch, called without a trace; what kinds share."""

    def __init__(self, loss: Callable[..., Any], batch: Any, declared: Declared, *roles: str):
        """
        Args:
            roles: entries of `declared` whose calls are seen.
        """
        validation.function("loss", loss, "a batch")
        self.loss, self.declared, self.given = loss, declared, batch
        self.columns = columns_of(batch, declared.columns)
        if not self.columns:
            raise InputError("batch has no column that is a tensor with rows")
        self.batch = dict(self.columns)
        self.roles = {role: networks(role, getattr(declared, role)) for role in roles}
        self.modules = {name: m for found in self.roles.values() for name, m in found.items()}
        lengths = [len(x) for x in self.columns.values()]
        self.rows = max(lengths, key=lengths.count)
        for name in COLUMNS:
            if name in self.columns and len(self.columns[name]) != self.rows:
                raise InputError(
                    f"batch has {len(self.columns[name])} rows of {name!r}, expected {self.rows}, "
                    f"as of its other columns"
                )
        self.term = ""

    def rest_clip(self) -> None:
        """Values are the returns: there a clip of the value's loss is inactive."""
        if {"value", "return"} <= self.columns.keys():
            self.batch["value"] = self.columns["return"].clone()

    def has(self, need: str) -> bool:
        """Whether what a law needs is there: a column, a declaration, or what a kind adds."""
        known = getattr(self.declared, need, None)
        return need in self.columns or (known is not None and known is not False)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Inside, the laws are asked."""
        yield

    def of_term(self, term: str) -> AskedLoss:
        """The same of one term of a dict."""
        other = copy.copy(self)
        for name in list(vars(other)):
            if isinstance(getattr(type(self), name, None), cached_property):
                del other.__dict__[name]
        other.term = term
        return other

    def changed(self, **columns: Tensor) -> dict[str, Tensor]:
        return {**self.batch, **columns}

    def rebuilt(self, batch: Mapping[str, Tensor]) -> Any:
        """A batch of the user's kind and names with these columns."""
        own = {
            self.declared.columns.get(name, name): x
            for name, x in batch.items()
            if name in self.columns
        }
        if hasattr(self.given, "_replace"):
            return self.given._replace(**own)
        made = dict(self.given) if isinstance(self.given, dict) else copy.copy(self.given)
        for key, x in own.items():
            made[key] = x
        return made

    def terms(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch in house names, term by term."""
        inside = untouched(self.modules.values(), self.declared.seed)
        with inside, torch.enable_grad(), running("loss", self._advice):
            return terms_of(self.called(batch))

    def called(self, batch: Mapping[str, Tensor]) -> Any:
        """What the loss returns of a batch in house names."""
        return self.loss(self.rebuilt(batch))

    def _advice(self, words: str) -> str:
        if "device" in words.lower():
            return ": move the batch to the networks' device"
        if words.startswith("'") and words.strip("'") not in self.columns:
            return f": add it to the batch, which has {', '.join(self.columns)}"
        return ""

    def __call__(
        self, batch: Mapping[str, Tensor] | None = None, add: Mapping[Key, Tensor] | None = None
    ) -> tuple[Tensor, list[Call]]:
        """The loss, or its term, and the calls of the networks.

        Args:
            add: offsets of the outputs of calls, [B].
        """
        calls: list[Call] = []
        counts: dict[str, int] = {}
        add = add or {}

        def offset(key: Key, inputs: Any, out: Tensor, row: int) -> Tensor:
            inner = torch._C._functorch.is_batchedtensor(out)  # of vmap: all members alike
            thin = [1] * row + [self.rows] + [1] * (out.ndim - 1 - row)
            leaf = torch.zeros(
                thin if inner else out.shape, dtype=out.dtype, device=out.device,
                requires_grad=inner or out.requires_grad,  # else it would be a path of its own
            )  # fmt: skip
            more = add.get(key)
            if more is not None:
                out = out + (more.to(out).reshape(thin) if more.ndim == 1 else more.to(out))
            value = None if inner else out.detach()
            still = torch.zeros_like(leaf)
            calls.append(Call(key, () if inner else inputs, value, leaf, row, still))
            return out + leaf

        def hook(name: str) -> Callable[..., Any]:
            def seen(module: nn.Module, inputs: Any, output: Any) -> Any:
                parts = list(output) if isinstance(output, tuple | list) else [output]
                given = tuple(x.detach() for x in inputs if isinstance(x, Tensor))
                number = counts.get(name, 0)
                for k, part in enumerate(parts):
                    views = self._views(part, given)
                    counts[name] = max(counts.get(name, 0), number + len(views))
                    made = [
                        offset((name, number + h, k), ins, x, row)
                        for h, (x, ins, row) in enumerate(views)
                    ]
                    if made:
                        whole = torch.cat(made) if len(made) > 1 else made[0]
                        parts[k] = whole.reshape(part.shape)
                if not isinstance(output, tuple | list):
                    return parts[0]
                return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)

            return seen

        handles = [m.register_forward_hook(hook(name)) for name, m in self.modules.items()]
        try:
            terms = self.terms(self.batch if batch is None else batch)
        finally:
            for handle in handles:
                handle.remove()
        if self.term:
            return terms[self.term], calls
        return summed(terms), calls

    def _views(
        self, out: object, given: tuple[Tensor, ...]
    ) -> list[tuple[Tensor, tuple[Tensor, ...], int]]:
        """An output with its rows apart, the inputs of them, and the dimension of the rows.

        Of k B rows either each row comes k times, as of k actions of a state, or k batches are
        joined (CrossQ: (s, a) and (s', a') in one pass).
        """
        B = self.rows
        if not isinstance(out, Tensor) or not out.is_floating_point() or not out.ndim:
            return []
        if B in out.shape[:2]:
            return [(out, given, int(out.shape[0] != B))]
        k, rest = divmod(len(out), B)
        if rest or k < 2 or B < 2:
            return []
        first = next((x for x in given if len(x) == len(out)), None)
        shapes = ((B, k), (k, B))
        for row, shape in enumerate(shapes if first is not None else ()):
            assert first is not None
            split = first.reshape(*shape, -1)
            if torch.equal(split, split.narrow(1 - row, 0, 1).expand_as(split)):
                ins = tuple(
                    x.reshape(*shape, *x.shape[1:]).select(1 - row, 0)
                    for x in given if len(x) == len(out)
                )  # fmt: skip
                return [(out.reshape(*shape, *out.shape[1:]), ins, row)]
        joined = [tuple(x.chunk(k)[h] for x in given if len(x) == len(out)) for h in range(k)]
        return [(x, ins, 0) for x, ins in zip(out.chunk(k), joined, strict=True)]

    def slopes(
        self, batch: Mapping[str, Tensor] | None = None, add: Mapping[Key, Tensor] | None = None
    ) -> tuple[Tensor, dict[Key, Call]]:
        """The loss, and its calls with their slopes."""
        value, calls = self(batch, add)
        live = [call for call in calls if call.leaf.requires_grad]
        if live and value.requires_grad:
            leaves = [call.leaf for call in live]
            found = torch.autograd.grad(value, leaves, allow_unused=True)
            for call, g in zip(live, found, strict=True):
                call.slope = call.slope if g is None else g
        return value.detach(), {call.key: call for call in calls}

    @cached_property
    def first(self) -> tuple[Tensor, dict[Key, Call]]:
        """The loss as it is given, and its calls."""
        return self.slopes()

    def gradient(self, value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """∂value/∂parameters as one vector of float64; zeros where no path leads."""
        found: Sequence[Tensor | None] = [None] * len(parameters)
        if value.requires_grad and parameters:
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).detach().flatten().double()
                for p, g in zip(parameters, found, strict=True)
            ]
        )


def rowwise(flag: Tensor, like: Tensor) -> Tensor:
    """[B] → [B, 1, …], to stand beside a column."""
    return flag.reshape(-1, *[1] * (like.ndim - 1))


def finite(asked: AskedLoss) -> Answer:
    """The loss is a finite number; else the first operation whose result is not, and its rows."""
    if bool(torch.isfinite(asked.first[0])):
        return PASS
    with Finder() as finder:
        asked(None)
    return fail("not_finite", finder.where or "the batch")


def repeats(asked: AskedLoss) -> Answer:
    """The same batch and seed give the same loss twice."""
    one, again = asked.first[0], asked(None)[0].detach()
    change = float((one - again).abs() / one.abs().clamp_min(1e-12))
    return PASS if change <= 1e-5 else undecided("differs", value=change)


SHARED = (
    Law("loss.finite", (), finite, stops=True, whole=True),
    Law("loss.repeats", (), repeats, stops=True, whole=True),
)
