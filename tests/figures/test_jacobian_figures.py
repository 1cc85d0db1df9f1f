"""Figures of a comparison of Jacobians draw its table."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from gradlab import figures
from gradlab.figures.style import COLOURS, INK, MUTED, PAPER
from gradlab.tools.jacobians.figures import tinted
from tests.planted_jacobians import compared, grown

FIGURES = (
    figures.jacobian_entries,
    figures.jacobian_time,
    figures.jacobian_distance,
    figures.product_growth,
    figures.lyapunov,
    figures.chain_error,
    figures.model_error,
)


@pytest.fixture(scope="module")
def run():
    return compared()


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_draw_the_table_on_the_axes_they_are_given(draw, run):
    _, ax = plt.subplots(layout="constrained")
    assert draw(run.table(), ax) is ax
    assert plt.get_fignums() == [1]
    assert ax.get_title(loc="left")
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    assert legend is None or not legend.get_window_extent().overlaps(ax.get_window_extent())
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_say_what_they_cannot_draw(draw, run):
    _, ax = plt.subplots()
    draw(run.table().iloc[:0], ax)
    assert any(text.get_text().startswith("no ") for text in ax.texts)


def test_curves_are_the_tables(run):
    ax = figures.jacobian_time(run.table())
    (line,) = [each for each in ax.lines if str(each.get_label()).startswith("A =")]
    rows = run.rows("time", quantity="relative error", block="A").sort_values("step")
    np.testing.assert_array_equal(line.get_ydata(), rows["value"])
    ax = figures.product_growth(run.table())
    (line,) = [each for each in ax.lines if str(each.get_label()).startswith("closed loop")]
    rows = run.rows("growth", block="closed", output="1").sort_values("step")
    np.testing.assert_allclose(line.get_ydata(), rows["value"] / np.log(10))
    ax = figures.jacobian_entries(run.table())
    values = run.rows("entry", quantity="error")["value"].to_numpy(float)
    written = [text.get_text() for text in ax.texts][: len(values)]
    shown = [(float(text), value) for text, value in zip(written, values, strict=True)
             if text not in ("0", "~0")]  # fmt: skip
    assert shown and [text for text, _ in shown] == pytest.approx([v for _, v in shown], rel=0.06)


def test_tints_follow_the_page_and_zero_is_not_the_largest():
    ax = plt.figure().add_subplot()
    tinted(ax, np.array([[0.0, 1.0], [0.011, 0.0001]]), 4, 1e-3, numbers=True)
    cells = {patch.get_xy(): patch for patch in ax.patches}
    assert (-0.5, -0.5) not in cells  # exactly 0: the paper
    assert cells[0.5, -0.5].get_alpha() == 1.0
    assert cells[-0.5, 0.5].get_alpha() < cells[0.5, -0.5].get_alpha()
    palette = {to_hex(each) for each in COLOURS.values()}
    assert {to_hex(patch.get_facecolor()) for patch in ax.patches} <= palette
    colours = {text.get_text(): to_hex(text.get_color()) for text in ax.texts}
    assert colours == {"0": MUTED, "1": PAPER, "0.011": INK, "~0": INK}


def test_flagged_steps_are_shown_on_the_time_axis(run):
    flagged = grown(run, "certificate", "flagged share", 1.0)
    flagged.columns["value"][flagged.rows("time", quantity="flagged share").index[:3]] = 0.5
    ax = figures.jacobian_time(flagged.table())
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(label.startswith("failed the certificate") for label in labels)
    shown = [patch for patch in ax.patches if (patch.get_alpha() or 0) > 0]
    assert len(shown) == 3
