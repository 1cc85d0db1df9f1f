"""Figures for a paper: the column's width, text of 7 or 8 points, nothing cut off or covered."""

import inspect

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradlab import figures
from gradlab.errors import InputError
from gradlab.figures import style
from tests import planted


def test_every_figure_takes_axes_and_returns_them():
    for name in set(figures.__all__) - {"column"}:
        signature = inspect.signature(getattr(figures, name))
        assert signature.parameters["ax"].default is None, name
        assert signature.return_annotation == "Axes", name


@pytest.mark.parametrize("draw", [figures.bias_variance, figures.mse, figures.cosine])
@pytest.mark.parametrize(("width", "inches"), [("single", 3.25), ("text", 5.5), ("double", 6.75)])
def test_a_figure_fits_a_column_with_readable_text(draw, width, inches):
    ax = draw(planted.table())
    drawn = len(ax.lines)
    assert figures.column(ax, width, title=width == "text") is ax
    figure = ax.figure
    assert isinstance(figure, Figure) and figure.get_size_inches()[0] == inches
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert {text.get_fontsize() for text in shown} == {7.0, 8.0}
    page = figure.bbox.padded(1)
    ticks = {*ax.get_xticklabels(which="both"), *ax.get_yticklabels(which="both")}
    for text in set(shown) - ticks:  # matplotlib holds ticks beyond the axes, too
        box = text.get_window_extent()
        assert page.containsx(box.x0) and page.containsx(box.x1), text
        assert page.containsy(box.y0) and page.containsy(box.y1), text
    (legend,) = figure.legends
    assert ax.get_legend() is None
    assert not legend.get_window_extent().overlaps(ax.xaxis.label.get_window_extent())
    assert ax.get_window_extent().height > 0.35 * figure.bbox.height
    assert len(ax.lines) == drawn and bool(ax.get_title(loc="left")) == (width == "text")


def test_a_note_is_one_paragraph_in_a_column_however_wide_the_figure_was():
    note = " ".join(f"word{k:02}" for k in range(24))
    ax = figures.column(style.dress(Figure().add_subplot(), "title", "unit", [note, "short"]))
    below, above = ax.texts
    lines = above.get_text().splitlines()
    assert below.get_text() == "short" and " ".join(lines) == note
    assert all(len(line) + len(" word00") > len(lines[0]) for line in lines[:-1])  # none is ragged


def test_a_wrong_width_or_no_axes_are_refused():
    ax = figures.mse(planted.table())
    with pytest.raises(InputError, match="width is 'wide', expected one of single, text, double"):
        figures.column(ax, "wide")
    with pytest.raises(InputError, match="ax is"):
        figures.column(planted.table())
