"""The benchmark of all roads, at sizes that take no time: which cells it has, and that one that loses is said."""

import importlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def roads(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.delitem(sys.modules, "roads", raising=False)  # others may have that name, too
    module = importlib.import_module("roads")
    chosen = ("scaled_dot, softmax, mean", "scaled_dot, sparsemax, mean")
    monkeypatch.setattr(module, "TRIPLES", {name: module.TRIPLES[name] for name in chosen})
    monkeypatch.setattr(module, "STRUCTURES", {"chain of 2": module.STRUCTURES["chain of 2"]})
    for name, value in {"PLACES": (1, 4), "LENGTHS": (1, 4)}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_every_cell_takes_a_road(roads, monkeypatch, capsys, tmp_path: Path):
    out = tmp_path / "roads.json"
    monkeypatch.setattr("sys.argv", ["roads.py", "--rounds", "1", "--out", str(out)])
    roads.main()
    rows = json.loads(out.read_text())["rows"]
    assert all(max(row["ours_error"] or 0, row["peer_error"] or 0) < 1e-5 for row in rows)
    assert all((row["ours_error"] is None) == any(word in row["case"] for word in ("sample", "mode")) for row in rows)
    cases = [row["case"] for row in rows]
    assert len(cases) == len(set(cases)) > 6
    assert [case for case in cases if case.startswith("scaled_dot, softmax")] == [
        f"scaled_dot, softmax, mean, {use}, K {places}: dot.cpu_cuda" for use in roads.QUERIES for places in (1, 4)
    ]
    assert not [case for case in cases if "sparsemax, mean, decoding" in case], "too few scores for its kernel"
    assert f"of {len(cases)} cells lose" in capsys.readouterr().out


def test_what_loses_is_said(roads, monkeypatch):
    def slow() -> None:
        if not importlib.import_module("regard.kernels.registry")._here.plain:
            time.sleep(0.001)

    rows = [roads.row(name, call, [torch.zeros(1)], 1) for name, call in {"slow": slow, "even": lambda: None}.items()]
    assert [each.split("  ")[1] for each in roads.losing(rows)][:1] == ["slow"]
