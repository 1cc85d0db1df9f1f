"""What the pages show can be copied: commands parse, names exist, first examples run.

Scripts of `examples/` that are tried on systems with a closed form, and the one that the first page
shows. The notebook runs as it is committed, and is committed with its outputs. What a newcomer who
watches another library's training needs stands on its page.
"""

import ast
import copy
import importlib
import importlib.util
import json
import pkgutil
import re
import shlex
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from sphinx.errors import ExtensionError

import gradlab
from analyses.harness.running import example
from docs.pages import commands as command_pages
from docs.pages import findings, formulas, offline
from gradlab import tasks
from gradlab.cli import program
from gradlab.gradients.setting import Setting, as_starts
from gradlab.systems import from_function
from gradlab.tasks.task import OTHER_BOUNDS
from gradlab.truth.returns import Rollouts
from tests.measurement import test_following
from tests.pages import blocks

API = (blocks.ROOT / "docs/reference/api.md").read_text()


def test_every_command_of_the_pages_parses():
    for page, line in blocks.commands():
        words = shlex.split(line, comments=True)[1:]
        try:
            program.parsed(words)
        except Exception as error:
            pytest.fail(f"{page}: {line}: {error}")


def test_commands_in_sentences_and_their_options_exist():
    names, pages = set(command_pages.names()), [*blocks.PAGES, *blocks.ROOT.glob("examples/*.md")]
    found = 0
    for page in pages:
        for line in re.findall(r"`(gradlab [a-z][^`]*)`", page.read_text().replace("\n", " ")):
            _, name, *words = line.split()
            assert name in names, f"{page}: {line}"
            options = {word for word in words if word.startswith("--")}
            missing = [each for each in options if each not in command_pages.help_of(name)]
            assert not missing, f"{page}: {line}"
            found += 1
    assert found > 50


@pytest.mark.parametrize(("page", "block"), blocks.python_blocks().items())
def test_names_of_the_package_in_python_blocks_exist(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gradlab"):
            module = importlib.import_module(node.module)
            for name in node.names:  # of the module, or a module in it that nobody has imported yet
                inside = f"{node.module}.{name.name}"
                assert hasattr(module, name.name) or importlib.util.find_spec(inside), inside
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node)).startswith("gradlab."):
            value = gradlab
            for name in dotted.split(".")[1:]:
                value = getattr(value, name)


@pytest.mark.parametrize("page", blocks.PAGES, ids=lambda page: page.stem)
def test_what_a_sentence_calls_can_be_called(page):
    for name in set(re.findall(r"(?<![\w.])(gradlab(?:\.\w+)+)\(", page.read_text())):
        assert callable(pkgutil.resolve_name(name)), name


def test_actions_with_other_bounds_are_mapped_as_the_page_says():
    file, _, anchor = OTHER_BOUNDS.split(": ")[1].rstrip(".").partition("#")
    page = (blocks.ROOT / file).read_text()
    title = next(
        x for x in re.findall(r"^#+ (.*)$", page, re.M) if x.lower().replace(" ", "-") == anchor
    )
    block = blocks.PYTHON.findall(page.split(title, 1)[1])[0]
    for text, lost in ((block, False), (block.replace("u.clamp(-1, 1)", "u"), True)):
        names: dict[str, object] = {}
        exec(compile(text, "own_task.md", "exec"), names)
        certificate = gradlab.certify(names["make_task"](), samples=128)
        assert certificate.shown and (certificate.facts["not finite"] > 0) == lost
    # A root of an action has an infinite slope at 0, and none a little above.
    root = block.replace("distancing**1.5", "distancing**0.5")
    for text, sound in ((root, False), (root.replace("clamp(-1,", "clamp(-0.999,"), True)):
        exec(compile(text, "own_task.md", "exec"), names := {})
        assert gradlab.certify(names["make_task"](), samples=128).passed == sound


