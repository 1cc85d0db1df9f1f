"""What a reader sees of a comparison: sentences, page, figures and command."""

import json
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

import gradlab
from gradlab import cli, figures, systems
from gradlab.data.noise import stream
from gradlab.figures.style import COLOURS, INK, MUTED, PAPER
from gradlab.figures.tints import tinted
from gradlab.reporting import jacobian_page, report
from gradlab.runs.jacobians import load
from gradlab.systems.linear import LinearQuadratic
from gradlab.verdicts.jacobians.sentences import verdict
from tests.first_screens import check_first_screen

FIGURES = (
    figures.jacobian_entries,
    figures.jacobian_time,
    figures.jacobian_distance,
    figures.product_growth,
    figures.lyapunov,
    figures.chain_error,
    figures.model_error,
)


def system(strength):
    def step(s, a):
        moved = torch.stack([s[:, 0] + 0.2 * s[:, 1], 0.9 * s[:, 1] + a[:, 0]], 1)
        return moved + strength * torch.sin(s), -(s**2).sum(1) - (1 + strength) * a[:, 0] ** 2

    return systems.from_function(step, state_dim=2, action_dim=1)


def policy():
    network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, -0.2)
    return network


def starts(n=32):
    return torch.randn(n, 2, generator=stream(0, "test"), dtype=torch.float64)


def compared(model=True, names=("position [m]", "speed [m/s]")):
    data = (starts(200), torch.randn(200, 1, generator=stream(1, "test")).double())
    return gradlab.compare_jacobians(
        system(0.0),
        system(0.05) if model else None,
        starts(),
        policy(),
        data if model else None,
        state_names=names,
        action_names=("push [N]",),
        settings={"task": "mine", "command": "gradlab jacobians mine"},
    )


@pytest.fixture(scope="module")
def run():
    return compared()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def said(run, about):
    (found,) = [each for each in verdict(run) if each.about == about]
    return found


def test_the_verdict_names_blocks_entries_and_growth(run):
    error = run.rows("block", quantity="relative error", block="A")["value"].iloc[0]
    assert f"∂s'/∂s {100 * error:.3g}%" in said(run, "blocks").text
    assert "exact derivatives" in said(run, "certificate").text
    worst = run.rows("entry", quantity="effect").sort_values("value").iloc[-1]
    assert f"the error of {worst['output']} by {worst['input']}" in said(run, "entry").text
    rate = run.rows("exponent", block="closed", output="1")["value"].iloc[0]
    assert f"λ = {rate:.3g}" in said(run, "growth").text
    assert "give a measurement" in said(run, "variance").text
    assert all("nan" not in each.text for each in verdict(run))


def test_without_a_model_only_the_simulator_is_judged():
    told = {each.about for each in verdict(compared(model=False))}
    assert told == {"certificate", "growth", "variance"}


@pytest.mark.parametrize("model", [None, systems.Pendulum(mass=1.2)])
def test_a_simulator_whose_every_jacobian_is_masked_is_said_to_show_nothing(model, tmp_path):
    spin = torch.tensor([[1.5, 8.0], [1.4, 8.0], [1.6, 8.0], [1.55, 8.0]], dtype=torch.float64)
    push = torch.nn.Linear(2, 1).double()
    torch.nn.init.zeros_(push.weight), torch.nn.init.constant_(push.bias, 2.0)
    run = gradlab.compare_jacobians(systems.Pendulum(), model, spin, push, horizon=1)
    sentence = said(run, "certificate")
    assert not sentence.decided
    assert (
        sentence.text == "None of the simulator's Jacobians can be used, of 4 steps from 4 starts."
    )
    assert {each.about for each in verdict(run)}.isdisjoint({"blocks", "product", "entry"})
    assert report(run.save(tmp_path / "run.h5")).exists()


def grown(run, section, quantity, factor, **where):
    """The run with some numbers multiplied."""
    columns = {name: column.copy() for name, column in run.columns.items()}
    rows = run.rows(section, quantity=quantity, **where).index
    for name in ("value", "ci_low", "ci_high"):
        columns[name][rows] *= factor
    return replace(run, columns=columns)


def test_a_verdict_changes_with_its_numbers(run):
    far = run.rows("distance", block="A")["x"].max()
    steep = grown(run, "distance", "relative error", 10.0, block="A", x=far)
    assert "grows 10×" in said(steep, "distance").text
    assert "hardly depends" in said(run, "distance").text
    bad = replace(run, notes=run.notes | {"model_not_finite": 3, "model_first_loss": "step 2"})
    assert "not finite on 3 (first: step 2)" in said(bad, "certificate").text
    assert not said(bad, "certificate").decided
    flagged = grown(run, "certificate", "flagged share", 1.0)
    flagged.columns["value"][flagged.rows("certificate", quantity="flagged share").index] = 0.2
    assert "20% " in said(flagged, "certificate").text
    lost = replace(run, notes=run.notes | {"condition_1": "exponential"})
    assert "rejected" in said(lost, "condition").text
    one_sided = grown(run, "block", "share of the squared error in the worst 5%", 0.0)
    one_sided.columns["value"][one_sided.rows("block", block="A").index[1:]] = 0.97
    assert "A twentieth of the samples" in said(one_sided, "blocks").text


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


