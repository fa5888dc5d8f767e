"""The experiment answer: that rows say what runs did, and that what is finished is kept."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from regard.app.data.generators.stories import generated

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = importlib.import_module("answer")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "answer.json")
    monkeypatch.setattr(module, "TASKS", (1,))
    monkeypatch.setattr(module, "SEEDS", 2)
    for part, seed in (("train", 0), ("test", 1)):
        (tmp_path / f"qa1_single-supporting-fact_{part}.txt").write_text(lines(seed))
    return module


def lines(seed: int) -> str:
    """Generated questions in the manner of bAbI's files, each with a story of its own."""
    text = ""
    for question in generated(1, 20, seed):
        facts = [f"{n} {fact}" for n, fact in enumerate(question.facts, 1)]
        marked = len(facts) - question.supporting[0]
        text += "\n".join([*facts, f"{len(facts) + 1} {question.text}\t{question.answer}\t{marked}\n"])
    return text


def run(experiment: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["answer.py", *arguments])
    experiment.main()


def test_a_row_of_two_seeds_is_kept_without_its_runs(experiment: ModuleType, monkeypatch, tmp_path: Path, capsys):
    folder = str(tmp_path / "runs")
    run(experiment, monkeypatch, "--data", str(tmp_path), "--runs", folder, "--over", "chain")
    assert capsys.readouterr().out.startswith("task1-chain-seed0: ")
    (row,) = json.loads(experiment.RESULTS.read_text())["rows"]
    assert (row["task"], row["over"], row["seeds"]) == (1, "chain", [0, 1])
    results = [json.loads((tmp_path / "runs" / f"task1-chain-seed{n}" / "result.json").read_text()) for n in (0, 1)]
    for name in experiment.MEASURES:
        assert row[name] == [round(each[name], 2) for each in results]
        assert all(0 <= value <= 100 for value in row[name])
    assert row["recall"] == row["facts"] == row["sequence"], "with one supporting fact they are the same"
    monkeypatch.setattr(experiment.experiments, "train", None)
    run(experiment, monkeypatch, "--data", str(tmp_path), "--runs", folder, "--over", "chain")
    assert "answer: % of the test questions" in capsys.readouterr().out
    run(experiment, monkeypatch, "--runs", str(tmp_path / "elsewhere"), "--json")
    assert json.loads(capsys.readouterr().out)["rows"] == [row]


def test_the_best_seed_is_chosen_by_validation(experiment: ModuleType):
    seeds = [
        {"task": 2, "over": "chain", "seed": n, "accuracy": right, "valid_error": error, "seconds": 1.0}
        | dict.fromkeys(("facts", "sequence", "recall"), 50.0)
        for n, (right, error) in enumerate(((90.0, 0.2), (80.0, 0.1)))
    ]
    assert experiment.best(experiment._row(seeds)) == (80.0, 50.0)
