"""A step that another engine computes and differentiates, as a System.

    values      (s, a[, ξ]) → s', r
    pullback    (s, a[, ξ]; λ, ρ) → λᵀ ∂s'/∂z + ρ ∂r/∂z      for every input z, row by row
    jacobians   (s, a[, ξ]) → ∂[s', r]/∂[s, a]               where the engine has forward mode

Engines compile a program per shape. They get blocks of one fixed number of rows, the last one
filled up with its own last row: each function is compiled once, and no value depends on the
batch that a row is in.

A JAX function of one state as a System: `vmap` makes the batch, `jit` the program.

Values cross the border through DLPack. `step` has JAX's reverse mode as its derivative (one `vjp`),
`linearize` its forward mode (`jacfwd`): two derivations of the same Jacobians. States in float64
are computed in float64, whatever `jax_enable_x64` is set to outside; arrays that a step closes
over, as a model's, are to be made in float64, too.

Warp kernels as a System: a step recorded on a tape, and the tape run backwards.

Kernels compute in float32 (or float64 where they are written for it): next states are rounded to
it, and so is the reward, a function of tensors, so that a step is of one precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gradlab import validation
from gradlab.errors import InputError, required
from gradlab.systems.function import (
    AliveFunction,
    RowStep,
    from_function,
    remedy,
    survivors,
)
from gradlab.systems.system import (
    Certificate,
    Linearization,
    Noise,
    System,
    Transition,
    check_step,
    check_widths,
    sample_normal,
)
from gradlab.user_code import running

_Block = Callable[[list[Tensor]], Sequence[Tensor]]
ROWS = 256


@dataclass(frozen=True, eq=False)
class Engine:
    """Functions of blocks: every tensor has `rows` rows and no gradient.

    Attributes:
        values: [s, a] or [s, a, ξ] → s' [rows, ds], r [rows].
        pullback: the same inputs, then λ [rows, ds] and ρ [rows] → one gradient per input.
        jacobians: the same inputs → one tensor [rows, ds + 1, ds + da]; None without forward mode.
        rows: size of a block.
    """

    values: _Block
    pullback: _Block
    jacobians: _Block | None
    rows: int


@dataclass(frozen=True, eq=False)
class EngineSystem:
    """See `from_jax` and `from_warp`. Derivatives through `step` are the engine's reverse mode,
    those of `linearize` its forward mode where it has one."""

    differentiable: ClassVar[bool] = True

    engine: Engine
    state_dim: int
    action_dim: int
    noise_dim: int
    alive: AliveFunction | None

    def __post_init__(self) -> None:
        check_widths(self.state_dim, self.action_dim, self.noise_dim)
        validation.whole("rows", self.engine.rows, 1)

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        given = (self._values, self._pulled_back, *self._inputs(state, action, noise))
        after, reward = RowStep.apply(*given)  # type: ignore[no-untyped-call]
        return Transition(after, reward, survivors(self.alive, after.detach()))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        inputs = self._inputs(state, action, noise)
        n, ds, outputs = len(state), self.state_dim, self.state_dim + 1
        if self.engine.jacobians is None:
            # One pullback per output, of all rows at once: they do not depend on one another.
            basis = torch.eye(outputs).to(state).repeat_interleave(n, 0)
            rows = [x.repeat(outputs, 1) for x in inputs]
            by_input = self._pulled_back(*rows, basis[:, :-1], basis[:, -1])
            J = torch.cat(by_input[:2], 1).view(outputs, n, ds + self.action_dim).transpose(0, 1)
        else:
            shape = (outputs, ds + self.action_dim)
            (J,) = _by_blocks(self.engine.jacobians, inputs, self.engine.rows, [shape])
        A, B, r_s, r_a = J[:, :-1, :ds], J[:, :-1, ds:], J[:, -1, :ds], J[:, -1, ds:]
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    sample_noise = sample_normal

    def _inputs(self, state: Tensor, action: Tensor, noise: Noise) -> list[Tensor]:
        inputs = [state, action]
        if self.noise_dim:
            inputs.append(state.new_zeros(len(state), self.noise_dim) if noise is None else noise)
        return inputs

    def _values(self, *inputs: Tensor) -> list[Tensor]:
        return _by_blocks(self.engine.values, inputs, self.engine.rows, [(self.state_dim,), ()])

    def _pulled_back(self, *inputs: Tensor) -> list[Tensor]:
        shapes = [tuple(x.shape[1:]) for x in inputs[:-2]]
        return _by_blocks(self.engine.pullback, inputs, self.engine.rows, shapes)


def _by_blocks(
    function: _Block, given: Sequence[Tensor], rows: int, shapes: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """`function` of blocks of exactly `rows` rows; outputs [N, *shape], copies of the engine's."""
    inputs, n = [x.detach() for x in given], len(given[0])
    out = [inputs[0].new_empty(n, *shape) for shape in shapes]
    for first in range(0, n, rows):
        here = slice(first, min(first + rows, n))
        last, missing = slice(here.stop - 1, here.stop), rows - (here.stop - first)
        block = [
            torch.cat([x[here], x[last].expand(missing, *x.shape[1:])])
            if missing
            else x[here].contiguous()
            for x in inputs
        ]
        for whole, part in zip(out, function(block), strict=True):
            whole[here] = part[: here.stop - first]
    return out


