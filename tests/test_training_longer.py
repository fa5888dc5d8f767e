"""Training on beyond the end, and from given weights."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_recipe
import torch
import yaml
from tiny_run import QUIET, contents, copied, send_at, whole_run

from regard.app.training.errors import Failure, Interrupted
from regard.app.training.evaluation import evaluate
from regard.app.training.loop import train
from regard.app.training.run import open_run, read_config, read_metrics
from regard.app.training.weights import read_weights

CONFIG = tiny_recipe.Config()
LONGER = replace(CONFIG, epochs=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory)


@pytest.fixture(scope="module")
def longer(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, and then of two more."""
    run = copied(whole, tmp_path_factory.mktemp("runs") / "longer")
    train(tiny_recipe, LONGER, run, QUIET)
    return run


def fields(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


def test_a_finished_run_goes_on_and_says_so(whole: Path, longer: Path):
    rows = read_metrics(longer)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[:3] == read_metrics(whole)
    assert (fields(longer)["epochs"], fields(longer)["extended"]) == (5, [3])
    assert read_config(longer, tiny_recipe)[1] == LONGER
    assert evaluate(longer, fit=QUIET, recipe=tiny_recipe).keys() == {"test_error", "test_loss", "test_chance"}
    before = contents(longer)
    train(tiny_recipe, LONGER, longer, QUIET)
    assert contents(longer) == before


def test_the_schedule_begins_again_over_the_epochs_that_are_added(longer: Path, monkeypatch: pytest.MonkeyPatch):
    asked, optimiser = [], tiny_recipe.optimiser
    monkeypatch.setattr(
        tiny_recipe, "optimiser", lambda model, config, steps: asked.append(steps) or optimiser(model, config, steps)
    )
    run = copied(longer, longer.parent / "again")
    for path in run.iterdir():
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    (run / "metrics.csv").write_bytes((longer / "metrics.csv").read_bytes())  # so that config.yaml is not begun anew
    train(tiny_recipe, LONGER, run, QUIET)
    assert asked == [18, 12]
    assert contents(run) == contents(longer), "what is lost is trained anew as it was, the extension included"
    rates = [row["learning_rate"] for row in read_metrics(longer)]
    assert rates[2] < rates[4] < rates[3], "low at an end, and high again after the first"


@pytest.mark.parametrize("step", [9, 17, 18, 20, 24])
def test_it_may_be_interrupted_anywhere(longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int):
    """Also before it was extended: it first ends as it was to end."""
    send_at(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGINT))
    stopped = 0
    for config in (CONFIG, LONGER):
        try:
            train(tiny_recipe, config, tmp_path / "run", QUIET)
        except Interrupted:
            stopped += 1
    assert stopped == (step != 17), "the last step of a run ends it"
    train(tiny_recipe, LONGER, tmp_path / "run", QUIET)
    assert contents(tmp_path / "run") == contents(longer)


def test_twice(longer: Path, tmp_path: Path):
    run = copied(longer, tmp_path / "run")
    train(tiny_recipe, replace(CONFIG, epochs=6), run, QUIET)
    assert (fields(run)["epochs"], fields(run)["extended"], len(read_metrics(run))) == (6, [3, 5], 6)


def test_shorter_or_otherwise_it_is_another_run(longer: Path):
    for config, why in (
        (CONFIG, "epochs is 5 there and 3 here"),
        (replace(CONFIG, epochs=9, seed=1), "seed is 0 there and 1 here, epochs is 5 there and 9 here"),
    ):
        before = contents(longer)
        with pytest.raises(Failure, match=rf"with another configuration \({why}\): give another name\."):
            train(tiny_recipe, config, longer, QUIET)
        assert contents(longer) == before


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_it_starts_from_given_weights(whole: Path, tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch):
    first, loss = [], tiny_recipe.loss

    def looked(model, batch):
        first.append(model.linear.weight.detach().clone())
        return loss(model, batch)

    monkeypatch.setattr(tiny_recipe, "loss", looked)
    config, run, start = replace(CONFIG, seed=7), tmp_path / "run", whole / file
    train(tiny_recipe, config, run, QUIET, start=start)
    assert torch.equal(first[0], read_weights(whole)["linear.weight"])
    assert fields(run)["from"] == str(start)
    opened = open_run(run, recipe=tiny_recipe)
    assert opened.config == config
    evaluate(run, fit=QUIET, recipe=tiny_recipe)
    before = contents(run)
    train(tiny_recipe, config, run, QUIET, start=start)
    assert contents(run) == before
    with pytest.raises(Failure, match=r"from is .* there and nothing here"):
        train(tiny_recipe, config, run, QUIET)


def test_a_start_that_is_interrupted_goes_on(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tiny_recipe, CONFIG, tmp_path / "straight", QUIET, start=whole)
    steps = int(read_weights(whole)["steps"])
    send_at(monkeypatch, steps + 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    for _ in range(2):
        try:
            train(tiny_recipe, CONFIG, tmp_path / "run", QUIET, start=whole)
        except Failure as failure:
            assert "stopped at step 9 of 18" in str(failure)  # noqa: PT017
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_a_start_that_is_none(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty").mkdir()
    for start, why in (
        (tmp_path / "empty", "has no model.safetensors"),
        (tmp_path / "a.safetensors", "a.safetensors is not there"),
    ):
        with pytest.raises(Failure, match=why):
            train(tiny_recipe, CONFIG, tmp_path / "run", QUIET, start=start)
    model = tiny_recipe.Model
    monkeypatch.setattr(tiny_recipe, "Model", lambda config, splits: torch.nn.Sequential(model(config, splits)))
    with pytest.raises(Failure, match=r"model\.safetensors cannot be loaded: .*Missing key"):
        train(tiny_recipe, CONFIG, tmp_path / "other", QUIET, start=whole)
