"""Faster float32 products for training in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from gradlab.networks.products import fast_products
from gradlab.training.settings import Settings


def precision(settings: Settings) -> AbstractContextManager[None]:
    """`fast_products` where training is in float32."""
    return fast_products(settings.device) if settings.precision == "float32" else nullcontext()
