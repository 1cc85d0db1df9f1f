"""Fixtures of the tests of training."""

import shutil

import pytest

from gradlab.training.loop import train
from tests.training.small_runs import SMALL, row, task


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """Finished runs, to be read only: each is made once, for whoever asks for it."""
    made = {}

    def run(algorithm, world=task, **options):
        asked = repr((algorithm, world, sorted(options.items())))
        if asked not in made:
            path = tmp_path_factory.mktemp("small") / "run.h5"
            made[asked] = train(algorithm, world(), path, **options)
        return made[asked]

    return run


@pytest.fixture(scope="session")
def td3_run(small_run):
    return small_run(row("td3"), **SMALL)


@pytest.fixture
def finished(td3_run, tmp_path):
    """That run and all that stands beside it, in a folder of the test's own."""
    shutil.copytree(td3_run.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / td3_run.name