def test_derivatives_by_hand_are_certified_and_a_wrong_one_is_named():
    page = (blocks.ROOT / "docs/own_task.md").read_text()
    block = blocks.PYTHON.findall(page.split("### Derivatives by hand", 1)[1])[0]
    for text, sound in ((block, True), (block.replace("0.06 *", "0.02 *"), False)):
        exec(compile(text, "own_task.md", "exec"), names := {})
        certificate = gradlab.certify(names["make_task"](), samples=64)
        assert certificate.passed == sound
        assert any(each.code == "wrong" for each in certificate.findings) != sound


def test_the_return_of_the_page_on_training_is_that_of_a_measurement():
    exec(blocks.python_blocks()["docs/training.md:1"], names := {})
    task = gradlab.tasks.linear_quadratic(noise_covariance=torch.zeros(2, 2))
    policy = torch.nn.Linear(2, 1).double()
    starts = as_starts(task.starts(64, torch.Generator().manual_seed(1)), 2)
    ends = replace(task, simulator=from_function(
        lambda s, a: [*task.simulator.step(s, a, torch.zeros(len(s), 2).double())][:2], 2, 1,
        alive=lambda s: s[:, 0].abs() < 1,
    ))  # fmt: skip
    for mask in (True, False):
        found = names["returns"](ends, policy, 30, mask, 64)
        going = "mask" if mask else "ignore"
        own = Setting(ends.simulator, policy, starts, task.discount, 30, termination=going)
        torch.testing.assert_close(found, Rollouts(own, [(starts, [])]).until(30)[0][0])


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_the_task_of_the_first_page_is_measured_and_its_file_read_by_xarray_alone(
    tmp_path, monkeypatch
):
    page = (blocks.ROOT / "docs/start.md").read_text()
    names: dict[str, object] = {}
    exec(compile(blocks.PYTHON.findall(page)[1], "start.md", "exec"), names)
    policy = torch.nn.Linear(2, 1, bias=False).double()
    policy.weight.data[:] = torch.tensor([[-1.0, -1.5]])
    profile = gradlab.measure(
        names["task"], policy, _no_value, horizon=2, starts=16, judges=8, law="start"
    )
    reader: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    profile.save("path.h5")
    exec(blocks.python_blocks()["docs/files.md:0"], reader)
    value = reader["tree"]["profile"]["value"]
    assert value.dims == ("estimator", "quantity", "horizon") and "units" in value.attrs
    np.testing.assert_array_equal(value, profile.columns["value"])
    assert set(profile.table()["estimator"]) >= {"model", "mixed", "true_dynamics"}


def test_the_gradient_of_the_page_on_gradients_has_a_row_for_each_start():
    names: dict[str, object] = {}
    exec(blocks.python_blocks()["docs/which_gradient.md:0"], names)
    assert names["gradients"].shape == (64, 14)


def test_the_loop_of_the_page_on_training_follows_the_advised_gradient(tmp_path, monkeypatch):
    """Its policy is that of as many steps of Adam along the mean gradient of an Estimator."""
    task = test_following.linear()
    (tmp_path / "runs").mkdir()
    policy, critic, path = test_following.stored(task, tmp_path / "runs")
    mine, told = copy.deepcopy(policy), gradlab.load(path).recommendation
    measured = copy.deepcopy(policy)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(blocks.python_blocks()["docs/training.md:0"], vars := locals().copy())
    assert str(vars["advice"]) == str(told)
    estimator = test_following.estimator_of(task, told.follow.identity, 2, critic)
    optimizer = torch.optim.Adam(mine.parameters(), told.rate)
    torch.manual_seed(0)
    for _ in range(5):
        states, seed = told.states(256, policy=measured), int(torch.randint(2**31, ()))
        ascent = estimator.mean_gradient(mine, states, seed)
        torch.nn.utils.vector_to_parameters(
            -ascent, grads := [*map(torch.empty_like, mine.parameters())]
        )
        for parameter, grad in zip(mine.parameters(), grads, strict=True):
            parameter.grad = grad
        optimizer.step()
    found, expected = (
        torch.nn.utils.parameters_to_vector(each.parameters()) for each in (policy, mine)
    )
    assert (found - expected).norm() < 1e-9 * expected.norm()