def test_a_page_is_rebuilt_from_its_file_and_hostile_names_stay_text(tmp_path):
    hostile = compared(names=("<script>alert(1)</script>", "$x^2$"))
    path = hostile.save(tmp_path / "run.h5")
    page = report(path)
    text = page.read_text()
    assert "<script>alert" not in text
    assert "How good are these Jacobians?" in text
    assert "relative Frobenius error" in text
    assert (tmp_path / "run_figures/growth.png").exists()
    assert [each.text for each in verdict(load(path))] == [each.text for each in verdict(hostile)]


def test_panels_of_a_model_appear_only_with_one(run):
    names = {panel.name for panel in jacobian_page.panels(run)}
    assert {
        "entries-error",
        "entries-effect",
        "distance",
        "chain-error",
        "model-error",
        "growth",
    } <= names
    alone = {panel.name for panel in jacobian_page.panels(compared(model=False))}
    assert alone == {"entries-size", "time", "growth", "exponents"}


OWN = """
import torch
from gradlab.systems.linear import LinearQuadratic
def wrong():
    eye = torch.eye(1, dtype=torch.float64)
    return LinearQuadratic(0.8 * eye, 0.5 * eye, eye, eye, 0.01 * eye)
def wide():
    eye = torch.eye(2, dtype=torch.float64)
    return LinearQuadratic(0.8 * eye, 0.5 * eye, eye, eye, 0.01 * eye)
def nothing():
    return 3
def policy():
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, -0.3)
    return network
"""
LQR = ["linear_quadratic", "--set", "A=[[0.9]]", "B=[[0.5]]", "Q=[[1]]", "R=[[1]]"]
LQR += ["noise_covariance=[[0.01]]", "start_mean=[0]", "start_covariance=[[1]]", "discount=0.9"]


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_the_command_compares_a_model_and_rebuilds_its_page(own, tmp_path, capsys):
    run = tmp_path / "run.h5"
    sizes = ["--starts", "16", "--horizon", "6", "--output", str(run)]
    given = ["--model", f"{own}:wrong", "--policy", f"{own}:policy"]
    assert cli.main(["jacobians", *LQR, *given, *sizes, "--json", "--no-report"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = load(run)
    assert found.rows("block", quantity="relative error", block="A")["value"].iloc[
        0
    ] == pytest.approx(1 / 9)
    assert document["verdict"][0]["text"] == verdict(found)[0].text
    assert len(document["table"]) == len(found.table())
    assert not (tmp_path / "run.html").exists()
    assert cli.main(["report", str(run), "--explain"]) == 0
    assert (tmp_path / "run.html").exists()
    assert "11.1%" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["jacobians", *LQR, *given, *sizes]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "{own}:wide"], "model has state_dim"),
        (["--model", "{own}:nothing"], "expected a System"),
        (["--model", "absent.safetensors"], "absent.safetensors"),
        (["--data", "absent.h5"], "absent.h5"),
        (["--starts", "2"], "at least 4"),
        (["--horizon", "0"], "horizon is 0"),
        (["--output", "run.html"], ".h5"),
    ],
)
def test_wrong_usage_is_one_line(own, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    words = [each.format(own=own) for each in words]
    assert cli.main(["jacobians", *LQR, "--policy", f"{own}:policy", *words]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("gradlab: error: ")
    assert message in err


def test_a_task_without_a_prior_says_so(capsys):
    assert cli.main(["jacobians", "pendulum", "--model", "prior"]) == 2
    assert "has no prior" in capsys.readouterr().err


def test_the_command_explains_itself():
    done = subprocess.run(
        [sys.executable, "-m", "gradlab", "jacobians", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--model" in done.stdout


def test_a_measurement_of_the_same_policy_is_compared(tmp_path, own, capsys):
    eye = torch.eye(1, dtype=torch.float64)
    lqr = LinearQuadratic(1.5 * eye, eye, eye, eye, 0.01 * eye)
    assert lqr.state_dim == 1
    run = tmp_path / "run.h5"
    critic = tmp_path / "critic.py"
    critic.write_text(
        "import torch\nclass C(torch.nn.Module):\n    def forward(self, s, a):\n"
        "        return -(s[:, 0] ** 2) - a[:, 0] ** 2\ndef critic():\n    return C()\n"
    )
    given = ["--policy", f"{own}:policy"]
    measure = ["--critic", f"{critic}:critic", "--horizon", "6", "--starts", "32", "--no-report"]
    assert cli.main(["measure", *LQR, *given, *measure, "--output", str(run)]) == 0
    compare = ["--profile", str(run), "--starts", "8", "--no-report", "--explain"]
    out = tmp_path / "jacobians.h5"
    assert cli.main(["jacobians", *LQR, *given, *compare, "--output", str(out)]) == 0
    assert not load(out).rows("horizon", quantity="measured doubling of the variance").empty
    assert "measured: " in capsys.readouterr().out.replace("\n", " ")


def test_the_finding_stands_on_the_first_screen(browser, tmp_path):
    run = compared()
    found = jacobian_page.page(run)
    check_first_screen(browser, found, tmp_path)
    effects = run.rows("entry", quantity="effect").sort_values("value").iloc[-1]
    assert f"{effects['output']} by {effects['input']}" in found.screen.headline
    alone = jacobian_page.page(compared(model=False))
    check_first_screen(browser, alone, tmp_path)
    assert alone.screen.figure == "entries-size"
