"""What all experiments share: runs that are done once and may be divided, and results that stay as they are."""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_recipe

from regard.app import experiments
from regard.app.training.errors import Failure, Interrupted

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@dataclass(frozen=True)
class Job:
    data: str
    seed: int


JOBS = [Job(data, seed) for data in ("small", "large") for seed in (0, 1)]


@pytest.mark.parametrize(
    "name",
    [
        "ram",
        "ablation",
        "answer",
        "parse",
        "bracket",
        "translate",
        "caption",
        "draw",
        "recall",
        "classify",
        "sampling",
        "pictures",
        "stitch",
        "language",
        "read",
        "rationale",
        "speech",
        "huggingface",
        "faithfulness",
        "tag",
    ],
)
def test_what_is_kept_is_printed_with_all_its_keys(name: str, monkeypatch, capsys, tmp_path: Path):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--runs", str(tmp_path), "--json"])
    monkeypatch.delitem(sys.modules, name, raising=False)  # a benchmark may have that name, too
    importlib.import_module(name).main()
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((EXPERIMENTS / "results" / f"{name}.json").read_text())
    assert printed["name"] == kept["name"] == name
    assert printed["rows"] == kept["rows"] != []


def test_jobs_are_those_that_are_asked_for():
    flags = experiments.parser("table", "A table.", "the data")
    flags.add_argument("--seed", type=int)
    assert list(experiments.asked(JOBS, flags.parse_args([]))) == JOBS
    assert list(experiments.asked(JOBS, flags.parse_args(["--seed", "1"]))) == [JOBS[1], JOBS[3]]


def test_a_job_that_fails_is_named_and_the_others_are_done(capsys):
    done, written = [], []

    def do(job: Job) -> None:
        if job.data == "small":
            raise Failure("no such data")
        done.append(job)

    experiments.do_all(JOBS, do, lambda: written.append(len(done)))
    assert done == JOBS[2:] and written == [0, 0, 1, 2]
    assert capsys.readouterr().out.count("no such data") == 2


def test_an_interruption_ends_it_all():
    done = []

    def do(job: Job) -> None:
        done.append(job)
        raise Interrupted("stopped at step 3")

    with pytest.raises(SystemExit, match="stopped at step 3"):
        experiments.do_all(JOBS, do, lambda: None)
    assert done == JOBS[:1]


def test_results_that_are_not_there_are_none(tmp_path: Path):
    assert experiments.kept(tmp_path / "absent.json") == experiments.finished(tmp_path) == []


def table(file: Path) -> experiments.Trained:
    """Two models, of which `soft` is tested in another use too, with two seeds each."""
    jobs = tuple(experiments.Job("points", model, seed) for seed in (0, 1) for model in ("soft", "hard"))

    def configuration(job: experiments.Job, data: Path) -> tiny_recipe.Config:
        return tiny_recipe.Config(seed=job.seed, epochs=1, dropout=0.3 if job.model == "hard" else 0.0)

    def test(job: experiments.Job, run: Path, best: dict) -> dict[str, experiments.Metrics]:
        found = {job.model: {"error": best["valid_error"], "epoch": 1.0}}
        return found | ({"soft-mode": {"error": 0.5}} if job.model == "soft" else {})

    return experiments.Trained("points", file, tiny_recipe, jobs, configuration, test)


def test_a_table_of_trained_models_is_kept_without_its_runs(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    made = table(tmp_path / "points.json")
    flags = experiments.table_parser(made, "Points.", "nothing").parse_args
    rows = made.run(flags(["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--seed", "1"]))
    assert capsys.readouterr().out.startswith("points-soft-seed1: {'error': ")
    rows = made.run(flags(["--data", str(tmp_path), "--runs", str(tmp_path / "runs")]))
    assert [(row["model"], row["seeds"]) for row in rows] == [("soft", [0, 1]), ("hard", [0, 1]), ("soft-mode", [0, 1])]
    assert rows[2]["metrics"] == {"error": [0.5, 0.5]}
    assert all(len(row["seconds"]) == len(row["curve"]) == 2 for row in rows)
    assert all(
        curve == [[1, seconds, curve[0][2]]]
        for curve, seconds in zip(rows[0]["curve"], rows[0]["seconds"], strict=True)
    )
    assert json.loads((tmp_path / "points.json").read_text())["rows"] == rows
    monkeypatch.setattr(experiments, "train", None)  # nothing is trained again
    assert made.run(flags(["--data", str(tmp_path), "--runs", str(tmp_path / "elsewhere")])) == rows
    assert made.run(flags(["--runs", str(tmp_path / "elsewhere")])) == rows


def test_a_clock_keeps_the_seconds_of_all_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = iter([100.0, 107.0, 107.5, 3.0, 5.0, 5.0])
    monkeypatch.setattr(experiments.time, "process_time", lambda: next(times))
    clock = experiments.Clock(tmp_path / "clock.json", epochs=4)
    clock(0.1, {})
    clock(0.25, {})  # an epoch in 7 seconds
    again = experiments.Clock(tmp_path / "clock.json", epochs=4)
    again(0.3, {})
    again(0.5, {})  # another in 2
    assert experiments.read_clock(tmp_path / "clock.json") == [7.0, 9.0]
