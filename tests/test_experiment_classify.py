"""The experiment classify: archives become texts as the recipe reads them, and rows say what the runs did."""

import importlib
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from regard.app.data.generators.questions import questions
from regard.app.training.evaluation import evaluate

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
TINY = {"hidden": 4, "scoring": 4, "heads": 2, "epochs": 2, "batch": 20, "soft": 0.5}


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with small archives in `data`, and results of its own."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, "classify", raising=False)  # a benchmark has that name, too
    loaded = importlib.import_module("classify")
    for folder in ("data/text_classification", "data/glove_6b_50d", "classify"):
        (tmp_path / folder).mkdir(parents=True)
    archives = tmp_path / "data" / "text_classification"
    lines = {part: [f"{label}:fine {text}" for text, label in questions(60, seed)] for seed, part in enumerate("ab")}
    with zipfile.ZipFile(archives / "qc.zip", "w") as files:
        for part, name in zip("ab", ("qc/train.txt", "qc/test.txt"), strict=True):
            files.writestr(name, "\n".join([*lines[part], "place:city Where is the caf\xe9 ?"]).encode("latin-1"))
    with zipfile.ZipFile(archives / "sentence_polarity.zip", "w") as files:
        for name, word in (("pos", "lovely"), ("neg", "awful")):
            files.writestr(f"rt-polarity.{name}", "\n".join(f"a {word} film {n} ." for n in range(30)))
    vectors = {"words": np.array(["who", "lovely"]), "vectors": np.array([[1, 1, 1], [-1, 0, 1]], "f4")}
    np.savez(tmp_path / "data" / "glove_6b_50d" / "glove_6b_50d.npz", **vectors)
    for name in ("trec", "mr"):
        (tmp_path / "classify" / f"{name}.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loaded, "HERE", tmp_path)
    monkeypatch.setattr(loaded.TABLE, "results", tmp_path / "classify.json")
    return loaded


@pytest.mark.parametrize(("data", "model"), [("trec", "hard"), ("mr", "last"), ("mr", "self-words")])
def test_rows_say_what_runs_did(experiment, monkeypatch, tmp_path: Path, capsys, data: str, model: str):
    asked = ["--of", data, "--model", model, "--seed", "1", "--data", "data"]
    monkeypatch.setattr("sys.argv", ["classify.py", *asked])
    experiment.main()
    assert model in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "classify.json").read_text())["rows"]
    again = evaluate(tmp_path / "runs" / "classify" / f"{data}-{model}-seed1")
    assert row["metrics"]["accuracy_percent"] == [pytest.approx(100 - 100 * again["test_error"], abs=1e-3)]
    read = row["metrics"].get("words_read")
    assert read == (None if model == "last" else [pytest.approx(again["test_words_read"], abs=1e-3)])


def test_what_is_in_the_archives_is_read(experiment, tmp_path: Path):
    jobs = [experiment.Job(name, "soft", 0) for name in ("trec", "mr")]
    trec, mr = (experiment.classify.data(experiment.configuration(job, tmp_path / "data")) for job in jobs)
    assert [len(part) for part in trec[:3]] == [54, 7, 61] and "place" in trec.classes
    assert trec.test.texts[-1] == "where is the café ?"
    assert [len(part) for part in mr[:3]] == [48, 6, 6] and mr.classes == ("against", "for")
    assert all(("lovely" in text) == label for text, label in zip(mr.test.texts, mr.test.labels.tolist(), strict=True))


def test_every_row_has_a_configuration_as_committed():
    files = {file.stem for file in (EXPERIMENTS / "classify").glob("*.yaml")}
    assert files == {"trec", "mr", "subj", "trec-hard"}
