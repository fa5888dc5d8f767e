"""The benchmark of a classifier, at sizes that take no time: that both sides are one network."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SIZES = {"BATCH": 3, "KNOWN": 20, "WORDS": 30, "WIDTH": 4, "HIDDEN": 5, "HEADS": 2, "CASES": {"few": 3, "more": 6}}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.delitem(sys.modules, "classify", raising=False)  # an experiment has that name, too
    module = importlib.import_module("classify")
    for key, value in SIZES.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_each_length_has_a_row(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["classify.py", "--rounds", "1", "--json"])
    bench.harness.main("classify", bench.measure)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == ["a training step, few", "a training step, more"]


def test_the_check_notices_another_network(bench, monkeypatch):
    bench.check(6)
    softmax = torch.softmax
    monkeypatch.setattr(bench.torch, "softmax", lambda *given: 1.01 * softmax(*given))
    with pytest.raises(AssertionError):
        bench.check(6)
