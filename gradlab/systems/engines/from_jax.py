"""A JAX function of one state as a System: `vmap` makes the batch, `jit` the program.

Values cross the border through DLPack. `step` has JAX's reverse mode as its derivative (one `vjp`),
`linearize` its forward mode (`jacfwd`): two derivations of the same Jacobians. States in float64
are computed in float64, whatever `jax_enable_x64` is set to outside; arrays that a step closes
over, as a model's, are to be made in float64, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gradlab import validation
from gradlab.errors import InputError, required
from gradlab.systems.engines.bridge import ROWS, Engine, EngineSystem
from gradlab.systems.system import System
from gradlab.user_code import running

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
    jax = _jax()
    validation.function("step", step, "(state, action[, noise])")
    if alive is not None:
        validation.function("alive", alive, "next_state [ds]")
    for name, width, least in (
        ("state_dim", state_dim, 1), ("action_dim", action_dim, 1), ("noise_dim", noise_dim, 0),
    ):  # fmt: skip
        validation.whole(name, width, least)
    inputs = [state_dim, action_dim, *([noise_dim] if noise_dim else [])]
    _check_traced(jax, step, alive, inputs)
    living = None if alive is None else _living(jax, alive)
    return EngineSystem(_engine(jax, step, rows), state_dim, action_dim, noise_dim, living)


def _jax() -> Any:
    return required("jax", "jax")


def _engine(jax: Any, step: _JaxStep, rows: int) -> Engine:
    batched = jax.vmap(step)

    def pulled_back(*given: Any) -> Any:
        *inputs, by_state, by_reward = given
        return jax.vjp(batched, *inputs)[1]((by_state, by_reward))

    def jacobian(state: Any, action: Any, *noise: Any) -> Any:
        def outputs(z: Any) -> Any:
            after, reward = step(z[: len(state)], z[len(state) :], *noise)
            return jax.numpy.append(after, reward)

        return (jax.jacfwd(outputs)(jax.numpy.append(state, action)),)

    compiled = [jax.jit(f) for f in (batched, pulled_back, jax.vmap(jacobian))]
    values, pullback, jacobians = (_across(jax, f) for f in compiled)
    return Engine(values, pullback, jacobians, rows)


def _across(jax: Any, function: Callable[..., Any]) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """A compiled function of arrays as one of tensors."""

    def crossed(inputs: list[Tensor]) -> Sequence[Tensor]:
        with running("step", _remedy), jax.enable_x64(True):
            out = function(*(jax.dlpack.from_dlpack(x) for x in inputs))
            return [from_dlpack(y) for y in out]

    return crossed


def _living(jax: Any, alive: _JaxAlive) -> Callable[[Tensor], Tensor]:
    compiled = jax.jit(jax.vmap(alive))

    def living(after: Tensor) -> Tensor:
        with jax.enable_x64(True):
            return from_dlpack(compiled(jax.dlpack.from_dlpack(after.contiguous())))

    return living


def _check_traced(jax: Any, step: _JaxStep, alive: _JaxAlive | None, widths: list[int]) -> None:
    """Shapes and dtypes of what the functions return, without computing it."""
    with jax.enable_x64(True):
        rows = [jax.ShapeDtypeStruct((width,), "float64") for width in widths]
        with running("step", _remedy):
            returned = jax.eval_shape(step, *rows)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            got = type(returned).__name__
            many = f"{len(returned)} values" if isinstance(returned, tuple | list) else f"a {got}"
            raise InputError(f"step returned {many}, expected two, next_state and reward")
        for name, out, shape in zip(
            ("next_state", "reward"), returned, (rows[0].shape, ()), strict=True
        ):
            if out.shape != shape or out.dtype != "float64":
                raise InputError(
                    f"step returned {name} of shape {list(out.shape)} in {out.dtype}, expected "
                    f"{list(shape)} in float64 for a state of {list(rows[0].shape)} in float64"
                )
        if alive is not None:
            with running("alive", _remedy):
                out = jax.eval_shape(alive, rows[0])
            if getattr(out, "shape", None) != () or out.dtype != bool:
                raise InputError("alive returns no bool of one next_state [ds]: return a scalar")


def _remedy(words: str) -> str:
    if "Reverse-mode differentiation does not work" in words:
        return (
            ": write its loop with a fixed number of iterations (lax.scan; MJX: iterations=1), "
            "or use linearize, which is forward mode"
        )
    if "racer" in words:
        return ": write it with jax.numpy, and lax.cond or jnp.where in the place of if"
    if "positional argument" in words:
        return ": step takes (state, action), and noise where noise_dim > 0; alive takes next_state"
    return ""
