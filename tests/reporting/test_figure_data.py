"""The CSV beside a figure has the numbers of the table that was drawn."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gradlab import figures
from gradlab.figures.multiples import best_first, several_quantities
from gradlab.reporting.figure_data import COLUMNS, drawn, hovers
from tests import planted
from tests.planted_remedies import TABLE


def of(data: pd.DataFrame, kind: str, series: str = "") -> pd.DataFrame:
    return data[(data["kind"] == kind) & data["series"].str.startswith(series)]


def test_curves_and_bands_are_those_of_the_table() -> None:
    table, figure = planted.table(), Figure()
    figures.mse(table, figure.add_subplot())
    data = drawn(figure)
    assert tuple(data.columns) == COLUMNS
    chosen = (table["estimator"] == "model") & (table["quantity"] == "mse")
    rows = table[chosen].sort_values("horizon")
    line = of(data, "line", "model")
    np.testing.assert_array_equal(line["x"], rows["horizon"])
    np.testing.assert_array_equal(line["y"], rows["value"])
    band = of(data, "band", "model").set_index("x")
    positive = rows[rows["ci_low"] > 0.01 * rows["value"]].set_index("horizon")
    assert len(positive) > 5
    np.testing.assert_array_equal(band.loc[positive.index, "low"], positive["ci_low"])
    np.testing.assert_array_equal(band.loc[positive.index, "high"], positive["ci_high"])
    assert set(data["axes"]) == {figure.axes[0].get_title(loc="left")}


def test_every_mark_has_its_place() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.bar([0, 1], [3.0, -2.0], color="#0b63a8", label="share")
    left.set_xticks([0, 1], ["states", "∂f/∂s"])
    left.axhline(0.5, color="#d2580a", label="threshold")
    left.vlines([1.0], [-3.0], [-1.0], color="#0b63a8")
    left.axhspan(0.1, 0.2, color="#0a8f6a")
    left.scatter([0.25], [0.75], color="#95518f", label="measured")
    right.imshow([[1.0, 2.0], [3.0, 4.0]])
    data = drawn(figure)
    bars = of(data, "bar", "share")
    assert bars[["x", "low", "high"]].to_numpy().tolist() == [[0, 0, 3], [1, -2, 0]]
    assert bars["x_name"].tolist() == ["states", "∂f/∂s"]
    assert of(data, "level", "threshold")["y"].tolist() == [0.5]
    assert of(data, "interval", "share")[["x", "low", "high"]].to_numpy().tolist() == [[1, -3, -1]]
    assert of(data, "span")[["low", "high"]].to_numpy() == pytest.approx(np.array([[0.1, 0.2]]))
    assert of(data, "point", "measured")[["x", "y"]].to_numpy().tolist() == [[0.25, 0.75]]
    cells = of(data, "cell")
    assert cells[["x", "y", "value"]].to_numpy().tolist() == [
        [0, 0, 1], [1, 0, 2], [0, 1, 3], [1, 1, 4],
    ]  # fmt: skip


def test_a_mesh_has_its_centres_and_an_empty_figure_no_rows() -> None:
    figure = Figure()
    figure.add_subplot().pcolormesh([0, 2, 4], [0, 1, 2], [[5.0, 6.0], [7.0, 8.0]])
    assert drawn(figure)[["x", "y", "value"]].to_numpy().tolist() == [
        [1, 0.5, 5], [3, 0.5, 6], [1, 1.5, 7], [3, 1.5, 8],
    ]  # fmt: skip
    assert drawn(Figure()).empty


def test_a_pointer_meets_the_values_of_curves_with_their_intervals() -> None:
    table, figure = planted.table(3), Figure(layout="constrained")
    ax = figures.mse(table, figure.add_subplot())
    figure.draw_without_rendering()
    rows = table[(table["estimator"] == "model") & (table["quantity"] == "mse")]
    found = [each for each in hovers(figure) if each[2].startswith("model, first action, ")]
    assert len(found) == 4
    for (left, top, text), row in zip(found, rows.itertuples(), strict=True):
        place = ax.transData.transform((row.horizon, row.value)) * 72 / figure.dpi
        assert (left, figure.get_figheight() * 72 - top) == pytest.approx(tuple(place), abs=0.01)
        assert text.endswith(
            f", {row.horizon}: {row.value:.3g} (95%: {row.ci_low:.3g} to {row.ci_high:.3g})"
        )


def test_an_interval_is_that_of_its_own_curve_where_several_share_a_colour() -> None:
    """Grey is what needs the simulator: the name of an interval is no matter of its colour."""
    names = ("data", "mixed", "true_dynamics", "model")
    rows = [
        (name, h, "gain", 0.1 * k + 0.01 * h, 0.1 * k, 0.1 * k + 0.02 * h)
        for k, name in enumerate(names)
        for h in (range(1) if name == "data" else range(1, 6))
    ]
    columns = ["estimator", "horizon", "quantity", "value", "ci_low", "ci_high"]
    table, figure = pd.DataFrame(rows, columns=columns), Figure(layout="constrained")
    steps = pd.DataFrame({"estimator": names[1:], "horizon": 5, "share": [-0.4, -0.6, -0.8]})
    low_end, high_end = steps["share"] - 0.1, steps["share"] + 0.1
    steps = steps.assign(share_low=low_end, share_high=high_end, update=True)
    figures.gain(table, steps, ax=figure.add_subplot())
    figure.draw_without_rendering()
    found = {text for *_, text in hovers(figure)}
    for name, h, _, value, low, high in rows[1:]:
        said = {"model": "model", "mixed": "mixed", "true_dynamics": "simulator"}[name]
        interval = f"(95%: {100 * low:.3g} to {100 * high:.3g})"
        assert f"{said}, first action, {h}: {100 * value:.3g} {interval}" in found
    assert "mixed, first action, 5: −40 (95%: −50 to −30)" in found
    # Curves, both ends of the level, the dots; no lines to names, no axis.
    assert len(found) == 3 * 5 + 2 + 3


def test_a_colour_that_two_curves_share_names_no_interval() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    for name, height in (("one", 1.0), ("other", 5.0)):
        ax.plot([0, 1], [height, height], color="#5c6571", label=name)
    ax.fill_between([0, 1], [4, 4], [6, 6], color="#5c6571")
    assert set(of(drawn(figure), "band")["series"]) == {""}
    assert not any("95%" in text for *_, text in hovers(figure))


def test_a_pointer_meets_the_rows_of_a_test_of_remedies_with_their_intervals() -> None:
    figure = Figure(layout="constrained")
    figures.remedy_effects(TABLE, figure.add_subplot())
    figure.draw_without_rendering()
    found = {text for *_, text in hovers(figure)}
    rows = TABLE[TABLE["quantity"] == "least_mse"]
    assert len(found) == len(rows) == 6
    for row in rows.itertuples():
        interval = f"(95%: {row.ratio_low:.3g} to {row.ratio_high:.3g})"
        assert f"at {row.budget}, {row.arm}: {row.ratio:.3g} {interval}" in found


def test_a_pointer_meets_intervals_that_are_not_drawn_and_take_no_room() -> None:
    rows = [
        (name, seed, "return", k, k, value, value - far, value + far)
        for name, far, first in (("good", 1.0, 2.0), ("bad", 500.0, 1.0))
        for seed in ("0", "1", "all")
        for k, value in enumerate((first, 3.0 + first))
    ]
    columns = "run", "seed", "quantity", "iteration", "seconds", "value", "ci_low", "ci_high"
    table = pd.DataFrame(rows, columns=columns)
    for draw in (partial(best_first, best="good"), figures.returns):
        figure = Figure(layout="constrained")
        ax = draw(table, ax=figure.add_subplot())
        figure.draw_without_rendering()
        assert ax.get_ylim()[1] < 10
        assert "bad, 1: 4 (95%: −496 to 504)" in {text for *_, text in hovers(figure)}
    figure = several_quantities(Figure(layout="constrained"), table, {"return": "return"}, "")
    figure.draw_without_rendering()
    assert "bad, 1: 4 (95%: −496 to 504)" in {text for *_, text in hovers(figure)}
