"""What a stranger's run may hold: links, pipes, bombs of aliases, letters that a terminal obeys. None does any harm."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_recipe
from tiny_run import QUIET, copied, whole_run

from regard.app.training.errors import Failure
from regard.app.training.fabric import Fit
from regard.app.training.files import make_folder, read, write
from regard.app.training.loop import train
from regard.app.training.run import open_run, read_config, read_metrics

CONFIG = tiny_recipe.Config()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory)


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return copied(whole, tmp_path / "run")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file elsewhere."""
    (tmp_path / "precious").write_text("precious")
    return tmp_path / "precious"


def fails(run: Path, config: tiny_recipe.Config = CONFIG) -> str:
    with pytest.raises(Failure) as caught:
        train(tiny_recipe, config, run, QUIET)
    assert str(caught.value).isprintable()
    return str(caught.value)


WRITTEN = ["config.yaml", "metrics.csv", "model.safetensors", "last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("name", [*WRITTEN, *(f".{name}.draft" for name in WRITTEN)])
@pytest.mark.parametrize("target", ["precious", "missing"])
def test_no_link_is_written_through(run: Path, precious: Path, name: str, target: str):
    """Whatever training makes of it: it goes on, begins anew, or says what is wrong."""
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious.with_name(target))
    try:
        train(tiny_recipe, replace(CONFIG, epochs=4), run, QUIET)
    except Failure as failure:
        assert name in str(failure) or "config.yaml" in str(failure)  # noqa: PT017
    assert precious.read_text() == "precious" and not precious.with_name("missing").exists()


def test_a_link_in_the_place_of_the_lock(run: Path, precious: Path):
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(precious)
    assert fails(run) == f"{run / '.lock'} cannot be opened (Too many levels of symbolic links)."
    assert precious.read_text() == "precious"


def test_weights_without_a_folder_have_no_metrics(run: Path):
    assert read_metrics(run) and read_metrics(run / "model.safetensors") == []


@pytest.mark.parametrize("name", ["", "tensorboard"])
def test_a_link_in_the_place_of_a_folder(run: Path, tmp_path: Path, name: str):
    (tmp_path / "elsewhere").mkdir()
    link = (tmp_path / "link" if not name else run / name).absolute()
    if link.exists():
        link.rename(tmp_path / "away")
    link.symlink_to(tmp_path / "elsewhere")
    said = fails(run if name else link, replace(CONFIG, epochs=4))
    assert said == f"{link} is a link, which nothing is written through: name the folder that it points to."
    assert os.listdir(tmp_path / "elsewhere") == []
    for put in (lambda: make_folder(link), lambda: write(link / "1.png", b"")):
        with pytest.raises(Failure, match="is a link, which nothing is written through"):
            put()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "model.safetensors", "last.ckpt"])
def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(run: Path, name: str):
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(OSError, match="it is no ordinary file"):
        read(run / name)
    if name != "last.ckpt":
        with pytest.raises(Failure, match=f"{name} (is damaged|cannot be (read|loaded)): it is no ordinary file"):
            (read_metrics if name == "metrics.csv" else lambda run: open_run(run, recipe=tiny_recipe))(run)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("recipe: tiny_recipe\n" + BOMB, r"cannot be read: it has aliases \(\*\)"),
        ("recipe: tiny_recipe\nseed: &s 1\nepochs: *s\n", "cannot be read: it has aliases"),
        ("recipe: tiny_recipe\nx: &x {<<: *x}\n", "cannot be read: it has aliases"),
        ("recipe: tiny_recipe\ndata: " + "x" * 2**17, "cannot be read: it is larger than 65536 bytes"),
        ("recipe: " + "[" * 60_000, "cannot be read: "),
        ("recipe: " + "{a: " * 15_000, "cannot be read: "),
        ("recipe: tiny_recipe\nseed: " + "9" * 60_000, "cannot be read: "),
        ("recipe: tiny_recipe\nseed: 2001-99-99", "cannot be read: "),
        ("recipe: tiny_recipe\nepochs: [3]", "does not fit its recipe"),
        ("recipe: tiny_recipe\nepochs: 3\nextended: 2", "should list under extended"),
        ("recipe: tiny_recipe\nepochs: 3\nextended: [2, 5]", "should list under extended"),
        ("recipe: tiny_recipe\nepochs: 3\nextended: [true]", "should list under extended"),
        ("recipe: tiny_recipe\n? [a, b]\n: 3", "does not fit its recipe|cannot be read"),
        ("recipe: tiny_recipe\n7: 3", "should name a recipe and the fields"),
        ("\xff\xfe", "cannot be read: "),
    ],
)
def test_a_hostile_configuration_is_a_sentence_at_once(run: Path, text: str, why: str):
    (run / "config.yaml").write_text(text, encoding="latin-1")
    start = time.monotonic()
    with pytest.raises(Failure, match=f"config.yaml ({why})") as caught:
        read_config(run, tiny_recipe)
    assert time.monotonic() - start < 5
    assert str(caught.value).isprintable()
    assert fails(run, replace(CONFIG, epochs=4))


@pytest.mark.parametrize("letters", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "a\nb", "\u2028"])
def test_letters_that_a_terminal_obeys_are_spelled_out(run: Path, letters: str, capfd: pytest.CaptureFixture[str]):
    escaped = letters.encode("unicode_escape").decode()
    (run / "config.yaml").write_text(f'recipe: tiny_recipe\ndata: "{escaped}"\nseed: "{escaped}"\nepochs: 3\n')
    said = fails(run)
    assert "data is " in said
    with pytest.raises(Failure, match="does not fit its recipe") as caught:
        read_config(run, tiny_recipe)
    assert str(caught.value).isprintable()
    (run / "config.yaml").write_text(f'recipe: "{escaped}"\n')
    with pytest.raises(Failure, match=r"names the recipe|is a run of the recipe") as caught:
        open_run(run, recipe=None if "\n" in letters else tiny_recipe)
    assert str(caught.value).isprintable()
    train(tiny_recipe, CONFIG, run.parent / f"named{letters}", Fit(accelerator="cpu"))
    assert all(line.isprintable() for line in capfd.readouterr().err.split("\n"))
