"""The command line: what it prints, what it refuses and in which words, and its exit statuses."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regard.app import cli, flags

TOY = '''"""Guesses a number: there is nothing to see.

More about it.
"""

from dataclasses import dataclass
from typing import Literal

from regard.recipes.base import Metric

METRIC = Metric("valid_error", "min", "share of wrong guesses")
NAMED_BY = ("attention",)
Model = data = loss = evaluate = None


@dataclass
class Config:
    """What is trained."""

    seed: int = 0
    """Seeds all that is random."""
    data: str = "embedded"
    """Which data."""
    attention: Literal["hard", "soft"] = "hard"
    """How it looks."""
    epochs: int = 3
    """How often it sees every example."""

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs expected at least 1, but got {self.epochs}.")
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple]]:
    """A recipe named toy, and what training is asked to do with it."""
    import regard.app.training.loop
    import regard.recipes

    (here / "recipes").mkdir()
    (here / "recipes" / "toy.py").write_text(TOY)
    monkeypatch.setattr(regard.recipes, "__path__", [*regard.recipes.__path__, str(here / "recipes")])
    asked = []
    monkeypatch.setattr(regard.app.training.loop, "train", lambda *given: asked.append(given) or {"valid_error": 0.25})
    yield asked
    sys.modules.pop("regard.recipes.toy", None)


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit status, the output and the errors."""
    status = cli.main(words)
    out, error = capsys.readouterr()
    return status, out, error


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence with which a wrong call is refused."""
    status, out, error = call(capsys, *words)
    assert (status, out) == (2, "")
    assert error.startswith("regard: ")
    assert error.count("\n") == 1
    return error.removeprefix("regard: ").rstrip("\n")


def test_help_names_every_verb(capsys):
    for words in ([], ["--help"], ["-h"]):
        status, out, error = call(capsys, *words)
        assert (status, error) == (0, "")
        assert all(f"  {verb}" in out for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_explains_itself(verb: str, capsys):
    status, out, error = call(capsys, verb, "--help")
    assert (status, error) == (0, "")
    assert f"usage: regard {verb}" in out


def test_help_imports_nothing_heavy():
    program = [sys.executable, "-X", "importtime", "-m", "regard", "--help"]
    imported = subprocess.run(program, capture_output=True, text=True, check=True).stderr
    names = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
    assert "regard.app.cli" in names
    assert not names & {"torch", "numpy", "lightning", "jsonargparse", "rich"}


def test_version(capsys):
    assert call(capsys, "--version") == (0, "regard 0.1.0\n", "")


def test_list_shows_recipes_and_mechanisms(toy, capsys):
    status, out, _ = call(capsys, "list")
    assert status == 0
    assert "  toy" in out
    assert "Guesses a number" in out
    assert "  sparsemax" in out
    assert "Benchmarks" not in out and "Experiments" not in out


def test_list_with_the_scripts_of_this_directory(toy, here, capsys):
    for folder, name in (("benchmarks", "speed"), ("experiments", "table")):
        (here / folder / "helpers").mkdir(parents=True)
        (here / folder / f"{name}.py").touch()
    printed = call(capsys, "list")[1]
    assert "Benchmarks (regard bench NAME)\n\n  speed\n" in printed
    assert "Experiments (regard experiment NAME)\n\n  table\n" in printed
    listed = json.loads(call(capsys, "list", "--json")[1])
    assert listed["recipes"]["toy"] == "Guesses a number"
    assert (listed["benchmarks"], listed["experiments"]) == (["speed"], ["table"])
    soft = next(row for row in listed["mechanisms"] if row["name"] == "soft")
    assert (soft["score"], soft["over"], soft["read"]) == ("Additive", "softmax", "mean")


def test_cite_prints_each_paper_once(capsys):
    status, out, _ = call(capsys, "cite", "soft", "hard", "additive")
    assert status == 0
    assert out.count("@inproceedings") == 2


def test_train_builds_the_typed_config_and_the_run(toy, capsys):
    words = ("--epochs", "2", "--attention=soft", "--seed", "7", "--devices", "2")
    assert call(capsys, "train", "toy", *words)[:2] == (0, "runs/toy/soft-seed7  valid_error 0.25\n")
    recipe, config, run, fit, start = toy[0]
    assert config == recipe.Config(seed=7, attention="soft", epochs=2)
    assert run == Path("runs/toy/soft-seed7")
    assert fit.devices == 2
    assert start is None


def test_train_begins_from_the_run_that_is_named(toy, here, capsys):
    other = here / "runs" / "toy" / "first"
    other.mkdir(parents=True)
    (other / "config.yaml").touch()
    call(capsys, "train", "toy", "--from", "toy/first")
    assert toy[0][4] == Path("runs/toy/first")


def test_train_into_a_named_run(toy, capsys):
    call(capsys, "train", "toy", "--name", "first")
    assert toy[0][2] == Path("runs/toy/first")


def test_train_reads_yaml_and_flags_override_it(toy, here, capsys):
    (here / "run.yaml").write_text("recipe: toy\nseed: 3\nepochs: 9\n")  # as in a run's config.yaml
    assert call(capsys, "train", "toy", "--config", "run.yaml", "--epochs", "4")[0] == 0
    assert (toy[0][1].seed, toy[0][1].epochs) == (3, 4)


def test_print_config_prints_what_config_reads(toy, here, capsys):
    status, out, _ = call(capsys, "train", "toy", "--epochs", "5", "--print_config")
    assert status == 0
    (here / "run.yaml").write_text(out)
    call(capsys, "train", "toy", "--config", "run.yaml")
    assert toy[0][1].epochs == 5


def test_the_help_of_a_recipe_is_made_of_its_config(toy, capsys):
    out = call(capsys, "train", "toy", "--help")[1]
    assert "How often it sees every example. (type: int, default: 3)" in " ".join(out.split())
    assert "--attention {hard,soft}" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trian", "unknown verb 'trian': did you mean 'train'?"),
        ("list --jsno", "unknown flag '--jsno': did you mean '--json'?"),
        ("list now", "unrecognized arguments: now"),
        ("cite", "the following arguments are required: NAME"),
        ("cite aditive", "unknown mechanism or paper 'aditive': did you mean 'additive'?"),
        ("train toi", "unknown recipe 'toi': did you mean 'toy'?"),
        ("train toy --epoch 3", "unknown flag '--epoch': did you mean '--epochs'?"),
        ("train toy --epochs three", "--epochs expected int, but got 'three'"),
        ("train toy --epochs", "argument --epochs: expected one argument"),
        ("train toy --attention tree", "--attention expected one of 'hard', 'soft', but got 'tree'"),
        ("train toy --epochs 0", "epochs expected at least 1, but got 0."),
        ("train toy soft", "unrecognized arguments: soft"),
        ("evaluate runs/toy/none", "unknown run 'runs/toy/none': there are none"),
        ("bench speed", "the current directory has no folder benchmarks, whose scripts regard bench runs"),
        ("experiment ram", "the current directory has no folder experiments, whose scripts regard experiment runs"),
    ],
)
def test_a_wrong_call_is_refused_in_one_sentence(words: str, sentence: str, toy, capsys):
    assert refused(capsys, *words.split()) == sentence
    assert toy == []


def test_a_flag_cannot_name_a_function(toy, capsys):
    assert "--progress: invalid choice: 'os.system'" in refused(capsys, "train", "toy", "--progress", "os.system")


def test_train_without_a_recipe_names_them(toy, capsys):
    for words in (["train"], ["train", "--epochs", "3"]):
        sentence = refused(capsys, *words)
        assert sentence.startswith("expected the name of a recipe after regard train: there are")
        assert "toy" in sentence


def test_a_wrong_configuration_file_is_refused(toy, here, capsys):
    (here / "run.yaml").write_text("epohcs: 3")
    sentence = refused(capsys, "train", "toy", "--config", "run.yaml")
    assert sentence == "unknown name in the configuration file 'epohcs': did you mean 'epochs'?"
    (here / "run.yaml").write_text("epochs: [3")
    assert "YAML of names and values" in refused(capsys, "train", "toy", "--config", "run.yaml")
    assert "File does not exist" in refused(capsys, "train", "toy", "--config", "absent.yaml")
    (here / "run.yaml").write_text("recipe: glimpse")
    assert (
        refused(capsys, "train", "toy", "--config", "run.yaml") == "--recipe expected one of 'toy', but got 'glimpse'"
    )


def test_an_unknown_run_is_answered_with_the_nearest(here, capsys):
    (here / "runs" / "toy" / "hard-seed0").mkdir(parents=True)
    (here / "runs" / "toy" / "hard-seed0" / "config.yaml").touch()
    sentence = refused(capsys, "evaluate", "runs/toy/hard-sed0")
    assert sentence == "unknown run 'runs/toy/hard-sed0': did you mean 'runs/toy/hard-seed0'?"


def test_an_existing_folder_that_is_no_run_is_named_so(here, capsys):
    (here / "runs" / "toy").mkdir(parents=True)
    assert "unknown run 'runs/toy'" in refused(capsys, "look", "runs/toy")


@pytest.mark.parametrize(("verb", "folder"), [("bench", "benchmarks"), ("experiment", "experiments")])
def test_a_script_runs_with_the_flags_that_are_left(verb: str, folder: str, here, capfd):
    (here / folder / "beside").mkdir(parents=True)
    (here / folder / "beside" / "__init__.py").write_text("STATUS = 3")
    (here / folder / "speed.py").write_text("import sys, beside; print(sys.argv[1:]); sys.exit(beside.STATUS)")
    status, out, _ = call(capfd, verb, "speed", "--json", "--rounds", "2")
    assert (status, out) == (3, "['--json', '--rounds', '2']\n")
    sentence = f"unknown {folder.removesuffix('s')} 'sped': did you mean 'speed'?"
    assert refused(capfd, verb, "sped") == sentence


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (flags.Wrong("no such thing"), 2, "no such thing"),
        (OSError(28, "No space left on device", "runs/a"), 1, "No space left on device: runs/a"),
        (ValueError("data folder /none does not exist"), 1, "data folder /none does not exist"),
        (RuntimeError("what\n  now"), 1, "RuntimeError: what now (--debug shows where)"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_whatever_fails_is_one_sentence(error: BaseException, status: int, sentence: str, monkeypatch, capsys):
    def fail(words: list[str]) -> None:
        raise error

    monkeypatch.setitem(cli.VERBS, "list", (fail, "", ""))
    assert call(capsys, "list") == (status, "", f"regard: {sentence}\n")
    with pytest.raises(type(error)):
        cli.main(["list", "--debug"])


def test_a_failure_has_its_own_status(monkeypatch, capsys):
    from regard.app.training.errors import Failure, Interrupted

    for failure, status in ((Failure("a disk"), 1), (Interrupted("at step 3"), 130)):
        monkeypatch.setitem(cli.VERBS, "list", (lambda words, failure=failure: (_ for _ in ()).throw(failure), "", ""))
        assert call(capsys, "list") == (status, "", f"regard: {failure}\n")


def test_a_reader_that_has_gone_is_no_error():
    listing = subprocess.Popen([sys.executable, "-m", "regard", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert listing.stdout is not None
    listing.stdout.close()
    assert listing.wait(10) == 1
    assert listing.stderr is not None
    assert listing.stderr.read() == b""
    listing.stderr.close()


def test_train_evaluate_and_look_on_the_recipe_itself(here, few_digits, capsys):
    small = ("--epochs", "1", "--batch", "90", "--hidden", "8", "--glimpses", "3", "--draws", "2")
    small += ("--data", str(few_digits))
    status, out, error = call(capsys, "train", "glimpse", *small)
    assert status == 0
    assert out.startswith("runs/glimpse/hard-seed0  epoch 1  step 10")
    assert "900 training" in error
    status, again, error = call(capsys, "train", "glimpse", *small)
    assert (status, again) == (0, out)
    finished, best = error.splitlines()
    assert finished == "runs/glimpse/hard-seed0 is already finished."
    assert best.startswith("evaluate and predict use the weights of epoch 1, the best (valid_error ")
    status, _, error = call(capsys, "train", "glimpse", *small, "--hidden", "9")
    assert status == 1
    assert "exists already, and with another configuration (hidden is 8 there and 9 here)" in error
    metrics = json.loads(call(capsys, "evaluate", "glimpse/hard-seed0", "--json")[1])
    assert 0 < metrics["test_error"] <= 1
    again = json.loads(call(capsys, "evaluate", "glimpse/hard-seed0", "--json", "--data", str(few_digits))[1])
    assert again == metrics
    pictures = call(capsys, "look", "runs/glimpse/hard-seed0")[1].split()
    assert len(pictures) == 14  # a sheet, twelve images, the page
    assert all(Path(picture).stat().st_size > 1000 for picture in pictures)
    assert "Did it matter where it looked?" in Path(pictures[-1]).read_text(encoding="utf-8")
    status, _, error = call(capsys, "evaluate", "glimpse/hard-seed0", "--data", "absent")
    assert status == 1
    assert error.startswith("regard: data folder absent does not exist; expected 'embedded'")
