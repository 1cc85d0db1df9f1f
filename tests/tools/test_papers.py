"""Figures of the papers from runs, and their tables made again."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from gradlab.cli import main
from gradlab.cli.train import Train
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.figures.training import returns
from gradlab.fitting.collection import collect
from gradlab.fitting.fitted import fit_model, save
from gradlab.fitting.losses import outputs, split
from gradlab.fitting.model_settings import ModelSettings
from gradlab.measurement.measure import measure
from gradlab.runs.training.results import GOALS, load, loaded, table
from gradlab.storage import records
from gradlab.tasks import TASKS
from gradlab.tools.papers import reproduction
from gradlab.tools.papers.figures import TABLES, chosen, convergence
from gradlab.tools.papers.published import ITEMS, Item, ItemPart, find, narrowed
from gradlab.training.algorithms import ALGORITHMS
from tests.figures.drawn import drawn

# Frozen runs of reports/, their updates in 40 means.
RUNS = Path(__file__).parent / "runs"
PAIR = [RUNS / f"{row}-path_tracking.h5" for row in ("sac", "n-step-dpg")]
PARTS = [part for items in ITEMS.values() for item in items.values() for part in item.parts]


def first_at(path: Path, goal: float) -> list[float]:
    """Iteration of the first evaluation at the goal, from the file itself, a loop written out."""
    with h5py.File(path) as file:
        iterations = file["evaluations/iteration"][:]
        means = file["evaluations/return_mean"][:]
    found = []
    for seed in range(means.shape[1]):
        met = [i for i, value in zip(iterations, means[:, seed], strict=True) if value >= goal]
        found.append(float(met[0]) if met else np.nan)
    return found


def test_convergence_has_a_point_for_each_seed_and_goal() -> None:
    runs = loaded(PAIR)
    figure = convergence(runs).figure
    shown = drawn(figure)
    longest = max(int(run.iteration[-1]) for run in runs.values())
    for path, name in zip(PAIR, runs, strict=True):
        for goal in GOALS["path_tracking"]:
            first = first_at(path, goal)
            want = sorted(x for x in first if np.isfinite(x))
            place = GOALS["path_tracking"].index(goal)
            points = shown[(shown["series"] == name) & ((shown["x"] - place).abs() < 0.45)]
            got = sorted(points.loc[points["y"] <= longest, "y"].unique())
            assert set(want) <= set(got), (name, goal)
            lost = points[points["y"] > longest]
            assert len(lost) == len(first) - len(want)


def test_a_figure_is_a_panel_of_the_runs_page(tmp_path: Path) -> None:
    target = tmp_path / "returns.pdf"
    assert main(["figure", "returns-time", str(PAIR[0]), "--output", str(target)]) == 0
    assert target.read_bytes()[:4] == b"%PDF"
    shown = pd.read_csv(target.with_suffix(".csv"))
    alone = drawn(returns(table({"sac": load(PAIR[0])}), over="seconds").figure)
    seeds = shown[(shown["quantity"] == "return") & (shown["seed"] != "all")]
    assert set(alone[alone["kind"] == "line"]["y"]) >= set(seeds["value"])


def test_gradients_by_horizon_are_the_columns_of_the_run() -> None:
    path = RUNS / "maac-pendulum.h5"
    shown = drawn(chosen("gradient-horizons", [path]).figure)
    with h5py.File(path) as file:
        iterations = file["gradients/iteration"][:]
        for title, quantity in (("Variance", "variance"), ("Squared bias", "bias2")):
            here = shown[shown["axes"].str.startswith(title) & (shown["kind"] == "line")]
            for k in (0, 2, 4):
                line = here[here["series"].str.endswith(f", {iterations[k]:,} iterations")]
                seeds = file[f"gradients/{quantity}"][k]
                want = seeds.mean(axis=0)
                np.testing.assert_allclose(line["y"], want[want > 0])
            band = shown[shown["axes"].str.startswith(title) & (shown["kind"] == "band")]
            high = want + 2.7764 * seeds.std(axis=0, ddof=1) / len(seeds) ** 0.5  # of the last
            np.testing.assert_allclose(band.groupby("x")["high"].max(), high, rtol=1e-4)


DDPPO, MAAC = (RUNS / f"{name}-pendulum.h5" for name in ("ddppo", "maac"))


def lines(name: str, paths: list[Path]) -> pd.DataFrame:
    """The curves that a figure draws."""
    shown = drawn(chosen(name, paths).figure)
    return shown[shown["kind"] == "line"]


def planted(source: Path, target: Path, **loss: float) -> Path:
    """The same run, as if its model had been fitted with other numbers of the loss."""
    record = records.read(source)
    config = json.loads(str(record.attributes["config"]))
    config["algorithm"]["model"]["loss"] |= loss
    attributes = record.attributes | {"config": json.dumps(config)}
    records.write(target, replace(record, attributes=attributes))
    return target


def test_learning_curves_are_means_over_transitions_with_deviations() -> None:
    shown = drawn(chosen("learning-curves", [DDPPO, MAAC]).figure)
    for path in (DDPPO, MAAC):
        with h5py.File(path) as file:
            x, returns = (file[f"evaluations/{c}"][:] for c in ("transitions", "return_mean"))
        own = shown[shown["series"] == path.stem]
        line, band = own[own["kind"] == "line"], own[own["kind"] == "band"]
        np.testing.assert_allclose(line["x"], x)
        np.testing.assert_allclose(line["y"], [np.mean(row) for row in returns])
        high = band.groupby("x")["high"].max()
        want = {x[k]: np.mean(row) + np.std(row, ddof=1) for k, row in enumerate(returns)}
        assert all(high[at] >= value - 1e-9 for at, value in want.items())
        assert high[x[5]] == pytest.approx(want[x[5]])


def test_returns_by_horizon_have_an_axes_for_each() -> None:
    ten = RUNS / "ddppo-h10-pendulum.h5"
    shown = lines("return-horizons", [DDPPO, ten, MAAC])
    assert {axes: set(own["series"]) for axes, own in shown.groupby("axes")} == {
        "h = 3": {DDPPO.stem, MAAC.stem}, "h = 10": {ten.stem},
    }  # fmt: skip


def test_settings_of_the_loss_are_compared_one_at_a_time(tmp_path: Path) -> None:
    many = planted(DDPPO, tmp_path / "many.h5", neighbours=40)
    heavy = planted(DDPPO, tmp_path / "heavy.h5", weight=7.0)
    none = RUNS / "ddppo-no-gradient-loss-pendulum.h5"
    shown = lines("loss-settings", [DDPPO, many, heavy, none])
    assert {axes: set(own["series"]) for axes, own in shown.groupby("axes")} == {
        "neighbours n": {"n = 10", "n = 40"}, "weight w": {"w = 1", "w = 7"},
        "variants": {DDPPO.stem, none.stem},
    }  # fmt: skip


def test_errors_of_both_models_are_what_they_leave_unexplained() -> None:
    shown = lines("model-errors", [DDPPO])
    with h5py.File(DDPPO) as file:
        for role in ("prediction", "gradient"):
            line = shown[shown["series"].str.startswith(role)]
            want = 1 - file[f"model/{role}_explained"][:].mean(axis=(1, 2))
            np.testing.assert_allclose(line["y"], want)
            np.testing.assert_allclose(line["x"], file["model/rows"][:])


def test_error_over_the_horizon_is_that_of_the_model_and_of_the_simulator() -> None:
    shown = lines("error-horizon", [MAAC]).groupby("series")
    with h5py.File(MAAC) as file:
        last = {name: values[-1] for name, values in file["gradients"].items()}
    truth = last["truth2"].mean(axis=0)
    model = shown.get_group("learned model")["y"]
    np.testing.assert_allclose(model, np.sqrt(last["bias2"].mean(axis=0) / truth))
    # At h = 0 there is no model; beyond, |S − T| lies between |G − T| ∓ |G − S|.
    true = shown.get_group("true dynamics")["y"].to_numpy()
    assert true[0] == pytest.approx(model.iloc[0])
    apart = np.sqrt(last["dynamics_bias2"].mean(axis=0)[1:] / truth[1:])
    assert (np.abs(true[1:] - model.to_numpy()[1:]) <= apart).all()
    # A ratio's end is where the mean of bias2 − ratio · truth2 is Student's quantile off zero.
    every = drawn(chosen("error-horizon", [MAAC]).figure)
    band = every[(every["kind"] == "band") & (every["series"] == "learned model")]
    for end, side in (("low", 1), ("high", -1)):
        left = last["bias2"] - band[end].to_numpy() ** 2 * last["truth2"]
        t = left.mean(axis=0) / (left.std(axis=0, ddof=1) / len(left) ** 0.5)
        np.testing.assert_allclose(t, side * 2.77645, rtol=1e-4)
    # The tail's part b·(S − T) is the rest of |b|²: |S − T|² = |G − S|² − |b|² + 2 b·(S − T).
    tail = (last["dynamics_bias2"] - last["bias2"] + 2 * last["bias2_tail"]).mean(axis=0)
    np.testing.assert_allclose(true[1:] ** 2, tail[1:] / truth[1:], rtol=1e-6)


def test_errors_over_a_fit_are_those_of_its_jacobians(tmp_path: Path) -> None:
    """The last epoch's curve against autograd through the network as it was then."""
    task = TASKS["pendulum"]()
    data, then = collect(task, 200, seed=1), []
    settings = ModelSettings(members=2, hidden=(8,), epochs=3, batch=64)
    fit = fit_model(
        data, settings, simulator=task.simulator,
        after_epoch=lambda _, ensemble: then.append(copy.deepcopy(ensemble)),
    )  # fmt: skip
    paths = [tmp_path / "with.h5", tmp_path / "without.h5"]
    save(fit, paths[0], {"task": "pendulum"})
    save(fit_model(data, settings), paths[1], {"task": "pendulum"})
    _, held_out = split(data, settings.held_out, settings.seed)
    linear = task.simulator.linearize(data.state[held_out].double(), data.action[held_out].double())
    change = linear.A - torch.eye(linear.A.shape[1]).double()
    rows = [torch.cat([change, linear.B], 2), torch.cat([linear.r_s, linear.r_a], 1)[:, None]]
    true, net = torch.cat(rows, 1), then[-1].double()
    inputs = torch.cat([data.state, data.action], 1)[held_out].double()
    wanted = []
    for k in range(2):
        scaled = (inputs - net.input_mean[k]) / net.input_std[k]

        def member(x: torch.Tensor, k: int = k) -> torch.Tensor:
            return outputs(net, x.expand(2, 1, -1))[0][k, 0]

        J = torch.stack([torch.func.jacrev(member)(x) for x in scaled])
        true_scaled = true * net.input_std[k] / net.target_std[k].reshape(-1, 1)
        wanted.append((J.detach() - true_scaled).square().mean().item())
    with h5py.File(paths[0]) as file:
        curve = file["curves/jacobian_error"][:]
    np.testing.assert_allclose(curve[-1], wanted, rtol=1e-4)
    line = lines("fit-errors", paths[:1])
    own = line[line["series"] == "nll, Jacobians"]["y"]
    np.testing.assert_allclose(own, curve.mean(axis=1))
    with pytest.raises(InputError, match="these runs have no figure"):
        chosen("fit-errors", paths)


