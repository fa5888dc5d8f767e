"""What can be missing of a run, in all combinations: what training, and what evaluation, make of what is left."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import tiny_recipe
from tiny_run import QUIET, contents, copied, whole_run

from regard.app.training.checkpoints import read_checkpoint, write_checkpoint
from regard.app.training.errors import Failure
from regard.app.training.evaluation import evaluate
from regard.app.training.loop import train
from regard.app.training.metrics import best_row, read_metrics
from regard.app.training.weights import digest, read_weights

CONFIG = tiny_recipe.Config()
PARTS = {
    "config": ("config.yaml",),
    "weights": ("model.safetensors",),
    "metrics": ("metrics.csv",),
    "checkpoint": ("last.ckpt", "previous.ckpt"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that failed in its third epoch, so that two are there."""
    run = tmp_path_factory.mktemp("runs") / "stopped"
    loss = tiny_recipe.loss

    def failing(model, batch):
        total, logs = loss(model, batch)
        return total * (float("nan") if model.steps > 14 else 1), logs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_recipe, "loss", failing)
        assert "the loss became nan at step 15 of 18" in outcome(lambda: train(tiny_recipe, CONFIG, run, QUIET))
    return run


def left_of(run: Path, folder: Path, kept: dict[str, bool]) -> Path:
    """A copy of a run of which only some is kept."""
    target = copied(run, folder / "run")
    for part, files in PARTS.items():
        for file in files if not kept[part] else ():
            (target / file).unlink(missing_ok=True)
    return target


def outcome(action: Callable[[], object]) -> str:
    """What a failure says, or nothing if there is none."""
    try:
        action()
    except Failure as failure:
        return str(failure)
    return ""


COMBINATIONS = [dict(zip(PARTS, each, strict=True)) for each in product((True, False), repeat=4)]


@pytest.mark.parametrize("kept", COMBINATIONS, ids=lambda kept: "-".join(filter(kept.get, kept)) or "nothing")
@pytest.mark.parametrize("which", ["whole", "stopped"])
def test_training_ends_as_it_would_have_or_says_what_is_missing(whole, tmp_path, request, which, kept, capfd):
    run = left_of(request.getfixturevalue(which), tmp_path, kept)
    left = any(kept[part] for part in ("weights", "metrics", "checkpoint"))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    # an evaluation says what is missing, and changes nothing
    evaluated = outcome(lambda: evaluate(run, fit=QUIET, recipe=tiny_recipe))
    if not kept["config"]:
        assert evaluated == f"{run} is not a run: it has no config.yaml."
    elif kept["weights"]:
        assert evaluated == ""
    elif kept["metrics"]:
        assert evaluated == f"{run} has lost model.safetensors: the command that trained it makes it anew."
    else:
        assert evaluated == f"{run} has no model.safetensors yet: its first epoch has not ended."
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    # another configuration is refused wherever there is something to lose
    other = outcome(lambda: train(tiny_recipe, replace(CONFIG, seed=1), copied(run, tmp_path / "other"), QUIET))
    if left:
        assert "seed is 0 there and 1 here" in other or "it has no config.yaml" in other
    else:
        assert other == ""

    # the same configuration goes on, or begins anew and says so
    capfd.readouterr()
    said = outcome(lambda: train(tiny_recipe, CONFIG, run, QUIET))
    warned = capfd.readouterr().err
    if left and not kept["config"]:
        assert said == f"{run} is not a run: it has no config.yaml."
        return
    assert said == ""
    assert best_row(read_metrics(run), tiny_recipe.METRIC) == best_row(read_metrics(whole), tiny_recipe.METRIC)
    assert digest(read_weights(run)) == digest(read_weights(whole))
    if (run / "last.ckpt").exists():
        assert contents(run) == contents(whole)
    finished = which == "whole" and kept["metrics"] and kept["weights"]
    lost = left and not finished and not (kept["checkpoint"] and kept["weights"])
    if not kept["checkpoint"] or kept["weights"]:
        assert bool(warned) == lost, warned
    assert not warned or warned.startswith(f"warning: {run} has lost ")


def test_what_was_trained_without_its_checkpoint_is_not_trained_again(whole: Path, tmp_path: Path):
    run = left_of(whole, tmp_path, {"config": True, "weights": True, "metrics": True, "checkpoint": False})
    before = {path: path.stat().st_mtime_ns for path in run.iterdir() if path.name != ".lock"}
    train(tiny_recipe, CONFIG, run, QUIET)
    assert before == {path: path.stat().st_mtime_ns for path in run.iterdir() if path.name != ".lock"}


def test_a_checkpoint_of_another_run_or_of_something_else(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = left_of(whole, tmp_path, {"config": True, "weights": True, "metrics": False, "checkpoint": False})
    other = tmp_path / "other"
    train(tiny_recipe, replace(CONFIG, seed=1, epochs=1), other, QUIET)
    (run / "last.ckpt").write_bytes((other / "last.ckpt").read_bytes())
    said = outcome(lambda: train(tiny_recipe, CONFIG, run, QUIET))
    assert said == (
        f"{run / 'last.ckpt'} is of another run (seed is 1 there and 0 here, epochs is 1 there and 3 here): nothing "
        "was loaded from it."
    )
    state = read_checkpoint(whole / "last.ckpt")
    for other in ({"state_dict": {}}, state | {"run": 7}, {"run": state["run"]}, state | {"run": {"seed": 0}}):
        for _ in range(2):
            write_checkpoint(run, other)
        said = outcome(lambda: train(tiny_recipe, CONFIG, run, QUIET))
        assert re.match(rf"{run / 'last.ckpt'} is (damaged|of another run)", said)
    for other in (state | {"model": {}}, state | {"optimizer": {"state": {}, "param_groups": [7]}}):
        write_checkpoint(run, other)
        said = outcome(lambda: train(tiny_recipe, CONFIG, run, QUIET))
        assert said.startswith(f"{run / 'last.ckpt'} cannot be loaded: ")
