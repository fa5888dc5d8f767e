"""The experiment parse: that its rows say what runs did, and that its configurations are some."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from test_data_conllu import conllu

from regard.app.data.generators.grammar import grammar
from regard.app.training.evaluation import evaluate

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FLOAT32 = ["--precision", "32-true"]
"""Not every processor has LSTMs in bfloat16."""
TINY = {
    "words": 8,
    "letters": 8,
    "filters": 8,
    "hidden": 8,
    "layers": 1,
    "arcs": 8,
    "relations": 8,
    "epochs": 1,
    "batch": 10,
    "learning_rate": 0.02,
}


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with one treebank of made-up sentences in `data`, and results of its own."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    loaded = importlib.import_module("parse")
    for part, count in (("train", 200), ("dev", 20), ("test", 20)):
        file = tmp_path / "data" / "xx" / f"xx-{part}.conllu"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(conllu(grammar(count, seed=count)))
    (tmp_path / "parse").mkdir()
    (tmp_path / "parse" / "xx-small.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.setattr(loaded, "HERE", tmp_path)
    monkeypatch.setattr(loaded, "RESULTS", tmp_path / "parse.json")
    monkeypatch.setattr(loaded, "SIZES", {"xx": {"small": 2}})
    return loaded


def test_rows_say_what_runs_did_and_runs_that_are_kept_are_not_done_again(
    experiment, monkeypatch, tmp_path: Path, capsys
):
    folders = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]
    arguments = ["parse.py", *folders, "--over", "softmax", *FLOAT32]
    monkeypatch.setattr("sys.argv", arguments)
    experiment.main()
    assert "softmax" in capsys.readouterr().out
    rows = json.loads(experiment.RESULTS.read_text())["rows"]
    assert [(row["over"], row["seed"]) for row in rows] == [("softmax", 0), ("softmax", 1)]
    again = evaluate(tmp_path / "runs" / "xx-small-softmax-seed1")
    assert rows[1]["las"] == pytest.approx(100 * again["test_las"], abs=1e-3)
    assert rows[0]["las"] != rows[1]["las"]
    monkeypatch.setattr(experiment.experiments, "train", None)
    experiment.main()
    monkeypatch.setattr("sys.argv", [*arguments[:3], "--runs", str(tmp_path / "elsewhere"), *arguments[5:], "--json"])
    capsys.readouterr()
    experiment.main()
    assert json.loads(capsys.readouterr().out)["rows"] == rows


def test_every_committed_configuration_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = importlib.import_module("parse")
    jobs = list(module.jobs())
    assert len(jobs) == len(set(jobs)) == 21
    for job in jobs:
        config = module.configuration(job, Path("data"))
        assert (config.over, config.seed, config.data) == (job.over, job.seed, f"data/{job.corpus}")
