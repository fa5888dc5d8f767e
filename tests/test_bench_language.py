"""The benchmark of a language model, at sizes that take no time: that both sides are one network."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SIZES = {"ROWS": 3, "STEPS": 6, "WORDS": 40, "SIZE": 5, "SAMPLES": 20, "CASES": {"none": 0, "few": 2, "all": 9}}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.delitem(sys.modules, "language", raising=False)  # an experiment has that name, too
    module = importlib.import_module("language")
    for key, value in SIZES.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_each_window_has_a_row(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["language.py", "--rounds", "1", "--json"])
    bench.harness.main("language", bench.measure)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == [f"a training step, {name}" for name in ("none", "few", "all")]


def test_the_check_notices_another_network(bench, monkeypatch):
    bench.check(2)
    softmax = bench.torch.softmax
    monkeypatch.setattr(bench.torch, "softmax", lambda *given: 1.01 * softmax(*given))
    with pytest.raises(AssertionError):
        bench.check(2)
