"""The recipe stitch: every way to look, and what it costs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from regard.app import cli
from regard.app.data.generators.scenery import scenery
from regard.app.data.joints import HEIGHT
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.app.vision.assembly import cut
from regard.recipes import stitch
from regard.recipes.stitch import Config

SMALL = Config(filters=4, pairs=64, batch=16, epochs=1)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")


def made(**settings) -> tuple[stitch.Model, dict[str, torch.Tensor]]:
    config = replace(SMALL, **settings)
    splits = stitch.data(config)
    return stitch.Model(config, splits), splits.valid.batch(torch.arange(8))


@pytest.mark.parametrize("gap", [3, 8])
@pytest.mark.parametrize("attention", stitch.KINDS)
def test_every_kind_judges(attention: str, gap: int):
    torch.manual_seed(0)
    model, batch = made(attention=attention, gap=gap)
    total, _ = stitch.loss(model, batch)
    total.backward()
    assert total.isfinite() and all(each.grad is not None for each in model.parameters())
    values = stitch.evaluate(model.eval(), batch)
    assert values["error"].shape == (8,) and len(values["missed"]) == 4 and len(values["taken_near"]) == 2
    share = {"whole": 1.0, "oracle": 1 / 9, "smaller": 1 / 9, "random": 1 / 9}.get(attention, 1 / 9 + 1 / 64)
    assert_close(values["share"], torch.full((8,), share))
    assert len(stitch.look(model, batch)) == 8


def test_the_oracle_has_both_sides_of_the_gap():
    for gap, size in ((3, 16), (8, 24)):
        model, batch = made(attention="oracle", gap=gap, size=size)
        assert stitch.evaluate(model.eval(), batch)["found"].all()


def test_where_to_look_is_trained_by_draws_alone():
    """No gradient of the judgement reaches what finds the seam: it comes from the log-probabilities of the draws."""
    model, batch = made(entropy=0.0)
    output = model(batch["pair"], batch["seam"])
    output.logits.sum().backward()
    assert all(each.grad is None for each in model.finder.parameters())
    total, _ = stitch.loss(model, batch)
    total.backward()
    assert all(each.grad is not None for each in model.finder.parameters())


def test_unread_pixels_change_nothing():
    model, batch = made(attention="oracle")
    model.eval()
    pair, seam = batch["pair"], batch["seam"]
    column = torch.arange(pair.shape[3])
    unread = (column < seam.view(-1, 1) - 8) | (column >= seam.view(-1, 1) + 8)
    changed = torch.where(unread.view(8, 1, 1, -1), torch.rand_like(pair), pair)
    assert torch.equal(model(pair, seam).logits, model(changed, seam).logits)


def test_the_oracle_must_be_told():
    model, batch = made(attention="oracle")
    with pytest.raises(ValueError, match="seam expected the columns where the pairs meet"):
        model(batch["pair"])


def test_it_learns(tmp_path: Path):
    train(stitch, Config(attention="oracle", pairs=1600, batch=32, epochs=2, filters=8), tmp_path / "run", QUIET)
    run = open_run(tmp_path / "run")
    values = [stitch.evaluate(run.model, run.splits.test.batch(part)) for part in torch.arange(400).split(100)]
    assert torch.cat([each["error"] for each in values]).mean() < 0.35  # by chance 0.5


@pytest.mark.parametrize(("settings", "said"), [
    ({"size": 18}, "--size expected a multiple of 4 above --gap 3 and one, up to 144, but got 18"),
    ({"gap": 15}, "--size expected a multiple of 4 above --gap 15 and one"),
    ({"filters": 6}, "--filters expected a multiple of 4, but got 6"),
    ({"draws": 1}, "--draws expected at least 2, as draws are compared, but got 1"),
])  # fmt: skip
def test_bad_settings(settings: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(SMALL, **settings)


def pieces(folder: Path, count: int, size: int = HEIGHT) -> None:
    folder.mkdir()
    picture = scenery(512, torch.Generator().manual_seed(5))
    for n, piece in enumerate(cut(picture, 0, 0, 3, size, 3)[:count]):
        Image.fromarray(piece.permute(1, 2, 0).numpy()).save(folder / f"{n}.png")


@pytest.mark.unchecked
def test_puzzles_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    train(stitch, SMALL, tmp_path / "run", QUIET)
    pieces(tmp_path / "four", 4)
    pieces(tmp_path / "five", 5)
    pieces(tmp_path / "small", 4, size=32)
    status = cli.main(["predict", "run", "four", "five", "small", "--picture", "done"])
    out, err = capsys.readouterr()
    assert status and sorted(out.split()) == ["0.png", "1.png", "2.png", "3.png"] and len(out.splitlines()) == 2
    assert "expected the pieces of a square puzzle, 4, 9, 16, ..., but has 5" in err
    assert "expected 64 pixels each way, but has (32, 32)" in err
    with Image.open(tmp_path / "done" / "four.png") as picture:
        assert picture.size == (131, 131)
