"""The harness of the benchmarks, and the benchmark of the glimpse sensor on its small case."""

import importlib
import json
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KEYS = {"case", "peer", "ours_ms", "peer_ms", "ratio", "ours_peak_mb", "peer_peak_mb", "limit_ms", "limit"}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    return importlib.import_module("harness")


@pytest.fixture
def glimpse(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("glimpse")
    monkeypatch.setattr(module, "CASES", module.CASES[:1])
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "can_compile", lambda: False)
    monkeypatch.setattr(harness, "interleave", partial(harness.interleave, round_ms=0))
    return module


def test_prints_and_writes_json(glimpse, harness, monkeypatch, capsys, tmp_path: Path):
    out = tmp_path / "results" / "glimpse.json"
    monkeypatch.setattr("sys.argv", ["glimpse.py", "--rounds", "1", "--json", "--out", str(out)])
    harness.main("glimpse", glimpse.measure)
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == printed
    assert list(out.parent.iterdir()) == [out], "no draft is left"
    assert printed["name"] == "glimpse"
    assert "1 thread" in printed["machine"]
    assert len(printed["rows"]) == 3
    for row in printed["rows"]:
        assert row.keys() >= KEYS
        assert row["ours_ms"] > 0 and row["peer_ms"] > 0 and row["limit_ms"] > 0


def test_prints_a_table(glimpse, harness, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["glimpse.py", "--rounds", "2"])
    harness.main("glimpse", glimpse.measure)
    printed = capsys.readouterr().out
    for word in ("training, 28x28", "GFLOP/s", "ours", "peer/ours", "limit: the matrix products"):
        assert word in printed


def test_refuses_no_rounds(harness, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["glimpse.py", "--rounds", "0"])
    with pytest.raises(SystemExit):
        harness.main("glimpse", lambda rounds: [])
    assert "argument --rounds: expected at least 1, but got 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Slices", lambda right: lambda images, size, scales: right(images.flip(2), size, scales)),
        ("Normal", lambda right: lambda centre, width: right(centre, 2 * width)),
    ],
)
def test_the_check_notices_a_difference(glimpse, monkeypatch, name: str, wrong):
    glimpse.check(glimpse.CASES[0])
    monkeypatch.setattr(glimpse, name, wrong(getattr(glimpse, name)))
    with pytest.raises(AssertionError):
        glimpse.check(glimpse.CASES[0])


def test_the_limit_is_the_products_of_the_step(glimpse):
    left, right = torch.rand(30, 20), torch.rand(40, 20, requires_grad=True)

    def step() -> None:
        torch.nn.functional.linear(left, right).sum().backward()

    multiply, gflop = glimpse.products(step)
    multiply()
    assert gflop == pytest.approx(2 * 2 * 30 * 20 * 40 / 1e9), "one product forward, one backward"


def test_memory_is_what_is_held_at_once(harness):
    def call() -> None:
        first = torch.ones(1000, 1000)  # 4 MB
        second = first + 1
        del first
        second.sum()
        torch.ones(500, 1000)  # 2 MB

    assert harness.peak_mb(call) == pytest.approx(8, rel=0.01)


def test_calls_take_turns(harness):
    seen = []
    times = harness.interleave([lambda: seen.append("a"), lambda: seen.append("b")], rounds=2, round_ms=0)
    assert seen == ["a", "a", "b", "b", "a", "b", "b", "a"], "twice to warm up, then each first in turn"
    assert [len(each) for each in times] == [2, 2]