def test_a_loss_surface_is_the_models_value_around_the_policy(tmp_path: Path) -> None:
    """A plane where the policy and its critic are linear; at its centre a roll-out by hand."""
    task = TASKS["double_integrator"]()
    model = task.prior or task.simulator
    width, actions = model.state_dim, model.action_dim
    policy = torch.nn.Linear(width, actions).double()
    starts = torch.randn(40, width, generator=torch.Generator().manual_seed(3)).double()

    def critic(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return 3.0 * action.sum(dim=1)

    found = measure(
        task, policy, critic, horizon=2, starts=starts, rehearse=False, surface=(2, 0, 2)
    )  # fmt: skip
    path = tmp_path / "run.h5"
    found.save(path)
    with h5py.File(path) as file:
        loss, unrolled = file["surface/loss"][:], file["surface/unrolled"][:]
    assert unrolled.tolist() == [0, 2] and loss.shape == (2, 21, 21)
    for axis in (0, 1):
        assert np.abs(np.diff(loss[0], 2, axis=axis)).max() < 1e-9
    assert np.ptp(loss[0]) > 0.1
    state, total = starts[:32], torch.zeros(32).double()
    with torch.no_grad():
        for t in range(2):
            noise = model.sample_noise(40, stream(0, "dynamics", t), torch.float64)[:32]
            out = model.step(state, policy(state), noise)
            total, state = total + task.discount**t * out.reward, out.state
        total += task.discount**2 * critic(state, policy(state))
    assert loss[1, 10, 10] == pytest.approx(-float(total.mean()), rel=1e-9)
    shown = drawn(chosen("loss-surface", [path]).figure)
    cells = shown[(shown["kind"] == "cell") & (shown["axes"] == "h = 2")]
    corner = cells[(cells["x"] > 0.99) & (cells["y"] < -0.99)]["value"]
    assert corner.item() == pytest.approx(loss[1, 20, 0])


@pytest.mark.parametrize(
    ("name", "paths", "output", "words"),
    [
        ("return", PAIR[:1], "a.png", ("name is 'return'", "returns, ", "convergence")),
        ("gradient-parts", PAIR[:1], "a.png", ("gradient-parts", "these runs have returns")),
        ("gradient-horizons", PAIR, "a.png", ("gradient-horizons", "these runs have")),
        ("table-planning", [DDPPO], "a.md", ("table-planning", "--plan-horizon")),
        ("table-times", [], "a.md", ("runs are missing",)),
        ("model-errors", [MAAC], "a.png", ("model-errors", "these runs have")),
        ("error-horizon", PAIR, "a.png", ("error-horizon", "these runs have")),
        ("return-horizons", [DDPPO, MAAC], "a.png", ("return-horizons", "see docs/papers.md")),
        ("loss-settings", PAIR, "a.png", ("loss-settings", "these runs have")),
        ("loss-surface", PAIR[:1], "a.png", ("loss-surface", "these runs have")),
        ("returns", PAIR[:1], "a.gif", ("output is", ".png, .pdf, .svg")),
        ("returns", [], "a.png", ("runs are missing",)),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    name: str, paths: list[Path], output: str, words: tuple[str, ...], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    target = tmp_path / output
    assert main(["figure", name, *map(str, paths), "--output", str(target)]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not target.exists()


def test_every_item_names_rows_and_tasks_that_exist() -> None:
    for part in PARTS:
        assert {part.trained(row)[0] for row in part.rows} <= set(ALGORITHMS)
        assert part.task in TASKS or part.task.endswith("-v5")
        assert (part.iterations is None) != (part.transitions is None)
        assert all(len(cells) == len(part.columns) for cells in part.printed.values())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    part = ItemPart(
        "double_integrator", ("td3",), iterations=40, columns=("return",),
        printed={"td3": ("-1.0 ± 0.5",)},
    )  # fmt: skip
    monkeypatch.setitem(ITEMS["mpg"], "table-1", Item("a table", (part,)))  # type: ignore[index]


def test_an_item_is_trained_once_and_stands_beside_the_paper(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "mpg", "table-1", "--share", "0.1", "--seeds", "2"]
    folder = ["--folder", str(tmp_path)]
    assert main([*words, "--plan", *folder]) == 0
    assert "4 iterations" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([*words, *folder]) == 0
    path = tmp_path / "td3-double_integrator.h5"
    run, written = load(path), path.stat().st_mtime_ns
    rows = pd.read_csv(tmp_path / "double_integrator-table.csv")
    assert rows["paper: return"].tolist() == ["-1.0 ± 0.5"]
    assert float(rows["median return"][0]) == pytest.approx(np.median(run.returns[-1]), rel=0.01)
    assert (tmp_path / "double_integrator-learning-curves.pdf").exists()
    assert main([*words, *folder]) == 0
    assert path.stat().st_mtime_ns == written
    capsys.readouterr()
    assert main([*words[:4], "0.2", *words[5:], *folder]) == 2
    said = capsys.readouterr().err
    assert "4 iterations and 2 seeds, expected 8 and 2" in said and "name another folder" in said


def test_a_run_measures_its_gradient_as_often_as_its_item_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self, command: asked.append(self))
    part = ItemPart("double_integrator", ("maac",), iterations=40, measured=4)
    due = reproduction.planned(Item("a figure", (part,)), tmp_path, 1, 0.5)
    reproduction.run_missing(due)
    assert asked[0].gradient_every == 5 and asked[0].iterations == 20


def test_a_row_on_policy_has_as_many_windows_as_make_the_papers_transitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = ItemPart("Hopper-v5", ("sac", "rp-dr"), transitions=1_000_000)
    due = reproduction.planned(Item("a figure", (part,)), tmp_path, 5, 1.0)
    found = {each.row: (each.iterations, each.transitions) for each in due}
    # Windows of 30 steps of eight environments.
    assert found == {"sac": (1_000_000, 1_000_000), "rp-dr": (4167, 1_000_080)}
    asked: list[Train] = []
    monkeypatch.setattr(Train, "run", lambda self, command: asked.append(self))
    reproduction.run_missing(due)
    every = {each.algorithm: each.evaluate_every for each in asked}
    assert every == {"sac": None, "rp-dr": 4167 // 20}


def rows_of(paper: str, item: str, task: str, folder: Path, **given: Any) -> dict[str, Any]:
    """The algorithms that an item trains on a task, by its rows."""
    chosen = narrowed(find(paper, item), (), (task,))
    found = {}
    for each in reproduction.planned(chosen, folder, 5, 1.0, **given):
        command = each.command
        full = command.printed(task)[0] if command.preset else command
        found[each.row] = full._row()
        assert each.transitions == pytest.approx(chosen.parts[0].transitions, rel=1e-3)
    return found


def test_an_item_has_the_settings_that_its_paper_prints_for_the_task(tmp_path: Path) -> None:
    """DDPPO's table 1 on Hopper: H = 2, n = 25, w = 50; MBPO's network, also of MAAC's rows."""
    rows = rows_of("ddppo", "figure-3", "Hopper-v5", tmp_path)
    losses = {name: row.model.loss for name, row in rows.items() if name in ("ddppo", "ddppo-n5")}
    assert {name: (loss.neighbours, loss.weight) for name, loss in losses.items()} == {
        "ddppo": (25, 50.0), "ddppo-n5": (5, 50.0),
    }  # fmt: skip
    assert rows["ddppo-w10"].model.loss.weight == 10 and rows["ddppo"].horizons == (2,)
    assert not {"ddppo-n25", "ddppo-w50"} & rows.keys()  # the preset again
    assert rows["ddppo"].model.elites == 5
    ablations = rows_of("maac", "figure-3", "Hopper-v5", tmp_path)
    assert {row.model.hidden for row in ablations.values()} == {(200,) * 4}
    assert ablations["maac-h0"].horizons == (0,) and ablations["maac"].horizons == (2,)
    assert ablations["maac"].target.horizon == 2
    mbpo = rows_of("maac", "figure-1", "Hopper-v5", tmp_path)["mbpo"]
    assert (mbpo.updates, mbpo.model.members, mbpo.model.elites) == (20, 7, 5)
    k = mbpo.source.branching
    epoch = 20 * 1000  # iterations
    assert [k.length(n * epoch) for n in (20, 85, 150)] == [1, 8, 15]
    assert mbpo.model.every == k.every == 20 * 250
    listed = rows_of("ddppo", "figure-3", "Hopper-v5", tmp_path, preset="none")
    assert listed["ddppo"] == ALGORITHMS["ddppo"]


def test_a_seed_that_is_lost_is_counted_and_the_others_are_drawn(tmp_path: Path) -> None:
    record = records.read(DDPPO)
    evaluations = record.groups["evaluations"]
    column = evaluations["return_mean"]
    values = column.values.copy()
    values[3:, 1] = np.nan
    group = {**evaluations, "return_mean": replace(column, values=values)}
    lost = tmp_path / "ddppo-pendulum.h5"
    records.write(lost, replace(record, groups={**record.groups, "evaluations": group}))
    figure = chosen("learning-curves", [lost]).figure
    shown = drawn(figure)
    line = shown[shown["kind"] == "line"]["y"]
    np.testing.assert_allclose(line, [np.mean(row[np.isfinite(row)]) for row in values])
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "1 lost at the end" in words
    cells = TABLES["table-returns"]({"ddppo": load(lost)}).iloc[0]
    last = sorted(values[-1][np.isfinite(values[-1])])
    assert float(cells["median return"]) == pytest.approx(last[1], rel=0.01)  # lost: the worst
    assert cells["every seed"].endswith(", lost") and cells["mean ± 95%"] == "–"


def test_iterations_to_a_goal_are_of_all_seeds() -> None:
    """One of TD3's five seeds never learns: the fourth of five is not the median of four."""
    path = RUNS / "td3-path_tracking.h5"
    cells = TABLES["table-returns"]({"td3": load(path)}).iloc[0]
    for goal in (-30, -10):
        first = np.sort(np.nan_to_num(first_at(path, goal), nan=np.inf))
        assert cells[f"to {goal}"] == f"{first[2]:.0f} (4 of 5)"
    with h5py.File(path) as file:
        last = file["evaluations/return_mean"][-1]
    mean, half = (float(part) for part in cells["mean ± 95%"].split(" ± "))
    assert mean == pytest.approx(last.mean(), rel=0.01)
    assert half == pytest.approx(2.776 * last.std(ddof=1) / 5**0.5, rel=0.01)


def test_tables_of_times_and_plans_are_sums_and_means_of_the_columns(tmp_path: Path) -> None:
    target = tmp_path / "times.md"
    assert main(["figure", "table-times", str(MAAC), "--output", str(target)]) == 0
    got = pd.read_csv(target.with_suffix(".csv")).iloc[0]
    with h5py.File(MAAC) as file:
        of = 1000 / file["evaluations/transitions"][-1] / 5
        at, critic, policy = (
            file[f"updates/{name}"][:] for name in ("iteration", "critic_seconds", "policy_seconds")
        )
        fits, whole = file["model/seconds"][:].sum(), file["evaluations/seconds"][-1]
        planned, gain = (
            file[f"evaluations/planned_{name}_mean"][-1] for name in ("return", "gain")
        )
    spent = {"critic": 0.0, "policy": 0.0}
    for k, last in enumerate(at):
        updates = last - (at[k - 1] if k else 0)
        spent = {"critic": spent["critic"] + updates * critic[k],
                 "policy": spent["policy"] + updates * policy[k]}  # fmt: skip
    for part, seconds in {**spent, "fits": fits, "whole": whole}.items():
        assert got[f"{part} [s]"] == pytest.approx(of * seconds, rel=0.01), part
    parts = sum(got[f"{part} [s]"] for part in ("fits", "roll-outs", "critic", "policy", "rest"))
    assert parts == pytest.approx(got["whole [s]"], rel=0.01)
    assert main(["figure", "table-planning", str(MAAC), "--output", str(target)]) == 0
    cells = pd.read_csv(target.with_suffix(".csv")).iloc[0]
    for name, values in (("with plan", planned), ("without", planned - gain), ("gain", gain)):
        assert float(cells[name].split(" ± ")[0]) == pytest.approx(values.mean(), rel=0.01), name
    assert cells["with plan"].endswith(f"± {values_std(planned)}")
    assert target.read_text().startswith("| row | task | seeds |")


def values_std(values: np.ndarray) -> str:
    """Of the seeds, as it is printed."""
    return f"{np.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1)):.2g}"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find("mgp", "table-1"), "paper is 'mgp', expected one of mpg"),
        (lambda: find("mpg", "table-2"), "item is 'table-2', expected one of table-1"),
        (lambda: find("rp-pgm", "figure-3"), "needs no run of its own: .*--surface 3 15"),
        (lambda: narrowed(find("mpg", "figure-3"), ("ppo",), ()), "rows has 'ppo'"),
        (lambda: narrowed(find("mpg", "figure-3"), (), ("walker",)), "tasks has 'walker'"),
        (
            lambda: reproduction.planned(find("mpg", "figure-3"), Path("x"), 5, 1.5),
            "share is 1.5, expected",
        ),
        (
            lambda: reproduction.planned(find("mpg", "figure-3"), Path("x"), 0, 1.0),
            "seeds is 0, expected",
        ),
    ],
)
def test_arguments_are_refused_with_what_is_expected(call: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]
