"""What all experiments share: runs that are done once and may be divided, and results that stay as they are."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from regard.app import experiments
from regard.app.training.errors import Failure, Interrupted

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@dataclass(frozen=True)
class Job:
    data: str
    seed: int


JOBS = [Job(data, seed) for data in ("small", "large") for seed in (0, 1)]


@pytest.mark.parametrize("name", ["ram", "ablation", "answer", "parse", "translate"])
def test_what_is_kept_is_printed_with_all_its_keys(name: str, monkeypatch, capsys, tmp_path: Path):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--runs", str(tmp_path), "--json"])
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
