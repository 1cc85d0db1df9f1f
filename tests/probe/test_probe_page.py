"""What a reader of a probe's report sees, and what a hostile or half-written file cannot do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import gradlab
from gradlab import figures
from gradlab.reporting import probe_page, render, shell
from gradlab.reporting.page import Panel
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import VITALS
from gradlab.runs.probe.tables import chains, choices, curves
from gradlab.storage.journal import journal_of
from gradlab.verdicts.probe.findings import verdict
from tests import first_screens
from tests.probe.planted_probe import (
    burst,
    everything,
    measurement,
    opened,
    window,
    written,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ProbeRun:
    return load(written(tmp_path_factory.mktemp("probe") / "run.h5", everything()))


@pytest.fixture(scope="module")
def whole(run: ProbeRun) -> list[Panel]:
    return probe_page.panels(run)


@pytest.fixture(scope="module")
def page(run: ProbeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.html"
    path.write_text(page_of(run), encoding="utf-8")
    return path


def page_of(run: ProbeRun) -> str:
    return render(probe_page.page(run))


def names(run: ProbeRun) -> set[str]:
    return {each.name for each in probe_page.panels(run)}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_the_page_leads_from_verdict_to_price(tab, run, page):
    first_screens.opened(tab, page)
    assert [each.inner_text() for each in tab.locator("h2").all()] == [
        "Findings", *probe_page.SECTIONS, "How this was computed",
    ]  # fmt: skip
    for each in verdict(run):
        assert shell.signed(each.said.replace("`", "")) in tab.locator("main").text_content()
    facts = tab.locator(".facts").inner_text()
    for fact in ("planted", "2,999", "3,000", "every 50 updates", "4% of the time", "3000 s"):
        assert fact in facts
    assert tab.locator("figure svg").count() == len(probe_page.PANELS)
    first_screens.opened(tab, page, width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_everything_that_was_measured_has_a_panel(run, whole):
    assert [each.name for each in whole] == list(probe_page.PANELS)
    assert {each.section for each in whole} == set(probe_page.SECTIONS)


def test_a_run_without_a_task_says_how_to_measure(tmp_path):
    rows = {k: v for k, v in everything().items() if k in ("vitals", "successive")}
    found = load(written(tmp_path / "run.h5", rows, horizon=None, task=""))
    assert names(found) == {
        "signal_share", "grad_norm", "update_ratio", "layer_norm", "saturation", "attenuation",
        "share",
    }  # fmt: skip
    text = page_of(found)
    assert "gradlab.Probe(…, task=…, critic=…)" in text and "none given" in text


def test_an_empty_run_makes_a_page(tmp_path):
    text = page_of(load(written(tmp_path / "run.h5", {})))
    assert "No two rows yet: one comes at every look." in text
    shown = text[text.index("<main>") : text.index("<script>")]
    assert "<figure>" not in shown and not re.search(r"\bnan\b", shown.lower())


def test_lost_gradients_are_one_line(tmp_path):
    rows = {"vitals": [window(k, nonfinite_updates=14 * (k > 3)) for k in range(1, 9)]}
    found = load(written(tmp_path / "run.h5", rows, horizon=None))
    ax = drawn(found)["norms"]()
    (line,) = [each for each in ax.lines if "not finite" in str(each.get_label())]
    assert line.get_xdata() == [399, 399]
    assert [each.value for each in verdict(found) if "non-finite" in each.code] == [70 / 800]


def test_a_single_point_is_not_drawn_over_time(tmp_path):
    rows = {"vitals": [window(1)], "successive": [burst(40)], "measured": [measurement(40)]}
    found = load(written(tmp_path / "run.h5", rows))
    assert names(found) == {"errors", "parts", "cosine", "chain"}  # over the horizon
    rows = {name: [*each, each[0] | {"update": 400, "step": 399}] for name, each in rows.items()}
    twice = load(written(tmp_path / "twice.h5", rows))
    assert {"signal_share", "grad_norm", "chosen", "weight_zero", "value"} <= names(twice)


def test_a_run_that_nobody_closed_says_so_and_promises_nothing(tmp_path):
    journal = opened(tmp_path / "run.h5")
    journal.append("vitals", {k: v for k, v in window(1).items() if k in {"update", *VITALS}})
    assert probe_page.page(load(tmp_path / "run.h5")).advice.notice == ""  # being written
    journal._file.close()  # as a kill does
    page = probe_page.page(load(tmp_path / "run.h5"))
    assert "ended without being closed" in page.advice.notice
    opened(tmp_path / "run.h5").close()
    assert probe_page.page(load(tmp_path / "run.h5")).advice.notice == ""


def test_a_run_cut_while_it_was_written_makes_a_page(tmp_path):
    written(tmp_path / "run.h5", {"successive": [burst(40), burst(80), burst(120)]})
    place = journal_of(tmp_path / "run.h5")
    place.write_bytes(place.read_bytes()[:-100])
    made = gradlab.report(tmp_path / "run.h5")
    assert "64 pairs" in made.read_text()
    assert not (tmp_path / "run_figures").exists()
    gradlab.report(tmp_path / "run.h5", figures=True)
    suffixes = {path.suffix for path in (tmp_path / "run_figures").iterdir()}
    assert suffixes == {".png", ".csv"}


def drawn(run: ProbeRun) -> dict[str, Callable[[], Axes]]:
    table = curves(run)
    return {
        "curve": lambda: figures.probe_curves(
            table, quantities={"signal_share": "burst"}, title="t", unit="u", level=(0.5, "half")
        ),
        "norms": lambda: figures.probe_curves(
            table, quantities={"grad_norm": "mean of a window", "grad_norm_max": "largest"},
            title="t", unit="u", log=True, lost="nonfinite",
        ),
        "layers": lambda: figures.layer_norms(table),
        "actions": lambda: figures.probe_curves(
            table, quantities={"saturation": ""}, title="t", unit="u"
        ),
        "chains": lambda: figures.moved_chains(chains(run)),
        "chosen": lambda: figures.chosen_horizons(choices(run), longest=4),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["curve", "norms", "layers", "actions", "chains", "chosen"])
def test_no_text_covers_another_and_none_is_cut_off(run, name):
    ax = drawn(run)[name]()
    figure = ax.figure
    figure.canvas.draw()
    legend = ax.get_legend()
    parts = [ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    parts += list(legend.get_texts()) if legend else []
    boxes = {part: part.get_window_extent() for part in parts if part.get_text()}
    for part, box in boxes.items():
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, part.get_text()
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, part.get_text()
        assert not any(box.overlaps(other) for p, other in boxes.items() if p is not part)


def test_what_is_drawn_is_what_the_table_says(run):
    ax = drawn(run)["norms"]()
    (mean,) = [line for line in ax.lines if line.get_label() == "mean of a window"]
    np.testing.assert_allclose(mean.get_ydata(), 1 + 1 / np.arange(1, 31))


def test_the_page_of_a_long_run_stays_small(tmp_path):
    rows = {"successive": [burst(40 * k) for k in range(1, 1001)]}
    text = page_of(load(written(tmp_path / "run.h5", rows)))
    assert len(text.encode()) < 100_000
    assert not re.search(r"https?://|@import|src=", text)


def test_without_a_prior_model_no_line_speaks_of_a_model_gradient(tmp_path):
    """What growth and the longest horizon are about is then the simulator's gradient."""
    row = measurement(500, chosen_estimator=3, jacobian_error=np.nan)
    for name in ("variance", "bias2", "mse", "cosine"):
        for key in [each for each in row if each.startswith(name)]:
            row[key] = row[key].copy()
            row[key][1:3] = np.nan
    rows = {"vitals": [window(k) for k in range(1, 6)], "measured": [row]}
    run = load(written(tmp_path / "run.h5", rows))
    assert not [each for each in verdict(run) if "model gradient" in each.sentence]
