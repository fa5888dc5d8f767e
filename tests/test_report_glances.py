"""How a model learned where to look: what is kept after each epoch, through every interruption, and how it is shown."""

import itertools
import json
import os
import signal
from pathlib import Path

import pytest
import tiny_recipe
import torch
from test_faults import after_fsyncs
from test_report_matrix import made
from tiny_run import contents, send_at

from regard.app.report.glances import few, read_learning, write_learning
from regard.app.report.layout import page
from regard.app.report.matrix import Matrix
from regard.app.report.report import Report
from regard.app.report.text_figures import learned, png
from regard.app.training.checkpoints import read_checkpoint
from regard.app.training.errors import Failure, Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import read_metrics

CONFIG = tiny_recipe.Config()  # three epochs of six steps
QUIET = Fit(accelerator="cpu", progress="none")


def glance(model, batch) -> Matrix:
    """Something that depends on the weights and on the example, and draws where training must not notice."""
    assert not model.training and not torch.is_grad_enabled() and len(batch["points"]) == 1
    torch.rand(3)
    return Matrix(["one", "two", "three"], ["class"], model(batch["points"]).softmax(-1))


@pytest.fixture
def glancing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_recipe, "glance", glance, raising=False)


def trained(run: Path) -> Path:
    train(tiny_recipe, CONFIG, run, QUIET)
    return run


def test_it_is_kept_after_each_epoch_of_the_weights_it_then_had(glancing, tmp_path: Path):
    found = read_learning(trained(tmp_path / "run"))
    assert list(found) == [1, 2, 3]
    assert len({tuple(each.weights.flatten().tolist()) for each in found.values()}) == 3
    model = tiny_recipe.Model(CONFIG, tiny_recipe.data(CONFIG)).eval()
    state = read_checkpoint(tmp_path / "run" / "last.ckpt")["model"]
    model.load_state_dict({name.removeprefix("model."): each for name, each in state.items()})
    with torch.no_grad():
        wanted = glance(model, tiny_recipe.data(CONFIG).valid.batch(torch.tensor([0])))
    torch.testing.assert_close(found[3].weights, wanted.weights, atol=1e-4, rtol=0)
    assert (found[3].source, found[3].target) == (wanted.source, wanted.target)


def test_training_is_as_if_nobody_had_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = contents(trained(tmp_path / "plain"))
    assert not (tmp_path / "plain" / "learning.json").exists()
    monkeypatch.setattr(tiny_recipe, "glance", glance, raising=False)
    seen = contents(trained(tmp_path / "seen"))
    assert {name: each for name, each in seen.items() if not name.startswith("/glances")} == plain


