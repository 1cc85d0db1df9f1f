"""The probe's rows in TensorBoard: the optional extra `tensorboard`.

    probe = gradlab.Probe(policy, optimizer, log=["run.h5", log_to(writer)])

Numbers become scalars at the loop's own step, failures become text; what is not finite is left out,
as TensorBoard cannot draw it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Protocol

from gradlab.errors import InputError
from gradlab.probe.log import Function

_COUNTS = ("step", "update")


class _Writer(Protocol):
    """`torch.utils.tensorboard.SummaryWriter`, tensorboardX's, or anything like them."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object: ...

    def add_text(self, tag: str, text_string: str, global_step: int) -> object: ...


def log_to(writer: _Writer, prefix: str = "gradlab") -> Function:
    """A log function for `gradlab.Probe`.

    Args:
        writer: stays the caller's, who also closes it.
        prefix: of every tag: "gradlab/vitals/grad_norm".

    Raises:
        InputError: the writer cannot write.
    """
    if not all(callable(getattr(writer, name, None)) for name in ("add_scalar", "add_text")):
        raise InputError(
            f"writer is a {type(writer).__name__}, expected a SummaryWriter, such as "
            f"torch.utils.tensorboard.SummaryWriter(folder)"
        )

    def log(row: Mapping[str, Any]) -> None:
        step = int(row["step"])
        if "findings/title" in row:
            title, message = row["findings/title"], row["findings/message"]
            writer.add_text(f"{prefix}/findings/{title}", str(message), step)
            return
        for name, value in row.items():
            if name not in _COUNTS and not isinstance(value, str) and isfinite(value):
                writer.add_scalar(f"{prefix}/{name}", float(value), step)

    return log
