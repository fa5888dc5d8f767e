"""Comparisons: what is trained side by side, reused, stopped and resumed; the table and the page that come of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from regard.app import cli, flags
from regard.app.compare import costs, summary
from regard.app.compare.comparison import Plan, answer, claim, fields, kinds
from regard.app.training import workers
from regard.app.training.errors import Failure
from regard.recipes import glimpse, translate
from regard.recipes.base import open_recipe

TOY = '''"""Tell bright images from dark ones."""

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from regard.app.data.splits import Splits
from regard.app.report.report import Look
from regard.recipes.base import Metric

METRIC = Metric("valid_error", "min", "share of the images answered wrongly")
QUICK = {"epochs": 1}
KINDS = {"soft": "Sees all.", "hard": "Sees a corner."}


@dataclass
class Config:
    seed: int = 0
    data: str = "embedded"
    attention: Literal["soft", "hard"] = "hard"
    epochs: int = 2
    batch: int = 8
    learning_rate: float = 0.1
    pause: float = 0.0
    poison: bool = False


class Split:
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(2, (count,), generator=generator)
        noise = torch.rand(count, 1, 8, 8, generator=generator)
        self.images = (noise + 0.1 * self.labels[:, None, None, None]).clamp(0, 1)

    def __len__(self):
        return len(self.labels)

    def batch(self, indices, generator):
        return {"image": self.images[indices], "label": self.labels[indices]}


def data(config):
    return Splits(Split(32, 1), Split(16, 2), Split(20, 3 if config.data == "embedded" else 4), "noise of two kinds")


class Model(nn.Module):
    def __init__(self, config, splits):
        super().__init__()
        self.config = config
        self.linear = nn.Linear(64 if config.attention == "soft" else 4, 2)

    def forward(self, image):
        return self.linear(image.flatten(1)[:, : self.linear.in_features])


def loss(model, batch):
    time.sleep(model.config.pause)
    cost = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
    poisoned = model.config.poison and model.config.attention == "hard"
    logs = {"signal_to_noise": cost.detach()} if model.config.attention == "hard" else {}
    return cost * (torch.nan if poisoned else 1), logs


def evaluate(model, batch):
    error = (model(batch["image"]).argmax(-1) != batch["label"]).float()
    return {"error": error, "pixels": torch.full_like(error, model.linear.in_features)}


def optimiser(model, config, steps):
    optimizer = torch.optim.SGD(model.parameters(), config.learning_rate)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)


def look(model, batch):
    return Look(batch["image"], batch["label"], model(batch["image"]).argmax(-1))
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with nothing in it but a recipe of the user's own, and where its comparisons will be."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "compare" / "toy"


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "regard", "compare", "./toy.py", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes() -> list[int]:
    """The processes that train for this test, told by their current directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = os.readlink(process / "cwd") == os.getcwd()
            if ours and "regard.app.training.workers" in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_compare_trains_measures_and_reports(toy: Path, capsys, monkeypatch):
    assert cli.main(["compare", "./toy.py", "--seeds", "2", "--json", "--out", "kept.json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert json.loads(Path("kept.json").read_text()) == results
    assert json.loads((toy / "default" / "results.json").read_text()) == results
    soft, hard = results["rows"]
    assert (soft["model"], hard["model"]) == ("soft", "hard")
    assert (soft["test_pixels"], hard["test_pixels"]) == (64, 4)
    assert (soft["multiply_adds"], hard["multiply_adds"]) == (128, 8)
    assert 0 < soft["training"] < soft["inference"]
    assert "train_signal_to_noise" in hard
    assert "train_signal_to_noise" not in soft
    assert results["error_spread"] == "standard deviation over the seeds"
    errors = [
        json.loads((toy / "default" / f"hard-seed{seed}" / "test.json").read_text())["test_error"] for seed in (0, 1)
    ]
    assert hard["test_error"] == pytest.approx(sum(errors) / 2)
    page = (toy / "default" / "report.html").read_text()
    assert "noise of two kinds" in page
    assert "Sees a corner." in page
    assert processes() == []
    monkeypatch.setattr(workers, "Worker", None)  # what is finished is not trained again, so none may be started
    assert cli.main(["compare", "./toy.py", "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert "± binomial standard error" in out
    assert "runs/compare/toy/default/report.html" in out


def test_the_page_explains_what_was_compared_and_nothing_else(toy: Path):
    assert cli.main(["compare", "./toy.py", "--attentions", "hard", "--seeds", "1"]) == 0
    (page,) = toy.glob("*/report.html")
    assert "Sees a corner." in page.read_text() and "Sees all." not in page.read_text()
    assert "The kinds of toy, side by side" in page.read_text() and "look everywhere" not in page.read_text()


def test_one_comparison_is_not_mistaken_for_another(toy: Path, capsys):
    recipe = flags.find_recipe("./toy.py")
    claim(Plan(recipe, "attention", recipe.Config(epochs=1), 1, toy / "mine"))
    (toy / "mine" / "soft-seed0" / "last.ckpt").touch()
    assert cli.main(["compare", "./toy.py", "--epochs", "1", "--batch", "4", "--name", "mine"]) == 1
    assert "exists already, and with another configuration (batch is 8 there and 4 here)" in capsys.readouterr().err


def test_ctrl_c_stops_everything_and_the_same_call_goes_on(toy: Path):
    words = ("--epochs", "8", "--pause", "0.1")
    first = start(*words)
    run = toy / "epochs=8-pause=0.1" / "hard-seed0"
    wait_for(lambda: len(rows(run)) > 2)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=60)
    assert first.returncode == 130
    assert error.endswith("regard: stopped, with everything saved: the same command goes on from there.\n")
    assert "Traceback" not in error
    assert processes() == []
    done = rows(run)
    assert 2 < len(done) < 8
    assert cli.main(["compare", "./toy.py", *words]) == 0
    assert rows(run)[: len(done)] == done
    assert len(rows(run)) == 8


def rows(run: Path) -> list[str]:
    file = run / "metrics.csv"
    return file.read_text().splitlines()[1:] if file.is_file() else []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_no_worker_outlives_a_killed_comparison(toy: Path):
    first = start("--epochs", "1000", "--pause", "0.02")
    wait_for(lambda: rows(toy / "epochs=1000-pause=0.02" / "hard-seed0"))
    assert len(processes()) == 2
    first.kill()
    first.communicate()
    wait_for(lambda: not processes(), 20)


def test_a_run_that_fails_is_named_and_stops_the_others(toy: Path, capsys):
    assert cli.main(["compare", "./toy.py", "--poison", "true"]) == 1
    error = capsys.readouterr().err
    assert "regard: the loss became nan at step 1 of 8" in error
    assert processes() == []


def test_a_worker_that_dies_is_reported_with_its_log(tmp_path: Path):
    dead = workers.Worker(tmp_path / "log.txt", "glimpse")
    dead.process.kill()
    try:
        with pytest.raises(
            Failure, match=r"the process that trained a/b has died \(status -9\); .*log.txt may say why"
        ):
            dead.train(Path("a/b"), lambda fraction, logs: None)
    finally:
        dead.end()


def test_the_longest_run_is_trained_first(tmp_path: Path, monkeypatch):
    asked = []

    class Recorder:
        def __init__(self, log: Path, recipe: str):
            pass

        def train(self, run: Path, tell: object) -> None:
            asked.append(run.name)

        def end(self) -> None:
            pass

    monkeypatch.setattr(workers, "Worker", Recorder)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / workers.RESULTS).write_text("{}")
    runs = {tmp_path / "short": 1.0, tmp_path / "long": 3.0, tmp_path / "done": 9.0}
    workers.train_all(runs, 1, tmp_path / "log", "glimpse")
    assert asked == ["long", "short"]


def test_a_recipe_without_kinds_of_attention_cannot_be_compared():
    import tiny_recipe

    with pytest.raises(Failure, match="the recipe tiny_recipe has no kinds of attention to compare"):
        kinds(open_recipe(tiny_recipe), "attention")


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--attention", "soft"], ["--seed", "1"]])
def test_a_wrong_comparison_is_refused(words: list[str], toy: Path, capsys):
    assert cli.main(["compare", "./toy.py", *words]) == 2
    assert re.match(r"regard: (--seeds expected at least 1, but got 0|unknown flag '--\w+')", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--reader uniform", "--reader is what is compared: its kinds are chosen by --readers"),
        ("--attention hard --attentions soft,hard", "--attention is what is compared: its kinds are chosen by --atten"),
        ("--readers sum,uniform --attentions soft,hard", "one thing is compared at a time, but got --readers and --at"),
        ("--attentions soft,harder", "unknown attention 'harder'"),
    ],
)
def test_one_of_two_fields_is_compared(words: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["compare", "read", *words.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [("glimpse", ["attention"]), ("read", ["reader", "attention"]), ("recall", ["address"]), ("tag", ["over"])],
)
def test_what_can_be_compared(recipe: str, expected: list[str]):
    assert [*fields(flags.find_recipe(recipe))] == expected


def test_images_a_second_are_told_apart():
    rates = costs.rates({"one": lambda: time.sleep(0.002), "two": lambda: time.sleep(0.004)}, images=10, seconds=0.1)
    assert rates["one"] / rates["two"] == pytest.approx(2, rel=0.3)
    assert rates["two"] <= 2500


def test_multiply_adds_are_counted_in_products_and_convolutions():
    convolution = torch.nn.Conv2d(3, 5, 3, bias=False)
    assert costs.multiply_adds(lambda: convolution(torch.rand(2, 3, 10, 10))) == 2 * 5 * 64 * 27
    assert costs.multiply_adds(lambda: torch.rand(10) + 1) == 0


def test_measuring_trains_a_copy():
    import tiny_recipe

    config = tiny_recipe.Config()
    splits = tiny_recipe.data(config)
    model = tiny_recipe.Model(config, splits)
    before = model.linear.weight.clone()
    step = costs.training(open_recipe(tiny_recipe), config, model, splits.train.batch(torch.arange(8), None))
    step()
    assert torch.equal(model.linear.weight, before)


def test_the_table_shows_what_was_measured(capsys):
    rows = [
        {"model": "soft", "test_error": 0.05, "error_spread": 0.004, "test_pixels": 4800.0, "test_entropy": 0.5},
        {"model": "cnn", "test_error": 0.021, "error_spread": 0.003},
    ]
    found = summary.measured(glimpse.COLUMNS, rows)
    assert [measure.name for measure in found] == ["test error", "pixels read", "entropy"]
    assert summary.columns(found, "a standard error", "image")[0].meaning.endswith("± a standard error.")
    assert summary.cells(found, rows[1]) == ["2.1 ± 0.3", None, None]
    summary.show(glimpse.COLUMNS, rows, "digits", "a standard error", "image")
    out = capsys.readouterr().out
    assert all(word in out for word in ("digits", "5.0 ± 0.4", "4,800", "± a standard error"))


def test_names_are_never_taken_for_markup_or_obeyed(capsys):
    rows = [{"model": "[/nope]", "test_error": 0.05, "error_spread": 0.004}]
    summary.show(glimpse.COLUMNS, rows, "[/red] \x1b[31mof [bold]", "spread", "image")
    out = capsys.readouterr().out
    assert "[/nope]" in out and "[/red] \\x1b[31mof [bold]" in out and "\x1b[31m" not in out


def test_the_answer_is_a_sentence():
    rows = [{"model": "soft", "test_bleu": 24.14, "test_error": 0.9}, {"model": "hard", "test_bleu": 5.0}]
    assert answer(rows, translate.METRIC, "sentence") == "BLEU on the test sentences: soft 24.1, hard 5.0."


def test_off_a_terminal_a_line_is_said_as_each_run_ends_and_now_and_then(tmp_path: Path, capfd):
    first, second = tmp_path / "first", tmp_path / "second\x1b[2J"
    with workers.display({first: 1.0, second: 3.0}) as tell:
        tell(first, 0.5, {"epoch": 1, "train_loss": 2.0})
        tell(first, 1.0, {"epoch": 2, "train_loss": 1.5, "valid_error": 0.25})
        tell(second, 1.0, {"epoch": 2, "valid_error": 0.5})
    assert capfd.readouterr().err.splitlines() == [
        "all 25%  first 100%  epoch 2  valid_error 0.25",
        "all 100%  second\\x1b[2J 100%  epoch 2  valid_error 0.5",
    ]


def test_the_log_is_no_link(tmp_path: Path):
    (tmp_path / "log.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        workers.Worker(tmp_path / "log.txt", "toy")
    assert not (tmp_path / "precious").exists()
