"""The experiments with trained glimpses: that rows say what runs did, and that weights give their row again."""

import importlib
import json
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from regard.app.cli import main
from regard.recipes import glimpse

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
TINY = {"canvas": 28, "clutter": 0, "size": 8, "scales": 1, "hidden": 8, "draws": 2, "epochs": 1, "batch": 200}


@pytest.fixture
def ram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = importlib.import_module("ram")
    (tmp_path / "ram").mkdir()
    (tmp_path / "ram" / "28.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "ram.json")
    monkeypatch.setattr(module, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(module, "TASKS", {"28": (3, 2)})
    monkeypatch.setattr(module, "PATHS", 2)
    return module


def run(ram: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> list[dict]:
    """The rows of the results after a call."""
    monkeypatch.setattr("sys.argv", ["ram.py", *map(str, arguments)])
    ram.main()
    return json.loads(ram.RESULTS.read_text())["rows"]


def test_a_row_of_several_seeds_and_its_weights(ram: ModuleType, monkeypatch, few_digits, tmp_path: Path, capsys):
    folders = "--data", few_digits, "--runs", tmp_path / "runs"
    run(ram, monkeypatch, *folders, "--model", "hard")
    found = run(ram, monkeypatch, *folders, "--model", "cnn")
    capsys.readouterr()
    assert [(row["glimpses"], row["model"], row["seeds"]) for row in found] == [
        (3, "hard", [0, 1, 2]),
        (2, "hard", [0]),
        (3, "cnn", [0]),
    ]
    hard, _, cnn = found
    assert len(hard["error_percent"]) == len(hard["error_percent_sampled"]) == len(hard["seconds"]) == 3
    assert hard["pixels_read"] == 3 * 64 and cnn["pixels_read"] == 784
    assert all(40 < error < 100 for error in hard["error_percent"] + hard["error_percent_sampled"])
    assert hard["error_percent"] != hard["error_percent_sampled"]
    seed = hard["weights_seed"]
    assert hard["valid_error"][seed] == min(hard["valid_error"])
    weights = tmp_path / "weights" / "ram-28-3.safetensors"
    assert main(["evaluate", str(weights), "--data", str(few_digits), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["error_percent"] == pytest.approx(hard["error_percent"][seed], abs=1e-3)
    assert str(few_digits) not in weights.with_suffix(".yaml").read_text(), "a configuration names no folder"


def test_what_is_finished_is_not_done_again_and_is_kept_without_its_runs(
    ram: ModuleType, monkeypatch, few_digits, tmp_path: Path
):
    arguments = "--data", few_digits, "--runs", tmp_path / "runs", "--glimpses", 2
    rows = run(ram, monkeypatch, *arguments)
    monkeypatch.setattr(ram.experiments, "train", None)
    assert run(ram, monkeypatch, *arguments) == rows
    assert run(ram, monkeypatch, "--runs", tmp_path / "elsewhere") == rows and len(rows) == 1


def test_every_committed_configuration_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    ram, ablation = importlib.import_module("ram"), importlib.import_module("ablation")
    for job in ram.jobs():
        config = ram.configuration(job, "embedded")
        assert (config.attention, config.glimpses, config.seed) == (job.model, job.glimpses, job.seed)
    for fields in ablation.CHANGES.values():
        assert glimpse.Config(**fields)


def test_every_row_of_hard_attention_has_its_weights():
    rows = json.loads((EXPERIMENTS / "results" / "ram.json").read_text())["rows"]
    assert len([row for row in rows if row["model"] == "hard"]) >= 4
    for row in rows:
        name = f"ram-{row['task']}-{row['glimpses']}"
        if row["model"] == "hard":
            config = yaml.safe_load((ROOT / "weights" / f"{name}.yaml").read_text())
            assert (config["glimpses"], config["seed"]) == (row["glimpses"], row["weights_seed"])
            assert (ROOT / "weights" / f"{name}.safetensors").stat().st_size < 8e6


def test_stopping_early_is_measured(ram: ModuleType, monkeypatch, few_digits, tmp_path: Path, capsys):
    which = "--model", "hard", "--glimpses", 3, "--seed", 0
    run(ram, monkeypatch, "--data", few_digits, "--runs", tmp_path / "runs", *which)
    capsys.readouterr()
    early = importlib.import_module("early")
    monkeypatch.setattr(early, "WEIGHTS", [tmp_path / "weights" / "ram-28-3.safetensors"])
    monkeypatch.setattr(early, "THRESHOLDS", (0.0, *(0.1 + 0.005 * n for n in range(40)), 1.0))
    figure = tmp_path / "early.png"
    monkeypatch.setattr(early, "interleave", partial(early.interleave, round_ms=0))
    words = ["early.py", "--data", str(few_digits), "--json", "--rounds", "1", "--figure", str(figure)]
    monkeypatch.setattr("sys.argv", words)
    early.main()
    found = json.loads(capsys.readouterr().out)
    first, *between, last = found["rows"]
    glimpses = [row["glimpses"] for row in found["rows"]]
    assert glimpses == sorted(glimpses) and first["glimpses"] == 1 and last["glimpses"] == 3
    assert any(1 < row["glimpses"] < 3 for row in between)
    assert first["pixels_read"] == 64 and last["pixels_read"] == 192 and last["time_share"] == 1
    steps = {row["glimpses"]: row["error_percent"] for row in found["fixed"]}
    assert first["error_percent"] == steps[1] and last["error_percent"] == steps[3]
    assert figure.stat().st_size > 5000
    assert torch.get_num_threads() == 1


def test_seeds_that_are_trained_elsewhere_join_their_row(ram: ModuleType, monkeypatch, few_digits, tmp_path: Path):
    for seed in (1, 0):
        which = "--glimpses", 3, "--model", "hard", "--seed", seed
        rows = run(ram, monkeypatch, "--data", few_digits, "--runs", tmp_path / str(seed), *which)
    (row,) = rows
    assert row["seeds"] == [0, 1] and len(set(row["error_percent"])) == 2
    results = [json.loads(next((tmp_path / seed).glob("*/result.json")).read_text()) for seed in ("0", "1")]
    assert row["error_percent"] == [round(each["error_percent"], 4) for each in results]
    assert row["on_digit"] == [round(each["on_digit"], 4) for each in results]