_JaxStep = Callable[..., tuple[Any, Any]]
_JaxAlive = Callable[[Any], Any]


def from_jax(
    step: _JaxStep,
    state_dim: int,
    action_dim: int,
    noise_dim: int = 0,
    alive: _JaxAlive | None = None,
    rows: int = ROWS,
) -> System:
    """A System from a JAX function `(state, action[, noise]) -> (next_state, reward)`.

    Args:
        step: function of one state [ds], one action [da] and, if noise_dim > 0, standard normal
            noise [noise_dim]; returns [ds] and a scalar. It is traced: written with jax.numpy,
            without side effects. Loops of unknown length (`lax.while_loop`) have no reverse mode.
        state_dim: ds.
        action_dim: da.
        noise_dim: width of the noise argument, 0 for a function without one.
        alive: next_state [ds] -> bool, traced likewise; None: every state is alive.
        rows: states per call of the compiled program; other batches are cut and filled up.

    Raises:
        InputError: JAX is not installed; a dimension or a function is none; `step` or `alive`
            cannot be traced or returns something else; later, it cannot be differentiated.
    """
    jax = required("jax", "jax")
    validation.function("step", step, "(state, action[, noise])")
    if alive is not None:
        validation.function("alive", alive, "next_state [ds]")
    check_widths(state_dim, action_dim, noise_dim)
    inputs = [state_dim, action_dim, *([noise_dim] if noise_dim else [])]
    _check_traced(jax, step, alive, inputs)
    living = None if alive is None else _living(jax, alive)
    return EngineSystem(_jax_engine(jax, step, rows), state_dim, action_dim, noise_dim, living)


def _jax_engine(jax: Any, step: _JaxStep, rows: int) -> Engine:
    batched = jax.vmap(step)

    def pulled_back(*given: Any) -> Any:
        *inputs, by_state, by_reward = given
        return jax.vjp(batched, *inputs)[1]((by_state, by_reward))

    def jacobian(state: Any, action: Any, *noise: Any) -> Any:
        def outputs(z: Any) -> Any:
            after, reward = step(z[: len(state)], z[len(state) :], *noise)
            return jax.numpy.append(after, reward)

        return (jax.jacfwd(outputs)(jax.numpy.append(state, action)),)

    values, pullback, jacobians = (
        _across(jax, f) for f in (batched, pulled_back, jax.vmap(jacobian))
    )
    return Engine(values, pullback, jacobians, rows)


def _across(jax: Any, function: Callable[..., Any]) -> _Block:
    """A function of arrays, compiled, as one of tensors."""
    compiled = jax.jit(function)

    def crossed(inputs: list[Tensor]) -> Sequence[Tensor]:
        with running("step", _remedy), jax.enable_x64(True):
            return [from_dlpack(y) for y in compiled(*map(jax.dlpack.from_dlpack, inputs))]

    return crossed


def _living(jax: Any, alive: _JaxAlive) -> AliveFunction:
    crossed = _across(jax, jax.vmap(lambda after: (alive(after),)))
    return lambda after: crossed([after.contiguous()])[0]


