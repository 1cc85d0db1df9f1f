"""Every row of the table is described and listed."""

from dataclasses import replace

from gradlab.training import ALGORITHMS
from gradlab.training.loop import describe
from gradlab.training.settings import Settings
from tests.training.small_runs import row, task


def test_every_row_is_described_in_all_its_parts_and_none_as_another():
    described = {name: algorithm.described for name, algorithm in ALGORITHMS.items()}
    for name, parts in described.items():
        assert list(parts) == ["policy", "gradient", "target", "model", "data", "source"]
        assert all(parts.values()), name
    made_of = [tuple(list(parts.values())[:-1]) for parts in described.values()]
    assert len(set(made_of)) == len(made_of)
    assert described["maac-five-batch"]["data"].endswith("batches of 1280")
    assert described["ddppo"]["target"] == "clipped double soft Q, α automatic"
    assert described["rp-dr"]["target"] == "clipped double soft Q, no entropy"
    assert described["ddppo-double-parameters"]["model"] == "learned model: nll, hidden 96, 96"


def test_where_a_row_is_from_changes_nothing_that_it_computes():
    elsewhere = replace(row("td3"), paper="elsewhere")
    assert elsewhere == row("td3")
    assert "paper" not in describe(elsewhere, task(), Settings())["algorithm"]
