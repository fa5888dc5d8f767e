"""The benchmarks of a memory, at sizes that take no time: that both sides are one machine, and what is drawn."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def imported(name: str, monkeypatch: pytest.MonkeyPatch, **values: object) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.delitem(sys.modules, name, raising=False)  # an experiment has that name, too
    module = importlib.import_module(name)
    for key, value in values.items():
        monkeypatch.setattr(module, key, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


@pytest.fixture
def recall(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return imported("recall", monkeypatch, BATCH=2, HIDDEN=5, CELLS=6, WIDTH=4, LENGTHS=(2, 3))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return imported("memory", monkeypatch, PLACES=(10, 100))


def test_each_length_has_a_row(recall, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["recall.py", "--rounds", "1", "--json"])
    recall.harness.main("recall", recall.measure)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == [f"a training step of copying, length {length}" for length in (2, 3)]


@pytest.mark.parametrize("wrong", ["softplus", "cosine_similarity"])
def test_the_check_notices_another_machine(recall, monkeypatch, wrong: str):
    recall.check(3)
    right, address = getattr(recall.F, wrong), recall.address

    def other(*given):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recall.F, wrong, lambda *args, **kwargs: 1.01 * right(*args, **kwargs))
            return address(*given)

    monkeypatch.setattr(recall, "address", other)
    with pytest.raises(AssertionError):
        recall.check(3)


def test_every_number_of_cells_has_a_row_and_is_drawn(memory, monkeypatch, capsys, tmp_path: Path):
    figure = tmp_path / "memory.png"
    monkeypatch.setattr("sys.argv", ["memory.py", "--rounds", "1", "--json", "--figure", str(figure)])
    memory.harness.main("memory", memory.measure, memory.draw)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == ["a read and a write, K = 10", "a read and a write, K = 100"]
    with Image.open(figure) as picture:
        assert picture.width > 500
    soft, hard = ([row[f"{whose}_peak_mb"] for row in rows] for whose in ("peer", "ours"))
    assert soft[1] > 5 * soft[0] and hard[1] == hard[0], "what soft addressing allocates grows with the cells"


def test_a_new_memory_for_each_sequence(memory):
    sequence = memory.Hard(10, steps=3)
    for _ in range(2):
        sequence.prepare()()
    assert torch.isfinite(sequence.moves.weight.grad).all()
