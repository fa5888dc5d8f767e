"""The benchmark of words per second, at sizes that take no time: that both sides are one model, and what is drawn."""

import importlib
import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    module = importlib.import_module("words")
    for name, value in {"BATCH": 3, "LENGTHS": (2, 5), "HIDDEN": 8, "WORDS": 30, "SENTENCES": 2}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_every_case_has_a_row_and_the_lengths_are_drawn(words, monkeypatch, capsys, tmp_path: Path):
    figure = tmp_path / "words.png"
    monkeypatch.setattr("sys.argv", ["words.py", "--rounds", "1", "--json", "--figure", str(figure)])
    words.harness.main("words", words.measure, words.draw)
    rows = json.loads(capsys.readouterr().out)["rows"]
    cases = [(row["case"], row["peer"]) for row in rows]
    attention = [
        (words.named(what, length), peer)
        for length in (2, 5)
        for what in ("training", "decoding")
        for peer in (words.PLAIN, words.ONCE)
    ]
    assert cases[:8] == attention and len(cases) == len(set(cases)) == 12
    assert all(row["ours_ms"] > 0 and row["peer_ms"] > 0 for row in rows)
    with Image.open(figure) as drawn:
        assert drawn.width > 800


def test_a_file_is_of_sentences_of_many_lengths(words, monkeypatch):
    monkeypatch.setattr(words, "SENTENCES", 1000)
    lengths = [len(text) for text in words.sentences()]
    assert 4 == min(lengths) < 30 < max(lengths) <= 40
    assert sum(lengths) / 1000 == pytest.approx(14, abs=0.5)


def test_translations_are_as_long_as_what_is_translated(words):
    model, source = words.translator(), torch.tensor([[5, 6, 2, 0], [7, 8, 9, 2]])
    ours, plain = model.greedy(source), words.Plain(model).greedy(source, model.longest(source))
    assert [len(each) for each in ours] == [3, 4]
    assert [row[: len(each)].tolist() for row, each in zip(plain, ours, strict=True)] == [row.tolist() for row in ours]
    assert plain[0, 3] == 2


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("attend", lambda words, model: list(words.attentions(model, 5, 1))),
        ("step", lambda words, model: words.steps(model, 5, 1)),
        ("vectors", lambda words, model: words.steps(model, 5, 1)),
        ("step", lambda words, model: words.files(model, 1)),
    ],
)
def test_a_model_that_is_another_is_noticed(words, monkeypatch, name: str, measured: Any):
    model, right = words.translator(), getattr(words.Plain, name)

    def wrong(*given: Any) -> Any:
        found = right(*given)
        return (1.1 * found[0].flip(-1), *found[1:]) if isinstance(found, tuple) else 1.1 * found

    measured(words, model)
    monkeypatch.setattr(words.Plain, name, wrong)
    with pytest.raises(AssertionError):
        measured(words, model)
