"""Faster float32 products, where this processor keeps them accurate.

torch's "medium" precision may choose another library, which is faster and as exact, or bfloat16,
which is not: a product of known result decides. For training alone; what is measured and reported
is in float64, which the setting does not touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

ACCURATE = 1e-6  # relative error of a product that training accepts


@contextmanager
def fast_products(device: str = "cpu") -> Iterator[None]:
    """Inside, products are the fastest that are accurate; set back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        if product_error(device) > ACCURATE:
            torch.set_float32_matmul_precision(before)
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def product_error(device: str) -> float:
    """Relative error of a float32 product on this machine at "medium" precision."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    product = (a.float().to(device) @ b.float().to(device)).double().cpu()
    return float((product - a @ b).norm() / (a @ b).norm())
