"""Adam (Kingma and Ba 2015, algorithm 1) by torch's fused kernel, on gradients that are given.

`torch.optim.Adam` looks its state up, checks it and groups it by device at every step, which takes
longer than the step of networks of this size (`benchmarks.training`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from gradlab.errors import InputError

BETAS, EPS = (0.9, 0.999), 1e-8


@final
class Adam:
    """State: means of gradients and of their squares of every parameter, and steps made.

    Attributes:
        rate: of the next step.

    Args:
        parameters: of one dtype and device; changed in place.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        self.rate = rate
        self._parameters = [parameter.detach() for parameter in parameters]
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._made = torch.zeros((), dtype=torch.float32, device=self._parameters[0].device)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Along gradients in the order of the parameters, whatever their strides.

        The fused kernel reads tensors in memory order: a gradient that is a transposed or expanded
        view, as `torch.autograd.grad` may return one, would be applied to the wrong entries.
        """
        self._made += 1
        steps = [self._made] * len(self._parameters)
        pairs = zip(self._parameters, gradients, strict=True)
        torch._fused_adam_(
            self._parameters, [_in_order_of(p, g) for p, g in pairs],
            self._means, self._squares, [], steps,
            lr=self.rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=0.0, eps=EPS,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def state(self, k: int) -> dict[str, Tensor]:
        """Of one parameter, everything that its next step depends on, for `load`; named as in
        `torch.optim`."""
        # Files refuse tensors that share their memory.
        return self._own(k) | {"step": self._made.clone()}

    def load(self, k: int, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            InputError: the state is of a parameter of another shape.
            KeyError: an entry is missing.
        """
        for name, tensor in self._own(k).items():
            if state[name].shape != tensor.shape:
                shapes = tuple(state[name].shape), tuple(tensor.shape)
                raise InputError("saved {} has shape {}, expected {}".format(name, *shapes))
            tensor.copy_(state[name])

    def _own(self, k: int) -> dict[str, Tensor]:
        return {"step": self._made, "exp_avg": self._means[k], "exp_avg_sq": self._squares[k]}


def _in_order_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with its entries in memory as the parameter's are."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
