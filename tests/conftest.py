"""What several tests share: one thread per worker, figures without a screen, a browser."""

import gc
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from typing import Any

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)

# Without these the browser itself calls home at every start.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and collected tests stay to the end: no later search for garbage visits them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def close_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """No figure stays open after a test of figures."""
    yield
    if request.path.parent.name == "figures":
        from matplotlib import pyplot

        pyplot.close("all")


def chromium_path() -> str | None:
    """An installed Chromium, or None for Playwright's own."""
    named = os.environ.get("GRADLAB_CHROMIUM")
    candidates = ("chromium", "chromium-browser", "google-chrome")
    return named or next((path for name in candidates if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        instance = play.chromium.launch(executable_path=chromium_path(), args=list(QUIET))
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def tab(browser: Any) -> Any:
    """A tab that tests show their pages in, one after another: a new one takes half a second."""
    return browser.new_page()


def pytest_configure() -> None:
    """A background shell starts its programs with Ctrl-C ignored, and so all that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a `sampled(k)` test the usual run takes k of its cases, evenly spaced: others are slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for own in cases.values():
        marker = own[0].get_closest_marker("sampled")
        assert marker is not None
        taken = {len(own) * i // marker.args[0] for i in range(marker.args[0])}
        for k, item in enumerate(own):
            if k not in taken:
                item.add_marker("slow")


BUDGET = 2.0  # s of a core for one test; what takes longer is marked slow
UNBOUND = ("slow", "engines", "ray", "package")  # not part of the usual run
MACHINES = 10.0  # how much more one may take, on a slower or busy machine (seen: 7)


def _cpu() -> float:
    """Seconds of a core that this process and its ended children took: waiting is not counted."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    begin = _cpu()
    result = yield
    took = _cpu() - begin
    if took > BUDGET * MACHINES and not any(map(item.get_closest_marker, UNBOUND)):
        pytest.fail(
            f"took {took:.1f} s of a core, expected at most {BUDGET * MACHINES:g} s here "
            f"({BUDGET:g} s on a calm machine): make it smaller, or mark it slow",
            pytrace=False,
        )
    return result
