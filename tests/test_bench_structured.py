"""The benchmark of structures, at a size that takes no time: that all sides answer alike, and how far they are off."""

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ASKED = {"marginals", "log Z", "entropy", "best labelling", "the 3 best", "a draw"}


@pytest.fixture
def structured(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    harness = importlib.import_module("harness")
    monkeypatch.setattr(harness, "interleave", partial(harness.interleave, round_ms=0))
    return importlib.import_module("structured")


def test_asks_all_questions_of_all_peers(structured):
    rows = list(structured.chains((2, 5, 3), 1))
    peers = {row.peer.partition(" ")[0] for row in rows}
    assert peers >= {"torch-struct", "pytorch-crf", "the"}
    assert {row.case.rpartition(", ")[2] for row in rows} == ASKED
    for row in rows:
        if row.case.endswith(("marginals", "log Z", "entropy")):
            assert max(row.ours_error) < 1e-5 and max(row.peer_error) < 1e-2
        else:
            assert row.ours_error is None


def test_notices_another_answer(structured):
    labels = torch.zeros(8, 50, dtype=torch.long)
    structured.alike([labels], [labels.int()])
    with pytest.raises(AssertionError, match="one label in a hundred"):
        structured.alike([labels], [labels.index_fill(1, torch.tensor([3]), 1)])
    with pytest.raises(AssertionError, match="not close"):
        structured.alike([torch.ones(3)], [torch.ones(3) * 1.1])


def test_the_error_is_relative_to_the_largest_value(structured):
    found, exact = [torch.tensor([1.0, 8.5]), torch.tensor([0.5])], [torch.tensor([1.0, 8.0]), torch.tensor([0.25])]
    assert structured.error(found, exact) == (0.0625, 0.25)


def test_says_that_synjax_is_absent(structured, monkeypatch):
    monkeypatch.setattr(structured.synjax, "find_spec", lambda name: None)
    assert structured.synjax.installed() == "synjax is not installed: no rows of it"
    assert structured.synjax.chain_questions() == {}
    assert structured.synjax.tree_marginals(projective=True) is None