def _check_traced(jax: Any, step: _JaxStep, alive: _JaxAlive | None, widths: list[int]) -> None:
    """Shapes and dtypes of what the functions return, without computing it."""
    with jax.enable_x64(True):
        rows = [jax.ShapeDtypeStruct((width,), "float64") for width in widths]
        with running("step", _remedy):
            returned = jax.eval_shape(step, *rows)
        given = returned if isinstance(returned, tuple | list) else (returned,)
        got = [(list(x.shape), str(x.dtype)) for x in given if hasattr(x, "dtype")]
        wanted = [(list(rows[0].shape), "float64"), ([], "float64")]
        if got != wanted or len(given) != 2:
            found, two = _traced(got) or "no arrays", _traced(wanted)
            raise InputError(f"step returned {found}, expected two, next_state and reward: {two}")
        if alive is not None:
            with running("alive", _remedy):
                out = jax.eval_shape(alive, rows[0])
            if getattr(out, "shape", None) != () or out.dtype != bool:
                raise InputError("alive returns no bool of one next_state [ds]: return a scalar")


def _traced(arrays: list[tuple[list[int], str]]) -> str:
    return " and ".join(f"{shape} in {dtype}" for shape, dtype in arrays)


_remedy = partial(
    remedy,
    {
        "Reverse-mode differentiation does not work": (
            ": write its loop with a fixed number of iterations (lax.scan; MJX: iterations=1), or "
            "use linearize, which is forward mode"
        ),
        "racer": ": write it with jax.numpy, and lax.cond or jnp.where in the place of if",
    },
)


_WarpStep = Callable[..., None]
_Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
_PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def from_warp(
    step: _WarpStep,
    state_dim: int,
    action_dim: int,
    reward: _Reward,
    alive: AliveFunction | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    rows: int = ROWS,
) -> System:
    """A System from a function that launches Warp kernels.

    Args:
        step: (state [rows, ds], action [rows, da], next_state [rows, ds]), three two-dimensional
            Warp arrays with gradients, of which it fills the last. Arrays of its own between
            kernels have `requires_grad=True` and are written by every call.
        state_dim: ds.
        action_dim: da.
        reward: of tensors (state [N, ds], action [N, da], next_state [N, ds]) -> [N].
        alive: next_state [N, ds] -> bool [N]; None: every state is alive.
        dtype: of the arrays, "float32" or "float64".
        device: where kernels run, "cpu" or "cuda:0".
        rows: of the arrays; other batches are cut and filled up.

    Raises:
        InputError: Warp is not installed, there is no such device, or an argument is wrong;
            later, `step` fails.
    """
    for name, value in (("step", step), ("reward", reward)):
        validation.function(name, value, "(state, action, next_state)")
    validation.word("dtype", dtype, _PRECISIONS)
    wp = required("warp", "warp")
    if not isinstance(device, str) or not wp.is_device_available(device):
        raise validation.expected("device", device, "one that this machine has, such as 'cpu'")
    engine = _warp_engine(wp, step, state_dim, _PRECISIONS[dtype], device, rows)
    system, precision = EngineSystem(engine, state_dim, action_dim, 0, None), _PRECISIONS[dtype]

    def stepped(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = system.step(state, action).state
        paid = reward(*(x.to(precision) for x in (state, action, after)))
        return after, paid.to(state.dtype)

    return from_function(stepped, state_dim, action_dim, alive=alive)


def _warp_engine(
    wp: Any, step: _WarpStep, state_dim: int, precision: torch.dtype, device: str, rows: int
) -> Engine:
    scalar = wp.float32 if precision == torch.float32 else wp.float64

    def array(x: Tensor) -> Any:
        given = x.to(precision).numpy()
        return wp.array(given, dtype=scalar, ndim=2, device=device, requires_grad=True)

    def recorded(inputs: Sequence[Tensor]) -> tuple[Any, list[Any], Any]:
        arrays = [array(x) for x in inputs]
        after = wp.zeros((rows, state_dim), dtype=scalar, device=device, requires_grad=True)
        tape = wp.Tape()
        with running("step"), tape:
            step(*arrays, after)
        return tape, arrays, after

    def values(inputs: list[Tensor]) -> list[Tensor]:
        _, _, after = recorded(inputs)
        unpaid = inputs[0].new_zeros(rows)
        return [torch.from_numpy(after.numpy()).to(inputs[0].dtype), unpaid]

    def pullback(inputs: list[Tensor]) -> list[Tensor]:
        *given, by_state, _ = inputs
        tape, arrays, after = recorded(given)
        tape.backward(grads={after: array(by_state)})
        gradients = [torch.from_numpy(x.grad.numpy().copy()).to(by_state.dtype) for x in arrays]
        tape.zero()  # of arrays between kernels, which the next call shares
        return gradients

    return Engine(values, pullback, None, rows)
