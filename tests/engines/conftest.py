"""Tests of real engines: `make engines`. Without `-m engines` nothing here is collected."""

from pathlib import Path


def pytest_ignore_collect(collection_path, config):
    return True if "engines" not in config.option.markexpr else None


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("engines")
