"""Files of one's own: as they are written, and with a mistake in them.

Differentiable maps that are no simulators, with derivatives that are theirs and that are not.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import gradlab
from gradlab.cli.arguments import named_model
from gradlab.cli.program import main
from gradlab.systems.function import from_function
from gradlab.tasks.task import OTHER_BOUNDS
from gradlab.tools.check.compute import checked
from gradlab.user_code import load_made

TEMPLATES = Path(__file__).parents[2] / "examples" / "templates"


def written(kind, folder):
    """A copy of a template, to be changed."""
    return Path(shutil.copy(TEMPLATES / f"{kind}.py", folder))


def states(file, name=""):
    """What is missing, by what it is about."""
    findings, _ = checked(str(file), name)
    found: dict[str, str] = {}
    for each in findings:
        if each.decision == "fail":
            found[each.subject] = f"{found.get(each.subject, '')} {each.said}"
    return found


@pytest.mark.parametrize("kind", ["env", "model", "worldmodel"])
def test_a_template_is_short_and_lacks_nothing(kind):
    file = TEMPLATES / f"{kind}.py"
    assert len(file.read_text().splitlines()) <= 40
    assert main(["check", str(file)]) == 0


def test_a_model_of_ones_own_is_a_model_of_the_task(tmp_path):
    env, model = written("env", tmp_path), written("model", tmp_path)
    task = load_made(f"{env}:make_task")
    system = named_model(f"{model}:step", task)
    state, action = torch.zeros(3, 2).double(), torch.ones(3, 1).double()
    assert system.linearize(state, action).B.shape == (3, 2, 1)


MISTAKES = {
    # what is replaced in env.py, by what, and what is missing then
    "mixes rows": (
        "return self.state, -(position**2)", "return self.state, -((position**2).mean())",
        "make_task", "mixes the rows",
    ),
    "no task": ("def make_task", "def build", "{file}", "Nothing to look at"),
    "fails": ("import gradlab\n", "import gradlab\n\nENV = 1 / 0\n", "", "ZeroDivisionError"),
    "not finite": (
        "return gradlab.Task(",
        "starts = lambda n, generator: torch.full((n, 2), 1e200, dtype=torch.float64)\n"
        "    return gradlab.Task(", "make_task.simulator", "is infinite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake, tmp_path, capsys):
    old, new, about, words = MISTAKES[mistake]
    file = written("env", tmp_path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    if not about:
        assert main(["check", str(file)]) == 2
        return
    missing = states(file)
    assert words in missing[about.format(file=file)]
    capsys.readouterr()
    assert main(["check", str(file)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert all(
        said.count(f"{name}: {' '.join(text.split())}") <= 1 for name, text in missing.items()
    )


def test_a_step_that_is_not_finite_is_named_with_its_state_and_action(tmp_path):
    file = tmp_path / "lost.py"
    file.write_text(
        "import torch, gradlab\n"
        "def step(s, a):\n"
        "    return s + a, s[:, 0] + (20 - s[:, 0]).sqrt()\n"
        "starts = lambda n: torch.arange(n)[:, None] + torch.tensor([[4.0, 0.5]]).double()\n"
        "def make_task():\n"
        "    system = gradlab.systems.from_function(step, state_dim=2, action_dim=2)\n"
        "    return gradlab.Task('lost', system, None, starts, discount=0.9, horizon=5)\n"
    )
    assert "make_task.simulator" not in states(file)
    file.write_text(file.read_text().replace("(20", "(8"))
    text = states(file)["make_task.simulator"]
    number = r"-?[\d.e-]+"
    at = rf"Its next reward is NaN at state \(9, 5.5\) and action \({number}, {number}\)\. "
    assert re.fullmatch(at + re.escape(OTHER_BOUNDS), text.strip())


@pytest.mark.parametrize(("lacks", "words"), [("q", "value(latent)"), ("reward", "reward(latent")])
def test_a_world_model_without_a_head(lacks, words, tmp_path):
    file = written("worldmodel", tmp_path)
    text = file.read_text().partition("def made")[0]
    file.write_text(
        text.replace(f"def {lacks}(", "def other(") + "make_world = lambda: WorldModel()\n"
    )
    assert words in states(file, "make_world")["make_world"]


NAMELESS = """
import torch, gradlab
from gradlab.tasks import pendulum
def own_task():
    return pendulum()
