"""What is drawn is what the table says, and what cannot be drawn is said.

The figure of a certificate draws the numbers of its table. Figures for a paper: the column's width,
text of 7 or 8 points, nothing cut off or covered.
"""

import inspect
import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradlab import figures
from gradlab.errors import InputError
from gradlab.tools.jacobians import page as jacobian_page
from tests import planted
from tests.figures.drawn import check_texts, line, texts
from tests.planted_tools import compared, grown

ALL: tuple[Callable[..., Axes], ...] = (
    figures.bias_variance,
    figures.cosine,
    figures.mse,
    figures.sign_agreement,
    figures.snr,
)


def values(table, estimator, quantity):
    chosen = (table["estimator"] == estimator) & (table["quantity"] == quantity)
    return table[chosen].sort_values("horizon")["value"].to_numpy()


def test_bias_variance_and_their_sum_are_drawn_as_they_are():
    table = planted.table()
    ax = figures.bias_variance(table.sample(frac=1, random_state=0), estimator="model", batch=64)
    np.testing.assert_array_equal(line(ax, "squared bias").get_xdata(), np.arange(26))
    np.testing.assert_array_equal(
        line(ax, "squared bias").get_ydata(), values(table, "model", "bias2")
    )
    np.testing.assert_allclose(
        line(ax, "variance").get_ydata(), values(table, "model", "variance") / 64
    )
    np.testing.assert_array_equal(line(ax, "MSE =").get_ydata(), values(table, "model", "mse"))
    assert ax.get_yscale() == "log"


def test_the_smallest_error_is_marked():
    table = planted.table()
    best = int(values(table, "model", "mse").argmin())
    star = line(figures.bias_variance(table), "smallest MSE")
    assert star.get_xdata()[0] == best
    assert str(star.get_label()).endswith(f"h* = {best}")


