"""The experiment read: rows say what the runs did."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from regard.app.data.generators.village import village
from regard.app.training.evaluation import evaluate

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with few stories in `data`, and results of its own."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, "read", raising=False)  # a benchmark has that name, too
    loaded = importlib.import_module("read")
    for folder in ("data/novels_cloze", "data/glove_6b_50d", "read"):
        (tmp_path / folder).mkdir(parents=True)
    for seed, (part, count) in enumerate((("train", 40), ("valid", 20), ("test", 30))):
        (tmp_path / "data" / "novels_cloze" / f"{part}.jsonl").write_text("\n".join(village(count, seed)))
    vectors = {"words": np.array(["the", "mill"]), "vectors": np.array([[1, 1, 1], [-1, 0, 1]], "f4")}
    np.savez(tmp_path / "data" / "glove_6b_50d" / "glove_6b_50d.npz", **vectors)
    (tmp_path / "read" / "novels.yaml").write_text(yaml.safe_dump({"hidden": 4, "epochs": 2, "batch": 20, "soft": 0.5}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loaded, "HERE", tmp_path)
    monkeypatch.setattr(loaded.TABLE, "results", tmp_path / "read.json")
    return loaded


@pytest.mark.parametrize("model", ["sum-hard", "attentive-alone"])
def test_rows_say_what_runs_did(experiment, monkeypatch, tmp_path: Path, capsys, model: str):
    monkeypatch.setattr("sys.argv", ["read.py", "--model", model, "--seed", "0", "--data", "data"])
    experiment.main()
    assert model in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "read.json").read_text())["rows"]
    found = {name: value for name, (value,) in row["metrics"].items()}
    again = evaluate(tmp_path / "runs" / "read" / f"novels-{model}-seed0")
    assert found["accuracy_percent"] == pytest.approx(100 - 100 * again["test_error"], abs=1e-3)
    assert found["words_read"] == pytest.approx(again["test_words_read"], abs=1e-3)
    assert (found["words_read"] == 1) == (model == "sum-hard")
    short, long = found["short_percent"], found["long_percent"]
    assert min(short, long) - 34 <= found["accuracy_percent"] <= max(short, long) + 34


def test_every_row_has_a_configuration_as_committed(experiment, tmp_path: Path):
    files = {file.stem for file in (EXPERIMENTS / "read").glob("*.yaml")}
    assert files == {"novels"}
    configs = {job.model: experiment.configuration(job, tmp_path) for job in experiment.jobs()}
    assert {(each.reader, each.attention) for each in configs.values()} == {
        *((reader, "soft") for reader in ("sum", "attentive", "impatient", "uniform")),
        *((reader, "hard") for reader in ("sum", "attentive", "impatient")),
    }
    assert configs["attentive-alone"].names == configs["attentive-alone"].pointing == 0
