"""`pytest --gradlab-certify` in a repository that knows nothing of gradlab but its command."""

from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from gradlab.integrations import pytest_certify

ENGINE = """
import torch
import gradlab


class Leaky(torch.autograd.Function):  # forward 2 a, backward 2.2 a
    @staticmethod
    def forward(ctx, a):
        return 2 * a

    @staticmethod
    def backward(ctx, g):
        return FACTOR * g


def step(s, a):
    x, v = s.unbind(1)
    v = v + 0.05 * (Leaky.apply(a[:, 0]) - torch.sin(x))
    return torch.stack([x + 0.05 * v, v], 1), -(x**2) - 0.1 * a[:, 0] ** 2


def simulator():
    return gradlab.systems.from_function(step, state_dim=2, action_dim=1)


def number():
    return 3
"""


def ran(folder, factor, monkeypatch):
    (folder / "engine.py").write_text(ENGINE.replace("FACTOR", str(factor)))
    (folder / "test_own.py").write_text("def test_own():\n    pass\n")
    report = folder / "out.xml"
    words = ["--gradlab-certify", "engine.py:simulator", "--gradlab-samples", "64"]
    monkeypatch.chdir(folder)
    return pytest.main(["-q", "-p", "no:cacheprovider", *words, f"--junitxml={report}"]), report


def entries(report):
    """Whether each has failed, by its name."""
    cases = ElementTree.parse(report).iter("testcase")
    return {str(case.get("name")): case.find("failure") is not None for case in cases}


def test_a_wrong_block_is_a_failing_test_of_its_own(tmp_path, monkeypatch, capsys):
    code, report = ran(tmp_path, 2.2, monkeypatch)
    assert code == 1
    said = capsys.readouterr().out
    found = entries(report)
    assert {name.partition(" ")[0] for name in found} == {"test_own", *"AB", "r_s", "r_a", "step"}
    assert {name.partition(" ")[0] for name, bad in found.items() if bad} == {"B"}
    assert "∂s′/∂a" in said and "10" in said  # % too large


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("engine.py:number", "expected a System or a Task"),
        ("nowhere.py:step", "no such file"),
    ],
)
def test_what_is_no_simulator_is_wrong_usage(target, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "engine.py").write_text(ENGINE.replace("FACTOR", "2"))
    options = {"certify": [target], "samples": 64, "fail-above": 1e-3}
    config = SimpleNamespace(getoption=lambda name: options[name.removeprefix("--gradlab-")])
    with pytest.raises(pytest.UsageError, match=words):
        pytest_certify.pytest_collection_modifyitems(None, config, [])
