"""What a reader sees of a test of remedies: figures, the row of larger batches, the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab import figures
from gradlab.figures.style import PAPER
from gradlab.reporting import remedies_page, render
from gradlab.reporting.numbers import number
from gradlab.runs.remedies.arms import BASELINE, SIMULATOR, STEPS, TIME, longer
from gradlab.runs.remedies.batches import larger_batches
from gradlab.runs.remedies.run import Remedies
from gradlab.runs.remedies.values import CLIPPED, SMOOTH, Key, Pair, Value, extended
from gradlab.verdicts.remedies.sentences import verdict
from tests.first_screens import check_first_screen

H, BATCH, ARMS = 6, 256, ("spectral", "dd", "two-model")
FACTOR = {"spectral": 0.5, "dd": 0.8, "two-model": 1.3}  # of every error, at equal steps
LONGER = 0.9  # of the baseline that was fitted for longer
ALPHAS = np.linspace(-1, 1, 21)


def values(model: str, factor: float, trial: int) -> list[Value]:
    """Numbers of one model by formula, which a trial scales for all models alike."""
    noise = 1 + 0.05 * np.random.default_rng([trial, len(model)]).normal(size=8)
    size, found = (1 + 0.1 * trial) * factor, []
    errors = []
    for h in range(1, H + 1):
        bias, variance = 0.02 * size * h * noise[0], 2.0 * (1 + 0.5 * factor) ** h * noise[1]
        errors.append(bias + variance / BATCH)
        of = {"bias2": bias, "variance": variance, "mse": errors[-1], "cosine": 1 - 0.1 * bias}
        of |= {"relative_mse": errors[-1] / 0.3, "prediction_error": 0.05 * h * size * noise[2]}
        found += [Value(model, Key(name, at=h), value) for name, value in of.items()]
    for block in ("A", "B", "r_s", "r_a"):
        found += [
            Value(model, Key("jacobian_error", block, region=region), worse * factor * noise[3])
            for region, worse in ((SMOOTH, 0.1), (CLIPPED, 1.0))
        ]
    single = {
        "least_mse": min(errors), "usable_horizon": 3.0 + (factor < 1), "best_horizon": 2.0,
        "lyapunov": 0.05 * factor * noise[4], "held_out_mse": 0.1 / factor * noise[5],
        "step_cost": {"dd": 1.6}.get(model, 1.0),
    }  # fmt: skip
    return [*found, *(Value(model, Key(name), value) for name, value in single.items())]


def slices() -> dict[str, np.ndarray]:
    rows = [
        (model, surface, direction, H, a, FACTOR.get(model, 1.0) * (a - a**2), 4)
        for model in (BASELINE, *ARMS)
        for surface, direction in (
            ("model", "gradient"),
            ("model", "random"),
            ("simulator", "gradient"),
        )
        for a in ALPHAS
    ]
    rows += [(SIMULATOR, "simulator", "random", H, a, 0.3 * a, 4) for a in ALPHAS]
    names = ("model", "surface", "direction", "at", "alpha", "value", "n")
    found = {
        name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    found = {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in found.items()}
    return found | {"ci_low": found["value"] - 0.1, "ci_high": found["value"] + 0.1}


def planted(trials: int = 4, task: str = "planted", **changed: Any) -> Remedies:
    cells = None
    for trial in range(trials):
        numbers = values(BASELINE, 1.0, trial)
        for arm in ARMS:
            numbers += [*values(arm, FACTOR[arm], trial), *values(longer(arm), LONGER, trial)]
        numbers += [
            Value(model, Key("roughness", "random", H), 0.02)
            for model in (BASELINE, *ARMS, SIMULATOR)
        ]
        numbers.append(Value(SIMULATOR, Key("lyapunov"), 0.04 + 0.001 * trial))
        cells = extended(cells, trial, numbers)
    pairs = [
        pair
        for arm in ARMS
        for pair in (Pair(arm, STEPS, BASELINE, arm), Pair(arm, TIME, longer(arm), arm))
    ]
    config = {
        "task": task, "command": f"gradlab remedies {task}", "policy_hash": "abc", "horizon": H,
        "starts": 64, "rows": 3000, "batch": BATCH, "costs": {"dd": 1.6}, "seed": 0,
        "settings": {"hidden": [64, 64], "activation": "silu", "members": 1, "epochs": 60},
    }  # fmt: skip
    notes = {
        "trials": [
            {"trial": k, "truth": {"status": "converged", "reason": ""}} for k in range(trials)
        ]
    }
    assert cells is not None
    return replace(
        Remedies(cells, tuple(pairs), config, {"torch": "2.13.0"}, notes, slices()), **changed
    )


RUN, BARE = planted(), planted(slices=None)
TABLE, LEVELS = RUN.table(), RUN.levels()
ALL: tuple[Callable[..., Axes], ...] = (
    lambda ax=None: figures.remedy_effects(TABLE, ax),
    lambda ax=None: figures.remedy_effects(TABLE, ax, quantity="variance", at=H),
    lambda ax=None: figures.remedy_jacobians(TABLE, ax),
    lambda ax=None: figures.remedy_horizons(TABLE, ax),
    lambda ax=None: figures.remedy_levels(LEVELS, ax, quantity="relative_mse", one="zero gradient"),
    lambda ax=None: figures.remedy_marks(
        LEVELS, ax, quantity="usable_horizon", unit="steps", beside="best_horizon"
    ),
    lambda ax=None: figures.remedy_marks(LEVELS, ax, quantity="lyapunov", unit="λ per step"),
    lambda ax=None: figures.loss_slices(lines(), ax),
    lambda ax=None: figures.loss_slices(
        lines(), ax, surface="model", direction="random", roughness=dict.fromkeys(ARMS, 0.02)
    ),
)


def lines() -> Any:
    import pandas as pd

    return pd.DataFrame(slices())


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def marks(ax: Axes, filled: bool) -> dict[float, float]:
    """Row → value of the markers that are filled, or open."""
    found = [
        m for m in ax.lines if m.get_marker() not in ("", "None", None) and len(m.get_xdata()) == 1
    ]
    mine = [m for m in found if (m.get_markerfacecolor() != PAPER) == filled]
    return {round(float(m.get_ydata()[0])): float(m.get_xdata()[0]) for m in mine}


def drawn(ax: Axes, label: str) -> Line2D:
    (found,) = [each for each in ax.lines if str(each.get_label()).startswith(label)]
    return found


def texts(ax: Axes) -> str:
    return " ".join(text.get_text() for text in ax.texts)


def ratios(quantity: str, budget: str, **where: Any) -> list[float]:
    rows = TABLE[(TABLE["quantity"] == quantity) & (TABLE["budget"] == budget)]
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return [float(x) for x in rows["ratio"]]


def test_a_row_per_remedy_has_its_ratio_at_equal_time_filled_and_at_equal_steps_open() -> None:
    ax = figures.remedy_effects(TABLE)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(ARMS)
    assert list(marks(ax, filled=True).values()) == pytest.approx(ratios("least_mse", TIME))
    assert list(marks(ax, filled=False).values()) == pytest.approx(ratios("least_mse", STEPS))
    assert ratios("least_mse", TIME) != pytest.approx(ratios("least_mse", STEPS))
    assert ax.get_xscale() == "log"


def test_the_price_stands_at_the_right_of_the_gain() -> None:
    assert texts(figures.remedy_effects(TABLE)).split().count("1.6×") == 1


def test_a_quantity_of_one_horizon_is_that_of_this_horizon() -> None:
    ax = figures.remedy_effects(TABLE, quantity="variance", at=3)
    known = ratios("variance", TIME, at=3.0)
    assert list(marks(ax, filled=True).values()) == pytest.approx(known)
    assert known != pytest.approx(ratios("variance", TIME, at=4.0))
    assert "at horizon 3" in ax.get_title(loc="left")


def test_a_ratio_that_is_not_known_is_said_in_words() -> None:
    lost = TABLE.copy()
    lost.loc[lost["arm"] == "dd", ["ratio", "ratio_low", "ratio_high"]] = np.nan
    assert "not clearly above 0" in texts(figures.remedy_effects(lost))
    assert "not clearly above 0" not in texts(figures.remedy_effects(TABLE))
    lost["ratio"] = np.nan
    assert "not known to be above 0" in texts(figures.remedy_effects(lost))


def test_what_is_beyond_the_axis_is_drawn_at_its_end_and_said() -> None:
    far = TABLE.copy()
    far.loc[far["arm"] == "dd", ["ratio", "ratio_low", "ratio_high"]] = (1.0, 1e-9, 1e9)
    ax = figures.remedy_effects(far)
    assert "drawn there" in texts(ax) and ax.get_xlim()[1] < 1e4
    assert "drawn there" not in texts(figures.remedy_effects(TABLE))


def test_jacobians_on_clips_stand_apart_from_smooth_ones() -> None:
    ax = figures.remedy_jacobians(TABLE)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[:2] == ["∂s′/∂s, smooth", "∂s′/∂s, contact or clip"] and len(names) == 8
    smooth = TABLE[TABLE["region"] != CLIPPED]
    names = [t.get_text() for t in figures.remedy_jacobians(smooth).get_yticklabels()]
    assert names == [f"{block}, smooth" for block in ("∂s′/∂s", "∂s′/∂a", "∂r/∂s", "∂r/∂a")]
    whole = smooth.assign(region="all")
    names = [t.get_text() for t in figures.remedy_jacobians(whole).get_yticklabels()]
    assert names == ["∂s′/∂s", "∂s′/∂a", "∂r/∂s", "∂r/∂a"]


def test_a_ratio_over_the_horizon_is_the_tables() -> None:
    ax = figures.remedy_horizons(TABLE, quantity="variance", budget=STEPS)
    line = drawn(ax, "spectral")
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, H + 1))
    assert list(line.get_ydata()) == pytest.approx(ratios("variance", STEPS, arm="spectral"))


def test_levels_are_of_the_models_at_equal_steps_and_the_baseline() -> None:
    ax = figures.remedy_levels(LEVELS, quantity="relative_mse", one="zero gradient")
    labels = {str(line.get_label()) for line in ax.lines}
    assert {"nll (baseline)", *ARMS, "zero gradient"} <= labels
    assert not [each for each in labels if "as long" in each]


def test_the_level_that_means_something_is_in_sight() -> None:
    far = LEVELS.copy()
    far[["value", "ci_low", "ci_high"]] *= 1e4
    ax = figures.remedy_levels(far, quantity="relative_mse", one="zero gradient")
    assert ax.get_ylim()[0] < 1 < ax.get_ylim()[1]


def test_where_the_size_of_the_truth_is_lost_the_page_shows_plain_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(remedies_page, "panel", lambda name, section, caption, draw: draw())
    monkeypatch.setattr(figures, "remedy_horizons", lambda table, quantity: None)
    monkeypatch.setattr(
        figures, "remedy_levels", lambda levels, quantity, one="": shown.append(quantity)
    )
    for levels in (LEVELS, LEVELS[LEVELS["quantity"] != "relative_mse"]):
        remedies_page._horizons(TABLE, levels)
    assert shown == ["relative_mse", "mse"]


def test_a_model_that_diverges_does_not_press_the_others_into_one_line() -> None:
    wild = LEVELS.copy()
    wild.loc[wild["model"] == "dd", "value"] *= 1e30
    ax = figures.remedy_levels(wild, quantity="relative_mse")
    assert ax.get_ylim()[1] < 1e6 and "drawn there" in texts(ax)


def test_marks_are_of_every_model_with_the_simulators_value_as_a_line() -> None:
    ax = figures.remedy_marks(LEVELS, quantity="lyapunov", unit="λ per step")
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == [m for m in RUN.cells.models if m != SIMULATOR]
    rows = LEVELS[LEVELS["quantity"] == "lyapunov"].set_index("model")["value"]
    shown = marks(ax, filled=True) | marks(ax, filled=False)
    assert [shown[k] for k in range(len(names))] == pytest.approx([rows[name] for name in names])
    assert drawn(ax, "simulator").get_xdata()[0] == pytest.approx(rows[SIMULATOR])


def test_slices_are_drawn_as_they_are_with_their_roughness_beside_them() -> None:
    ax = figures.loss_slices(lines())
    np.testing.assert_allclose(drawn(ax, "dd").get_ydata(), 0.8 * (ALPHAS - ALPHAS**2))
    assert not [each for each in ax.lines if str(each.get_label()).startswith("simulator")]
    ax = figures.loss_slices(lines(), surface="model", direction="random", roughness={"dd": 0.03})
    assert drawn(ax, "dd").get_label() == "dd, roughness 0.03"
    np.testing.assert_allclose(drawn(ax, "simulator").get_ydata(), 0.3 * ALPHAS)


def test_one_steep_slice_bends_the_axis() -> None:
    steep = lines()
    steep.loc[steep["model"] == "dd", "value"] *= 1e6
    ax = figures.loss_slices(steep)
    assert ax.get_yscale() == "symlog" and "logarithmic beyond" in texts(ax)
    assert figures.loss_slices(lines()).get_yscale() == "linear"


@pytest.mark.parametrize("draw", ALL)
def test_no_text_covers_another_and_none_is_cut_off(draw: Callable[..., Axes]) -> None:
    ax = draw()
    figure = ax.figure
    figure.canvas.draw()
    legend = ax.get_legend()
    assert legend is not None and not legend.get_window_extent().overlaps(ax.get_window_extent())
    parts = [ax._left_title, ax.xaxis.label, ax.yaxis.label, *legend.get_texts(), *ax.texts]
    shown = [part for part in parts if part.get_text()]
    boxes = [part.get_window_extent() for part in shown]
    page = figure.bbox
    for part, box in zip(shown, boxes, strict=True):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, part.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, part.get_text()
    for i, box in enumerate(boxes):
        for j in range(i):
            assert not box.overlaps(boxes[j]), (shown[i].get_text(), shown[j].get_text())


@pytest.mark.parametrize("draw", ALL)
def test_figures_draw_on_the_axes_they_are_given(draw: Callable[..., Axes]) -> None:
    _, ax = plt.subplots()
    assert draw(ax) is ax
    assert plt.get_fignums() == [1]


def test_empty_tables_say_so() -> None:
    none, nothing = TABLE.iloc[:0], LEVELS.iloc[:0]
    for ax in (
        figures.remedy_effects(none),
        figures.remedy_jacobians(none),
        figures.remedy_horizons(none),
        figures.remedy_levels(nothing, quantity="relative_mse"),
        figures.remedy_marks(nothing, quantity="lyapunov", unit="λ"),
        figures.loss_slices(lines().iloc[:0]),
    ):
        assert "no" in texts(ax)


def test_names_that_nobody_knows_are_drawn_and_hostile_ones_are_text() -> None:
    strange = TABLE.assign(arm=TABLE["arm"].replace("dd", "$x_$ " + "long " * 20))
    for draw in (figures.remedy_effects, figures.remedy_horizons, figures.remedy_jacobians):
        draw(strange).figure.canvas.draw()


def test_a_larger_batch_leaves_the_bias_and_divides_the_variance_exactly() -> None:
    found = larger_batches(RUN).set_index(["arm", "quantity", "at"])
    for k in (2, 4):
        for h in range(1, H + 1):
            bias = [
                v.value
                for t in range(4)
                for v in values(BASELINE, 1.0, t)
                if v.key == Key("bias2", at=h)
            ]
            spread = [
                v.value
                for t in range(4)
                for v in values(BASELINE, 1.0, t)
                if v.key == Key("variance", at=h)
            ]
            row = found.loc[(f"batch × {k}", "mse", h)]
            assert row["second"] == pytest.approx(np.mean(bias) + np.mean(spread) / (k * BATCH))
            assert row["first"] == pytest.approx(np.mean(bias) + np.mean(spread) / BATCH)
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
            assert found.loc[(f"batch × {k}", "variance", h), "ratio"] == 1 / k
            assert found.loc[(f"batch × {k}", "bias2", h), "ratio"] == 1.0
        least = found.loc[(f"batch × {k}", "least_mse", np.nan)].squeeze()
        known = [
            min(
                b.value + v.value / (k * BATCH)
                for b, v in zip(
                    [x for x in values(BASELINE, 1.0, t) if x.key.quantity == "bias2"],
                    [x for x in values(BASELINE, 1.0, t) if x.key.quantity == "variance"],
                    strict=True,
                )
            )
            for t in range(4)
        ]
        assert least["second"] == pytest.approx(np.mean(known))
        assert found.loc[(f"batch × {k}", "step_cost", np.nan)].squeeze()["second"] == k


def test_of_a_single_trial_larger_batches_have_intervals_over_its_starts() -> None:
    rng = np.random.default_rng(0)
    left = 1 + 0.01 * rng.normal(size=(2, 2, 16))
    numbers = [
        Value(BASELINE, Key(name, at=h), float(scale * row.mean()), scale * row)
        for h, rows in enumerate(left, 1)
        for name, scale, row in zip(("mse", "variance"), (3.0, BATCH), rows, strict=True)
    ]
    run = replace(RUN, cells=extended(None, 0, numbers), pairs=())
    found = larger_batches(run).set_index(["arm", "quantity", "at"])
    row = found.loc[("batch × 2", "mse", 1)]
    assert row["n"] == 16 and row["ci_low"] < row["difference"] < row["ci_high"]
    assert row["second"] == pytest.approx(3.0 * left[0, 0].mean() - 0.5 * left[0, 1].mean())
    least = found.loc[("batch × 2", "least_mse", np.nan)].squeeze()
    known = min(3.0 * rows[0].mean() - 0.5 * rows[1].mean() for rows in left)
    assert least["second"] == pytest.approx(known)


def test_the_least_error_is_that_of_each_trial_wherever_it_lies() -> None:
    cells = None
    for trial, errors in enumerate([(3.0, 5.0), (6.0, 4.0)]):
        numbers = [Value(BASELINE, Key("mse", at=h), e) for h, e in enumerate(errors, 1)]
        numbers += [Value(BASELINE, Key("variance", at=h), float(BATCH)) for h in (1, 2)]
        cells = extended(cells, trial, numbers)
    assert cells is not None
    found = larger_batches(replace(RUN, cells=cells, pairs=())).set_index(["arm", "quantity", "at"])
    assert found.loc[("batch × 2", "least_mse", np.nan)].squeeze()["second"] == pytest.approx(3.0)


def test_without_errors_there_is_nothing_to_say_of_batches() -> None:
    cells = extended(None, 0, [Value(BASELINE, Key("held_out_mse"), 1.0)])
    assert larger_batches(replace(RUN, cells=cells)).empty


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remedies") / "run.html"
    path.write_text(render(remedies_page.page(RUN)), encoding="utf-8")
    return path


def opened(browser: Any, page: Path, **settings: Any) -> tuple[Any, list[str]]:
    tab = browser.new_page(viewport={"width": 1200, "height": 900}, **settings)
    seen: list[str] = []
    tab.on("request", lambda request: seen.append(request.url))
    tab.on("console", lambda message: seen.append(message.text))
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.goto(page.as_uri(), wait_until="networkidle")
    return tab, [each for each in seen if not each.startswith("data:")]


def test_the_page_opens_with_the_verdict_and_asks_for_nothing(browser: Any, page: Path) -> None:
    tab, seen = opened(browser, page)
    told = tab.locator("#why").text_content()
    for sentence in verdict(RUN):
        assert sentence.text in told
    assert tab.locator("#verdict").bounding_box()["y"] < 400
    assert tab.locator("figure svg").count() == 16
    assert seen == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1200
    header = tab.locator("h1, .facts").all_inner_texts()
    for fact in ("planted", "1 member of 64×64 silu units", "3000", "4", "256"):
        assert fact in " ".join(header)


def test_every_number_of_both_tables_is_on_the_page_and_sorts(browser: Any, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r'data-v="([^"]+)"', text)
    for value in (*TABLE["ratio"].dropna(), *TABLE["ci_high"].dropna(), *LEVELS["value"]):
        assert repr(float(value)) in shown
    tab, _ = opened(browser, page)
    first = tab.locator("details details:has(.sortable)").first
    tab.locator("summary", has_text="Every number").click()
    first.locator("summary").click()
    names = [each.inner_text() for each in first.locator("th").all()]
    place = names.index("ratio") + 1
    first.locator("th button").nth(place - 1).click()
    cells = first.locator(f"td:nth-child({place})").all()
    found = [float(each.get_attribute("data-v")) for each in cells]
    assert found == sorted(found) and len(found) == 2 * len(ARMS)
    assert cells[0].inner_text() == number(found[0])


def test_a_hostile_task_is_text(browser: Any, tmp_path: Path) -> None:
    attack = "</title><script>document.title='broken'</script><img src=x onerror=alert(1)>"
    notes = {
        "trials": [{"trial": 0, "truth": {"status": attack, "reason": attack}, attack: attack}]
    }
    hostile = planted(trials=1, task=attack, notes=notes, environment={attack: attack})
    path = tmp_path / "run.html"
    path.write_text(render(remedies_page.page(hostile)), encoding="utf-8")
    tab, seen = opened(browser, path)
    assert attack in tab.locator("h1").inner_text()
    assert tab.locator("img").count() == 0 and tab.title() != "broken"
    assert tab.locator("script").count() == 1 and len(seen) == 1


def test_a_run_without_slices_has_a_page_without_them() -> None:
    sections = [{each.section for each in remedies_page.panels(run)} for run in (RUN, BARE)]
    assert sections[0] - sections[1] == {remedies_page.SURFACE}


def test_the_first_screen_names_action_price_and_more_samples(browser: Any, tmp_path: Path) -> None:
    found = remedies_page.page(RUN)
    check_first_screen(browser, found, tmp_path)
    assert found.screen.headline.startswith("Take spectral normalisation")
    assert [fact.text for fact in found.screen.numbers[:2]] == ["1.5×", "1×"]
    assert "4× the batch" in found.screen.numbers[2].label


def test_fits_that_were_added_after_a_look_are_named() -> None:
    told = [{**each, "planned": 4} for each in RUN.notes["trials"]]
    notes = {"trials": [{**told[0], "planned": 2}, *told[1:]]}
    screen = remedies_page.page(replace(RUN, notes=notes)).screen
    assert "4 fits, extended from 2 after looking" in screen.sure
    assert "extended" not in remedies_page.page(RUN).screen.sure
