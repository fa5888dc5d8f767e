"""The experiment rationale: rows say what the runs did, and a run that read all words has a row for its reasons."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from regard.app.data.generators.reviews import reviews
from regard.app.data.rationales import unmarked
from regard.app.text.tokens import tokens
from regard.app.training.evaluation import evaluate
from regard.app.training.metrics import read_metrics

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
TINY = {"units": 4, "draws": 2, "epochs": 2, "batch": 10, "soft": 0.5}


def eraser(folder: Path) -> None:
    """Reviews of a grammar as a folder of ERASER."""
    (folder / "docs").mkdir(parents=True)
    for seed, (part, count) in enumerate({"train": 40, "val": 10, "test": 10}.items()):
        rows = []
        for n, (text, label) in enumerate(reviews(count, seed)):
            words, marked = unmarked(" ".join(tokens(text)))
            (folder / "docs" / f"{part}{n}").write_text(words)
            places = [k for k, mark in enumerate(marked) if mark]
            spans = [{"docid": f"{part}{n}", "start_token": k, "end_token": k + 1} for k in places]
            rows.append({"annotation_id": f"{part}{n}", "classification": label, "evidences": [spans]})
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with a few reviews in `data`, and results of its own."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, "rationale", raising=False)  # a benchmark has that name, too
    loaded = importlib.import_module("rationale")
    eraser(tmp_path / "data" / "movie_rationales")
    for folder in ("data/glove_6b_50d", "rationale"):
        (tmp_path / folder).mkdir(parents=True)
    vectors = {"words": np.array(["moving", "dull"]), "vectors": np.array([[1, 1, 1], [-1, 0, 1]], "f4")}
    np.savez(tmp_path / "data" / "glove_6b_50d" / "glove_6b_50d.npz", **vectors)
    (tmp_path / "rationale" / "movies.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loaded, "HERE", tmp_path)
    monkeypatch.setattr(loaded.TABLE, "results", tmp_path / "rationale.json")
    return loaded


@pytest.mark.parametrize("model", ["segments", "sigmoid-relaxed", "full"])
def test_rows_say_what_runs_did(experiment, monkeypatch, tmp_path: Path, capsys, model: str):
    monkeypatch.setattr("sys.argv", ["rationale.py", "--model", model, "--seed", "1", "--data", "data"])
    experiment.main()
    assert model in capsys.readouterr().out
    first, *others = json.loads((tmp_path / "rationale.json").read_text())["rows"]
    run = tmp_path / "runs" / "rationale" / f"movies-{model}-seed1"
    again = evaluate(run)
    assert first["metrics"]["accuracy_percent"] == [pytest.approx(100 - 100 * again["test_error"], abs=1e-3)]
    assert first["metrics"]["share_read_percent"] == [pytest.approx(100 * again["test_share_read"], abs=1e-3)]
    assert [row["model"] for row in others] == (["post-hoc"] if model == "full" else [])
    reasoned = (others or [first])[0]["metrics"]
    assert reasoned["precision"] == [pytest.approx(again["test_precision"], abs=1e-3)]
    assert reasoned["valid_precision_last"] == [pytest.approx(read_metrics(run)[-1]["valid_precision"], abs=1e-3)]


def test_what_matters_most_is_trained_first(experiment):
    jobs = [(job.model, job.seed) for job in experiment.jobs()]
    assert jobs[:4] == [("segments", 0), ("full", 0), ("random", 0), ("segments", 1)]
    assert sorted(jobs) == sorted((model, seed) for model in experiment.CHANGES for seed in range(3))


def test_the_configuration_is_as_committed():
    fields = yaml.safe_load((EXPERIMENTS / "rationale" / "movies.yaml").read_text())
    assert fields == {"epochs": 6, "soft": 0.3333}