def build():
    return pendulum()
ready = pendulum()
def policy():
    return torch.nn.Linear(2, 1)
def train():
    raise SystemExit
"""


@pytest.mark.parametrize(
    "words",
    [
        ["measure", "{}", "--starts", "8"], ["certify", "{}:"], ["train", "svg", "{}"],
        ["measure", "pendulum", "--policy={}"], ["step", "a", "b", "--env", "{}"],
    ],
)  # fmt: skip
def test_a_file_without_a_name_is_refused_with_the_names_that_it_has(words, tmp_path, capsys):
    file = tmp_path / "nameless.py"
    file.write_text(NAMELESS)
    assert main([word.format(file) for word in words]) == 2
    said = "and has own_task, build, ready, policy, train: gradlab check"
    assert said in capsys.readouterr().err


def test_check_finds_tasks_by_name_and_says_which_functions_it_did_not_call(tmp_path):
    file = tmp_path / "nameless.py"
    file.write_text(NAMELESS)
    lines, command = checked(str(file))
    assert command == f"gradlab measure {file}:own_task"
    assert {"own_task", "ready"} <= {each.subject for each in lines}
    file.write_text(NAMELESS.replace("own_task", "_own").replace("ready", "_ready"))
    lines, _ = checked(str(file))
    assert f"gradlab check {file}:build or " in lines[0].said


def test_networks_of_other_widths_are_neither(tmp_path):
    file = written("env", tmp_path)
    file.write_text(
        file.read_text() + "\n\nmake_policy = lambda: torch.nn.Linear(2, 1)\n"
        "make_critic = lambda: torch.nn.Bilinear(2, 1, 1)\nwide = torch.nn.Linear(3, 1)\n"
    )
    lines, command = checked(str(file))
    found = {each.subject: each.said for each in lines}
    assert found["make_policy"] == "A policy of the task."
    assert "Neither policy nor critic" in found["wide"]
    assert "expected (8,)" in found["make_critic"]  # [8, 1]
    assert command.endswith(f"--policy {file}:make_policy")


Q = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)


def solved(x, steps=200, through=None):
    """argmin_y ½ yᵀ Q y − xᵀ y by descent, differentiated through the last `through` steps."""
    y = torch.zeros_like(x)
    for k in range(steps):
        y = y - 0.4 * (y @ Q - x)
        if through is not None and k == steps - 1 - through:
            y = y.detach()
    return y


def shaded(x):
    """A renderer of one soft edge."""
    pixels = torch.linspace(-1, 1, 5, dtype=torch.float64)
    return torch.sigmoid((pixels - x[:, :1]) * (4 + x[:, 1:] ** 2))


def inputs(n=64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def certified(function):
    """x → y as the step of a system whose action is x and whose next state is y."""
    x = inputs()
    m = function(x).shape[1]
    layer = from_function(lambda s, a: (function(a), 0 * a[:, 0]), m, 2)
    return gradlab.certify(layer, torch.zeros(len(x), m), x)


@pytest.mark.parametrize("function", [solved, shaded])
def test_sound_maps_are_sound(function):
    certificate = certified(function)
    assert certificate.shown, certificate


class Outside(torch.autograd.Function):
    """Q⁻¹ x by NumPy, as layers of convex solvers are: no batches of cotangents pass through it."""

    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return torch.from_numpy(np.linalg.solve(Q.numpy(), x.detach().numpy().T).T.copy())

    @staticmethod
    def backward(ctx, g):
        return ctx.share * torch.from_numpy(
            np.linalg.solve(Q.numpy().T, g.numpy().T).T.copy()
        ), None


@pytest.mark.parametrize(("share", "sound"), [(1.0, True), (0.99, False)])
def test_a_solver_outside_of_torch_is_certified(share, sound):
    certificate = certified(lambda x: Outside.apply(x, share))
    assert certificate.passed == sound, certificate


def test_a_gradient_through_the_last_step_of_a_solver_is_no_derivative():
    certificate = certified(lambda x: solved(x, through=1))
    assert not certificate.passed
    # ∂y/∂x of one step is .4 I, of the solution Q⁻¹ = [[.52, −.16], [−.16, 1.05]].
    assert certificate.wrong == "∂s′/∂a"
