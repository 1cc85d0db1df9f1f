"""A file that a command cannot read: no message recommends a command that refuses it, too."""

import re

import pytest

from gradlab import cli
from gradlab.reporting.kinds import KINDS
from gradlab.storage import records
from gradlab.storage.codec import SHOWN

OTHERS = ("action gradients", "states", "trajectories", "fit")
READERS = {
    "report": ("report", "FILE"),
    "choose": ("choose", "FILE"),
    "attribute": ("attribute", "FILE"),
    "compare": ("compare", "FILE", "FILE"),
    "watch": ("watch", "FILE", "--once"),
    "jacobians": ("jacobians", "pendulum", "--profile", "FILE"),
    "fit": ("fit", "pendulum", "--data", "FILE"),
    "logs": ("logs", "FILE", "--policy", "policy.safetensors", "--discount", "0.9"),
}


def test_the_kinds_that_report_is_recommended_for_are_those_that_it_shows():
    assert set(SHOWN) == set(KINDS)


@pytest.mark.parametrize("name", READERS)
def test_no_refusal_recommends_a_command_that_refuses_the_file(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for kind in (*OTHERS, *KINDS):
        file = f"{kind.replace(' ', '-')}.h5"
        records.write(file, records.Record({"kind": kind}, {}))
        words = [file if word == "FILE" else word for word in READERS[name]]
        assert cli.main(words) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        advised = re.findall(r"`gradlab (\w+)", message)
        assert name not in advised, message
        assert "report" not in advised or kind in KINDS, message
        assert file in message and "run of trajectories" not in message
