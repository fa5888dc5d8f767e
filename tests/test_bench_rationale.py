"""The benchmark of a rationale, at sizes that take no time: that both sides are one network."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SIZES = {"BATCH": 3, "KNOWN": 20, "WORDS": 30, "WIDTH": 4, "UNITS": 5, "DRAWS": 3, "SHARE": 0.3}
CASES = {"sigmoid": ("sigmoid", 9), "segments": ("segments", 12)}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.delitem(sys.modules, "rationale", raising=False)  # an experiment has that name, too
    module = importlib.import_module("rationale")
    for key, value in {**SIZES, "CASES": CASES}.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_each_case_has_a_row(bench, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rationale.py", "--rounds", "1", "--json"])
    bench.harness.main("rationale", bench.measure)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == ["a training step, sigmoid", "a training step, segments"]


@pytest.mark.parametrize("over", ["sigmoid", "segments"])
def test_the_check_notices_other_draws(bench, monkeypatch, over: str):
    bench.check(over, 12)
    plain = bench.Plain.log_prob
    monkeypatch.setattr(bench.Plain, "log_prob", lambda *given: 1.01 * plain(*given))
    with pytest.raises(AssertionError):
        bench.check(over, 12)
