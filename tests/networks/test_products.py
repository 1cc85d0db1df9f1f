"""Faster products inside, none outside, and none where they are not accurate."""

import pytest
import torch

from gradlab.fitting.collection import collect
from gradlab.fitting.fitted import Descent, fit_model
from gradlab.fitting.model_settings import ModelSettings
from gradlab.networks import layers
from gradlab.tasks import pendulum


@pytest.fixture(autouse=True)
def highest():
    assert torch.get_float32_matmul_precision() == "highest"


def test_products_inside_are_accurate():
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(7, 256, 200, generator=generator).double() for _ in range(2))
    with layers.fast_products():
        found = (a.float() @ b.float().mT).double()
    assert (found - a @ b.mT).norm() / (a @ b.mT).norm() < layers.ACCURATE


def test_inaccurate_ones_are_not_used_and_the_setting_is_put_back(monkeypatch):
    with pytest.raises(KeyboardInterrupt), layers.fast_products():
        raise KeyboardInterrupt
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(layers, "product_error", lambda device: 1e-3)
    with layers.fast_products():
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_fit_descends_with_them_and_is_judged_without(monkeypatch):
    monkeypatch.setattr(layers, "product_error", lambda device: 0.0)
    seen, run_epoch = [], Descent.run_epoch

    def watched(descent):
        seen.append(torch.get_float32_matmul_precision())
        run_epoch(descent)

    def after(epoch, ensemble):
        seen.append(torch.get_float32_matmul_precision())

    monkeypatch.setattr(Descent, "run_epoch", watched)
    settings = ModelSettings(members=1, hidden=(4,), epochs=2)
    fit_model(collect(pendulum(), 40), settings, after_epoch=after)
    assert seen == ["medium", "highest"] * 2