def test_a_bias_that_is_not_positive_is_drawn_at_the_end_of_its_interval():
    table = planted.table()
    rows = table[(table["estimator"] == "true_dynamics") & (table["quantity"] == "bias2")]
    below = rows[rows["value"] <= 0]
    assert len(below) > 1
    ax = figures.bias_variance(table, estimator="true_dynamics")
    marks = [each for each in ax.lines if each.get_markerfacecolor() == figures.style.PAPER]
    drawn = {(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in marks}
    assert drawn == set(zip(below["horizon"].astype(float), below["ci_high"], strict=True))
    assert "open marker" in texts(ax)
    assert np.isnan(line(ax, "squared bias").get_ydata()).sum() == len(below)
    assert "open marker" not in texts(figures.bias_variance(table, estimator="model"))


@pytest.mark.parametrize("draw", ALL)
def test_data_is_a_level_over_every_horizon(draw):
    ax = draw(planted.table())
    (level,) = [each for each in ax.lines if "data (critic only)" in str(each.get_label())]
    x, y = np.asarray(level.get_xdata()), np.asarray(level.get_ydata())
    assert x[0] <= 0 <= 25 <= x[-1]
    assert len(set(y)) == 1


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("horizon", [0, 25])
def test_no_text_covers_another_and_none_is_cut_off(draw, horizon):
    own = ("the longest name that a careful user would give to one",)
    ax = draw(planted.table(horizon, own=own))
    check_texts(ax)


def test_without_a_truth_the_figures_show_what_is_left_and_say_so():
    table = planted.table(truth=False)
    ax = figures.bias_variance(table)
    assert "no admissible truth" in texts(ax)
    assert line(ax, "variance / N′, N")
    assert not [each for each in ax.lines if "MSE" in str(each.get_label())]
    assert "no admissible truth" in texts(figures.mse(table))
    assert "no cosine: the truth or its norm" in texts(figures.cosine(table))
    assert line(figures.snr(table), "model")


def test_signs_are_drawn_with_chance_beside_them():
    table = planted.table()
    ax = figures.sign_agreement(table)
    drawn = line(ax, "model").get_ydata()
    np.testing.assert_array_equal(drawn, values(table, "model", "sign_agreement"))
    assert set(line(ax, "chance").get_ydata()) == {0.5}
    without = table[table["quantity"] != "sign_agreement"]
    assert "no sign agreement" in texts(figures.sign_agreement(without))


def test_the_truths_own_error_is_shaded_where_there_is_a_truth():
    ax = figures.bias_variance(planted.table(), truth_error2=1e-3)
    shade = [each for each in ax.patches if "truth" in str(each.get_label())]
    assert len(shade) == 1 and shade[0].get_y() + shade[0].get_height() == pytest.approx(1e-3)
    assert ax.get_ylim()[0] < 1e-3
    assert not figures.bias_variance(planted.table(truth=False), truth_error2=1e-3).patches


def test_a_cosine_above_one_is_shown_at_one():
    table = planted.table()
    table.loc[(table["estimator"] == "model") & (table["quantity"] == "cosine"), "value"] = 1.02
    assert set(line(figures.cosine(table), "model").get_ydata()) == {1.0}


@pytest.mark.parametrize("high", [1e302, np.inf])
def test_intervals_over_hundreds_of_decades_have_no_band_and_squeeze_no_axis(high):
    table = planted.table()
    worst = (table["estimator"] == "model") & (table["horizon"] == table["horizon"].max())
    table.loc[worst & table["quantity"].isin(["snr", "mse", "variance"]), "ci_high"] = high
    for draw in (figures.snr, figures.mse, figures.bias_variance):
        ax = draw(table)
        ax.figure.canvas.draw()
        low, high_end = ax.get_ylim()
        assert 0 < low < high_end < 1e12
        assert "no upper end" in texts(ax)


def test_values_beyond_every_axis_are_left_out():
    table = planted.table()
    last = (table["estimator"] == "model") & (table["horizon"] == table["horizon"].max())
    table.loc[last & (table["quantity"] == "mse"), ["value", "ci_high"]] = 1e305, 1e307
    ax = figures.mse(table)
    ax.figure.canvas.draw()
    assert np.isnan(line(ax, "model").get_ydata()[-1]) and ax.get_ylim()[1] < 1e300


@pytest.mark.parametrize("draw", ALL)
def test_hostile_names_and_missing_numbers_do_not_stop_a_figure(draw):
    table = planted.table(own=(r"$\frac{$", "_hidden", "<b>&amp;", "", "x" * 300, "two\nlines"))
    table.loc[table["horizon"] == 3, ["value", "ci_low", "ci_high"]] = np.nan
    table.loc[table["horizon"] == 4, "ci_high"] = np.inf
    ax = draw(table)
    ax.figure.savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize("draw", ALL)
def test_an_empty_table_gives_an_empty_figure(draw):
    ax = draw(planted.table().iloc[:0])
    ax.figure.savefig(io.BytesIO(), format="png")
    assert texts(ax).strip()


def test_the_size_of_a_sample_holds_mean_and_variance():
    table = planted.table(5)
    axes = figures.sample_norm(table, exponent=0.1)
    model = line(axes, "model")
    rows = table[(table["estimator"] == "model") & (table["horizon"] == 3)].set_index("quantity")
    size = np.sqrt(rows["value"]["variance"] + rows["value"]["mean_norm"] ** 2)
    assert model.get_ydata()[3] == pytest.approx(size)
    assert any("1.11 a step" in str(line.get_label()) for line in axes.lines)  # e^0.1


def gains(low=-0.1, high=0.9):
    """Gains of a model's gradients with θ in the first action and in all."""
    rows = [
        (name, h, "gain", 0.4, low, high) for name in ("model", "model_all") for h in range(1, 6)
    ]
    columns = ["estimator", "horizon", "quantity", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def bands(axes):
    """Areas that are filled between two curves."""
    return sum(len(path.vertices) > 0 for band in axes.collections for path in band.get_paths())


@pytest.mark.parametrize("quantity", ["gain", "cosine"])
def test_unknown_intervals_have_no_band_and_the_figure_says_so(quantity):
    draw = {"gain": figures.gain, "cosine": figures.cosine}[quantity]
    known, unknown = (
        draw(table.assign(quantity=quantity), ax=Figure().add_subplot())
        for table in (gains(), gains(-0.9, 0.95))
    )
    assert (bands(known), bands(unknown)) == (2, 0)
    said = [any("no band" in text.get_text() for text in ax.texts) for ax in (known, unknown)]
    assert said == [False, True]


def test_an_update_beyond_the_axis_is_a_triangle_that_says_its_value():
    rows = [("model", h, share, share - 0.1, share + 0.1, True) for h, share in ((1, 0.3), (2, -4))]
    columns = ["estimator", "horizon", "share", "share_low", "share_high", "update"]
    ax = figures.gain(gains(), pd.DataFrame(rows, columns=columns), ax=Figure().add_subplot())
    dots = {each.get_marker(): each for each in ax.lines if len(each.get_xdata()) == 1}
    assert dots["o"].get_xydata()[0] == pytest.approx([1, 0.3])
    assert dots["o"].get_label() == "_model, first action"
    assert dots["v"].get_xydata()[0] == pytest.approx([2, -1.1])
    assert dots["v"].get_label() == "_model, first action (−400%)"


@pytest.mark.parametrize(("horizon", "joined"), [(1, False), (2, True)])
def test_two_values_are_points_with_their_intervals_and_no_curve(horizon, joined):
    ax = figures.cosine(planted.table(horizon))
    assert (line(ax, "model").get_linestyle() != "None") == joined
    bars = [each for each in ax.collections if isinstance(each, LineCollection)]
    assert bool(bars) != joined


def test_one_function_draws_any_quantity_with_its_thresholds_and_the_best():
    ax = figures.lines(
        planted.table(), title="error", quantity="mse", log=True, chosen="model", star="least",
        thresholds={"as good as none": 2.0, "not known": None},
    )  # fmt: skip
    drawn = values(planted.table(), "model", "mse")
    np.testing.assert_array_equal(line(ax, "model").get_ydata(), drawn)
    assert set(line(ax, "as good").get_ydata()) == {2.0} and ax.get_title(loc="left") == "error"
    assert str(line(ax, "least").get_label()) == f"least, h* = {drawn.argmin()}"
    with pytest.raises(InputError, match="table has no column 'step'"):
        figures.lines(planted.table(), quantity="mse", x="step")


def test_bars_have_the_intervals_and_a_matrix_shows_every_cell():
    rows = [(2, "a", 3.0), (2, "b", -1.0), (5, "a", 2.0)]
    shares = pd.DataFrame(rows, columns=["output", "cause", "value"])
    ax = figures.bars(shares.assign(ci_low=shares["value"] - 1, ci_high=shares["value"] + 2))
    drawn = {each.get_label(): each for each in ax.containers}
    assert list(drawn["a"].lines[0].get_ydata()) == [3.0, 2.0]
    (bar,) = drawn["b"].lines[2][0].get_segments()
    assert bar[:, 1].tolist() == [-2.0, 1.0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["2", "5"]
    cells = pd.DataFrame({"output": ["u", "v"], "input": ["x", "x"], "value": [0.5, -0.02]})
    ax = figures.matrix(cells, percent=True)
    assert [text.get_text() for text in ax.texts if "%" in text.get_text()] == ["+50%", "−2%"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["u", "v"]


# Figures of a comparison of Jacobians draw its table.


@pytest.fixture(scope="module")
def run():
    return compared()


def panels_of(run):
    return {each.name: each.figure.axes[0] for each in jacobian_page.panels(run)}


def test_figures_of_a_comparison_have_titles_and_no_text_over_another(run):
    found = panels_of(run)
    assert {"entries-error", "time", "distance", "growth", "exponents", "chain-error"} <= {*found}
    for ax in found.values():
        assert ax.get_title(loc="left")
        ax.figure.canvas.draw()
        legend = ax.get_legend()
        assert legend is None or not legend.get_window_extent().overlaps(ax.get_window_extent())
        boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])


def test_curves_are_the_tables(run):
    found = panels_of(run)
    (line,) = [x for x in found["time"].lines if str(x.get_label()).startswith("A =")]
    rows = run.rows("time", quantity="relative error", block="A").sort_values("step")
    np.testing.assert_array_equal(line.get_ydata(), rows["value"])
    (line,) = [x for x in found["growth"].lines if str(x.get_label()).startswith("closed loop")]
    rows = run.rows("growth", block="closed", output="1").sort_values("step")
    np.testing.assert_allclose(line.get_ydata(), rows["value"] / np.log(10))
    values = run.rows("entry", quantity="error")["value"].to_numpy(float)
    written = [text.get_text() for text in found["entries-error"].texts][: len(values)]
    shown = [(float(text), value) for text, value in zip(written, values, strict=True)
             if text not in ("0", "~0")]  # fmt: skip
    assert shown and [text for text, _ in shown] == pytest.approx([v for _, v in shown], rel=0.06)


def test_flagged_steps_are_shown_on_the_time_axis(run):
    flagged = grown(run, "certificate", "flagged share", 1.0)
    flagged.columns["value"][flagged.rows("time", quantity="flagged share").index[:3]] = 0.5
    ax = panels_of(flagged)["flags"]
    (line,) = [each for each in ax.lines if each.get_label() == "failed the certificate"]
    assert (np.asarray(line.get_ydata()) == 0.5).sum() == 3


def table(**changed):
    row = {
        "source": "step", "block": "A", "stratum": "free", "states": 9, "judged": 1.0,
        "median": 1e-9, "p95": 1e-8, "largest": 1e-2, "flagged": 0.1,
    }  # fmt: skip
    worse = row | {"source": "linearize", "largest": 0.5}
    other = row | {"block": "r_a", "stratum": "contact", "median": 0.0, "p95": 0.0, "largest": 0.0}
    return pd.DataFrame([row, worse, other]).assign(**changed)


def test_the_worse_of_two_sources_is_drawn_from_its_median_to_its_largest_error():
    ax = figures.certified_errors(table(), fail_above=1e-3)
    spans = [x[:, 1] for each in ax.collections for x in each.get_segments()]
    assert any(np.allclose(x, [1e-9, 0.5], rtol=1e-9) for x in spans)
    heights = [np.asarray(line.get_ydata()) for line in ax.lines]
    assert any(np.array_equal(x, [1e-3, 1e-3]) for x in heights)
    assert min(np.nanmin(x) for x in heights) == 1e-16  # an exact derivative
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == ["where the step is smooth", "in contact"]
    plt.close("all")


@pytest.mark.parametrize("shown", [table(median=np.nan, p95=np.nan, largest=np.nan), table()[:0]])
def test_a_table_without_judged_states_says_so(shown):
    ax = figures.certified_errors(shown)
    assert "no state could be judged" in [text.get_text() for text in ax.texts]
    plt.close("all")


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


def test_a_wrong_width_or_no_axes_are_refused():
    ax = figures.mse(planted.table())
    with pytest.raises(InputError, match="width is 'wide', expected one of single, text, double"):
        figures.column(ax, "wide")
    with pytest.raises(InputError, match="ax is"):
        figures.column(planted.table())