def test_the_backward_pass_of_the_page_on_mujoco_is_that_of_its_step():
    names: dict[str, object] = {}
    exec(blocks.python_blocks()["docs/mujoco.md:2"], names)
    state = torch.tensor([[0.1, 1.0], [-0.8, 2.0], [0.5, 0.1]]).double()
    action = torch.tensor([[0.5], [-0.2], [0.9]]).double()
    inputs = state.requires_grad_(), action.requires_grad_()
    assert torch.autograd.gradcheck(names["step"], inputs, eps=1e-5, atol=1e-6)
    simulator = names["task"]().simulator
    assert simulator.step(state, action).state.shape == (3, 2)
    placed = torch.tensor([[0.4, 0.0], [-0.6, 0.0], [-0.8, 0.0]]).double()
    assert simulator.contacts(placed).tolist() == [True, False, False]
    assert simulator.beyond_limits(placed).tolist() == [False, False, True]


def _no_value(state, action):
    return 0.0 * action.sum(1)


def test_every_public_name_is_in_the_reference():
    modules = {"figures", "systems", "tasks", "training"}
    missing = [name for name in gradlab.__all__ if f"gradlab.{name}" not in API]
    assert not missing and modules < set(gradlab.__all__)
    assert [name for name in gradlab.tasks.TASKS if "-" not in name and name not in API] == []


def test_a_page_that_loads_from_elsewhere_is_named(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="https://a.org">a</a><script src="https://cdn.org/x.js"></script><img src="b.png">'
    )
    (tmp_path / "a.css").write_text("@font-face { src: url(//fonts.org/x.woff) }")
    assert set(offline.requested(tmp_path)) == {"https://cdn.org/x.js", "//fonts.org/x.woff"}


def test_a_formula_is_mathml_and_a_command_that_is_not_known_is_named():
    assert "<msup>" in formulas.drawn("x^2", block=False)
    assert "\N{PRIME}" in formulas.drawn("N'", block=False)
    with pytest.raises(ExtensionError, match="nosuch"):
        formulas.drawn(r"\nosuch", block=True)


def test_every_finding_has_one_number_a_figure_and_a_report(tmp_path):
    findings.write(tmp_path)
    page = (tmp_path / "findings.md").read_text()
    cards = page.split("\n## ")[1:]
    assert len(cards) == 12
    for card in cards:
        assert re.search(r"\*\*−?[\d.,]+\s\[−?[\d.,]+,\s−?[\d.,]+\]%?\*\*", card), card
        for link in re.findall(r"\]\(([^)]+)\)", card):
            assert (blocks.ROOT / "docs/generated" / link).resolve().exists(), link
    assert "1 of 148, **0.676 [0.0171, 3.71]%**" in page.replace("\N{NO-BREAK SPACE}", " ")


A, B, GAMMA = 0.95, 0.4, 0.9


@pytest.fixture(scope="module")
def planning():
    return example("planning_in_a_model")


def test_the_dinghys_sail_is_empty_near_the_wind_and_its_model_does_not_know():
    task = example("dinghy").make_task()
    state = torch.tensor([[0.0, 0.5, 1.0, 0.0], [0.0, 0.9, 1.0, 0.0]], dtype=torch.float64)
    real, believed = (
        system.step(state, torch.zeros(2, 1, dtype=torch.float64)).state[:, 2]
        for system in (task.simulator, task.prior)
    )
    assert real[0] == 1 - 0.2 * (0.6 + 0.2) and believed[0] > real[0] + 0.1
    assert real[1] == believed[1] > 1


def optimal(start, horizon):
    """The best return of `horizon` actions of s' = A s + B a, paid −s² − .1 a² a step: the least
    squares of their quadratic."""
    powers = A ** np.arange(horizon)
    reach = np.array([[B * A ** (t - 1 - k) if k < t else 0.0 for k in range(horizon)]
                      for t in range(horizon)])  # fmt: skip
    weight = np.diag(GAMMA ** np.arange(horizon))
    H = reach.T @ weight @ reach + 0.1 * weight
    actions = -np.linalg.solve(H, reach.T @ weight @ (powers * start))
    states = powers * start + reach @ actions
    return float(-(states @ weight @ states) - 0.1 * actions @ weight @ actions)


