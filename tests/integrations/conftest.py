"""The libraries of others, imported by the tests that need them: collection does not pay for it."""

import pytest


@pytest.fixture(scope="session")
def trainers():
    """Trainers of TorchRL, which takes two seconds to import."""
    from tests.integrations import torchrl_trainers

    return torchrl_trainers


@pytest.fixture(scope="session")
def sb3():
    """Models of Stable-Baselines3, which takes half a second to import."""
    from tests.integrations import sb3_models

    return sb3_models
