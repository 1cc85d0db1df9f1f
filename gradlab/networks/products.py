"""Faster float32 products, where this processor keeps them accurate.

torch's "medium" precision may choose another library, which is faster and as exact, or bfloat16,
which is not: a product of known result decides. For training alone; what is measured and reported
is in float64, which the setting does not touch.

Networks side by side are multiplied as one batch, or one after another, which some processors do
faster where products are large: their times decide, and a run goes on as it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Products = Literal["batched", "separate"]
ACCURATE = 1e-6  # relative error of a product that training accepts
_FASTER = 0.87  # of the batch's time, above which products are not taken apart
LARGE = 2**22  # multiplications of one product, from which on taking them apart can pay
TURNS = 15

_apart = False


@contextmanager
def fast_products(device: str = "cpu", *, apart: bool = False) -> Iterator[None]:
    """Inside, products are the fastest that are accurate, and those of networks side by side are
    made one after another where they are to be taken `apart`; set back afterwards."""
    global _apart  # of the whole process, as torch's precision is
    before = torch.get_float32_matmul_precision(), _apart
    torch.set_float32_matmul_precision("medium")
    try:
        if product_error(device) > ACCURATE:
            torch.set_float32_matmul_precision(before[0])
        _apart = apart
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        _apart = before[1]


def separate(a: Tensor, b: Tensor) -> bool:
    """Whether products [E, n, k] times [E, k, m] are to be made one after another."""
    if not _apart or len(a) == 1:
        return False
    return a.shape[1] * a.shape[2] * b.shape[2] >= LARGE


@cache
def product_error(device: str) -> float:
    """Relative error of a float32 product on this machine at "medium" precision."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    product = (a.float().to(device) @ b.float().to(device)).double().cpu()
    return float((product - a @ b).norm() / (a @ b).norm())


@cache
def faster_products(device: str) -> Products:
    """What is faster on this machine now, for two networks of 256 units and 256 rows; "batched" on
    a GPU, and where the two are nearly equal."""
    if device != "cpu":
        return "batched"
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 256, 256, generator=generator) for _ in range(2))
    out = torch.empty_like(a)

    def batched() -> None:
        torch.bmm(a, b, out=out)

    def one_by_one() -> None:
        for one, other, product in zip(a, b, out, strict=True):
            torch.mm(one, other, out=product)

    with fast_products(device):
        taken = [(_seconds(batched), _seconds(one_by_one)) for _ in range(TURNS)]
    together, apart = (sorted(times)[TURNS // 2] for times in zip(*taken, strict=True))
    return "separate" if apart < _FASTER * together else "batched"


def _seconds(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