@pytest.mark.parametrize(
    ("name", "rollouts", "close"), [("gradient", 900, 0.01), ("cem", 4000, 0.05)]
)
def test_planners_of_the_example_find_the_best_plan_and_a_wrong_model_gains_nothing(
    planning, name, rollouts, close
):
    def line(state, action):
        return A * state + B * action, -(state[:, 0] ** 2) - 0.1 * action[:, 0] ** 2

    def task(model):
        return gradlab.Task(
            "line", from_function(line, 1, 1), from_function(model, 1, 1),
            lambda n, generator: 2 + torch.rand(n, 1, generator=generator, dtype=torch.float64),
            GAMMA, 6, exploration=(0.2,),
        )  # fmt: skip

    policy, critic = torch.zeros_like, lambda state, action: torch.zeros(len(state))
    right, start = task(line), torch.full((4, 1), 2.5, dtype=torch.float64)
    score = planning.partial(planning.scores, right, policy, critic, start)
    within = planning.partial(planning.within, right)
    first = torch.zeros(4, 6, 1, dtype=torch.float64)
    spread = torch.ones(1, dtype=torch.float64)
    plan = planning.PLANNERS[name](score, within, first, spread, rollouts)
    np.testing.assert_allclose(score(plan[:, None])[:, 0].numpy(), optimal(2.5, 6), rtol=close)
    turned = task(lambda state, action: line(state, -action))
    for own, low, high in ((right, 0.1, np.inf), (turned, -np.inf, -0.1)):
        found = list(planning.compared(own, policy, critic, (3,), starts=8, rollouts=400))
        (gain,) = (row[2] for row in found if row[0] == name)
        (promised,) = (row[4] for row in found if row[0] == name)
        assert low < gain < high and promised > 0.1


NOTEBOOKS = sorted((blocks.ROOT / "docs/notebooks").glob("*.ipynb"))


def cells_of(path):
    """Code, without what installs."""
    cells = [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]
    return [each for each in cells if not "".join(each["source"]).startswith("%pip")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, object] = {}
    for number, cell in enumerate(cells_of(path)):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert list(tmp_path.glob("*.h5"))


def test_outputs_are_committed_and_no_cell_failed():
    assert len(NOTEBOOKS) == 1
    for path in NOTEBOOKS:
        outputs = [output for cell in cells_of(path) for output in cell["outputs"]]
        kinds = {output["output_type"] for output in outputs}
        assert "display_data" in kinds and "error" not in kinds
        assert "/tmp" not in json.dumps(outputs) and "/home" not in json.dumps(outputs)


PAGE = (blocks.ROOT / "docs/watch.md").read_text()
PROBES = {
    "ProbeCallback": "gradlab.integrations.stable_baselines3",
    "ProbeHook": "gradlab.integrations.torchrl",
}


@pytest.mark.parametrize(("name", "module"), PROBES.items())
def test_import_lines_stand_where_the_class_is_used(name, module):
    line = f"from {module} import {name}"
    assert line in PAGE and f".. autoclass:: {module}.{name}\n" in API
    assert importlib.util.find_spec(module) is not None


def test_every_task_of_the_table_has_the_width_of_its_environment():
    widths = {"Pendulum-v1": 3, "InvertedPendulum-v5": 4, "Hopper-v5": 11, "Ant-v5": 27}
    rows = dict(re.findall(r"^\| `([\w-]+)`.*?\| (`gradlab\.tasks.*?`)", PAGE, re.M))
    for name, width in widths.items():
        made = eval(rows[name].strip("`"), {"gradlab": type("gradlab", (), {"tasks": tasks})})
        assert made.simulator.state_dim == width, name