@pytest.mark.parametrize("step", [2, 6, 11, 16])
def test_an_interrupted_run_has_kept_the_same(step: int, glancing, tmp_path: Path, monkeypatch):
    whole, run = trained(tmp_path / "whole"), tmp_path / "run"
    send_at(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        train(tiny_recipe, CONFIG, run, QUIET)
    (run / "learning.json").unlink(missing_ok=True)  # as if it had not been written yet
    assert contents(trained(run)) == contents(whole)
    assert (run / "learning.json").read_bytes() == (whole / "learning.json").read_bytes()


@pytest.mark.parametrize("count", [6, 15])  # the first epoch's, and the folder in which the second's lies
def test_a_full_disk_loses_nothing(count: int, glancing, tmp_path: Path, monkeypatch):
    whole, run = trained(tmp_path / "whole"), tmp_path / "run"
    with monkeypatch.context() as patch:
        after_fsyncs(patch, count, lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(Failure, match=r"learning.json could not be written \(No space left on device\)"):
            train(tiny_recipe, CONFIG, run, QUIET)
    known = read_learning(run)
    assert len(known) in (len(read_metrics(run)), len(read_metrics(run)) + 1)
    assert contents(trained(run)) == contents(whole)
    assert (run / "learning.json").read_bytes() == (whole / "learning.json").read_bytes()


def test_where_there_is_nothing_to_see_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiny_recipe, "glance", lambda model, batch: None, raising=False)
    assert read_learning(trained(tmp_path)) == {} and not (tmp_path / "learning.json").exists()


@pytest.mark.parametrize(
    "text",
    ["[", "3", "[3]", "[{}]", '[{"epoch": 1, "source": ["a"], "target": ["b"], "weights": [[0.5, 0.5]]}]', "\xff"],
)
def test_a_damaged_file_is_refused_in_a_sentence(text: str, tmp_path: Path):
    (tmp_path / "learning.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure) as caught:
        read_learning(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/learning.json cannot be read: ") and "\n" not in said


def test_what_is_written_is_text_with_few_digits(tmp_path: Path):
    write_learning(tmp_path, [{"epoch": 1, "source": ["Mäuse"], "target": ["mice"], "weights": [[0.3333]]}])
    text = (tmp_path / "learning.json").read_text(encoding="utf-8")
    assert "Mäuse" in text and json.loads(text)[0]["epoch"] == 1


@pytest.mark.parametrize("count", range(1, 31))
def test_few_epochs_are_as_far_apart_as_each_other(count: int):
    found = list(few({2 * n: n for n in range(count)}))
    assert len(found) == min(count, 8) and found[0] == 0 and found[-1] == 2 * (count - 1)
    gaps = {later - earlier for earlier, later in itertools.pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 2


def learning(epochs: int) -> dict[int, Matrix]:
    """A model that is surer after each epoch."""
    sure = made()
    even = torch.full_like(sure.weights, 1 / len(sure.source))
    weights = (torch.lerp(even, sure.weights, n / epochs) for n in range(1, epochs + 1))
    return {n: Matrix(sure.source, sure.target, each) for n, each in enumerate(weights, 1)}


@pytest.mark.parametrize("epochs", [1, 4, 5, 20])
def test_the_figure_has_some_epochs_and_a_curve_of_all(epochs: int):
    figure, known = learned(learning(epochs)), learning(epochs)
    *panels, curve = figure.axes
    assert [axes.get_xlabel().partition(":")[0] for axes in panels] == [f"epoch {n}" for n in few(known)]
    assert curve.lines[0].get_ydata().tolist() == [each.breadth for each in known.values()]  # pyright: ignore
    assert [text.get_text() for text in panels[0].get_xticklabels()] == list(made().source)
    assert [text.get_text() for text in panels[0].get_yticklabels()] == list(made().target)
    for axes in figure.axes:
        place = axes.get_position()
        assert place.x0 >= 0 and place.y0 >= 0 and place.x1 <= 1 and place.y1 <= 1
    assert png(figure)[1:4] == b"PNG"


def shown(epochs: int = 20, models: tuple[str, ...] = ("soft",)) -> Report:
    return Report("Learning", "How?", "Words.", learning={model: learning(epochs) for model in models})


def test_the_page_has_some_epochs_a_curve_and_the_last_as_a_table():
    text = page(shown())
    assert "How it learned where to look" in text and "How each learned" in page(shown(models=("soft", "hard")))
    assert [f"<b>epoch {n}</b>" in text for n in range(1, 21)] == [n in few(learning(20)) for n in range(1, 21)]
    last = learning(20)[20]
    assert f'aria-label="After epoch 20, each target word looked at {last.breadth:.1f} words."' in text
    assert text.count('<figure class="matrix"') == 1 and "<b>After epoch 20</b>" in text
    assert f"soft ends at {last.breadth:.3g}." in text
    squares = sum(bool(each.number) for matrix in few(learning(20)).values() for row in matrix.squares for each in row)
    assert text.count('width="1" height="1"') == squares


def test_a_report_without_it_has_no_word_of_it():
    assert "learned where to look" not in page(Report("Learning", "How?", "Words."))


@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_readable_on_any_screen(visit, width: int):
    tab = visit(shown(models=("soft", "hard")), width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    boxes = tab.locator(".panels svg").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())")
    assert len(boxes) == 16 and all(box["width"] >= 120 and box["right"] <= width for box in boxes)
    assert len({box["top"] for box in boxes}) == (2 if width == 1280 else 8), "in a row, or two by two"
