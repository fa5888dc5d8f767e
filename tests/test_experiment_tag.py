"""The experiment tag: archives become columns as the recipe reads them, and rows say what the runs did."""

import importlib
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from regard.app.data.generators.names import names
from regard.app.training.evaluation import evaluate

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
TINY = {"hidden": 4, "words": 4, "letters": 4, "filters": 4, "epochs": 1, "batch": 20}


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with a small archive in `data`, and results of its own."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    loaded = importlib.import_module("tag")
    for folder in ("data/conll2002_names", "tag"):
        (tmp_path / folder).mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "data" / "conll2002_names" / "conll2002_esp.zip", "w") as files:
        for seed, part in enumerate(("train", "testa", "testb")):
            rows = ("".join(f"{' X '.join(pair)}\n" for pair in zip(*each, strict=True)) for each in names(60, seed))
            files.writestr(f"conll2002/esp.{part}", "\n".join(rows))
    (tmp_path / "tag" / "names.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loaded, "HERE", tmp_path)
    monkeypatch.setattr(loaded.TABLE, "results", tmp_path / "tag.json")
    return loaded


def test_rows_say_what_runs_did(experiment, monkeypatch, tmp_path: Path, capsys):
    asked = ["--of", "names", "--model", "softmax", "--seed", "1", "--data", "data"]
    monkeypatch.setattr(sys, "argv", ["tag.py", *asked])
    experiment.main()
    assert "softmax" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "tag.json").read_text())["rows"]
    again = evaluate(tmp_path / "runs" / "tag" / "names-softmax-seed1")
    assert row["metrics"]["f1"] == [pytest.approx(100 * again["test_f1"], abs=1e-3)]
    assert row["metrics"]["accuracy"] == [pytest.approx(100 * again["test_accuracy"], abs=1e-3)]


def test_every_row_has_a_configuration_as_committed():
    assert {file.stem for file in (EXPERIMENTS / "tag").glob("*.yaml")} == {"chunks", "names"}
