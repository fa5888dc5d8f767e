"""The benchmark of a reader, at sizes that take no time: that both sides are one network."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CASES = {"few": ("sum", 40), "more": ("attentive", 50)}
SIZES = {"BATCH": 3, "KNOWN": 20, "WORDS": 30, "WIDTH": 4, "HIDDEN": 8, "NAMES": 2, "CASES": CASES}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    for name in ("classify", "draw", "read"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # experiments have these names, too
    module = importlib.import_module("read")
    for key, value in SIZES.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_each_case_has_a_row(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["read.py", "--rounds", "1", "--json"])
    bench.harness.main("read", bench.measure)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == ["a training step, few", "a training step, more"]


@pytest.mark.parametrize("reader", ["sum", "attentive"])
def test_the_check_notices_another_network(bench, monkeypatch, reader: str):
    bench.check(reader, 50)
    softmax = torch.softmax
    monkeypatch.setattr(bench.torch, "softmax", lambda *given: 1.01 * softmax(*given))
    with pytest.raises(AssertionError):
        bench.check(reader, 50)
