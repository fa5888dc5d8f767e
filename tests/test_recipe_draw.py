"""The recipe draw: its networks are the equations, it learns something real in seconds, and bad input is named."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.testing import assert_close

from regard.app import cli
from regard.app.data.generators.binary import Binarised
from regard.app.text.networks import lstm
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.vision.painting import divergence, first_canvas
from regard.app.vision.windows import Window
from regard.recipes import draw
from regard.recipes.draw import Config

KINDS = list(draw.KINDS)
RECURRENT = ["draw", "draw-without-attention"]
SMALL = Config(steps=3, latent=4, hidden=16, read=4, write=5, batch=50)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")
kinds = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, few_digits: Path, **settings) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model and a batch of eight."""
    config = replace(SMALL, model=kind, data=str(few_digits), **settings)
    splits = draw.data(config)
    return draw.Model(config, splits), splits.test.batch(torch.arange(8))


@kinds
def test_the_bound_is_reconstruction_and_divergence(kind: str, few_digits: Path):
    model, batch = made(kind, few_digits)
    output = model(batch["image"])
    values = draw.evaluate(model, batch)
    assert all(value.shape == (8,) and (value >= 0).all() for value in values.values())
    assert_close(values["nats"], values["reconstruction"] + values["divergence"])
    wanted = cross_entropy(output.canvases[-1], batch["image"], reduction="none").sum((1, 2, 3))
    assert_close(output.reconstruction, wanted)
    assert (output.divergence == 0).all() == (kind == "autoencoder")
    total, logs = draw.loss(model, batch)
    total.backward()
    assert all(weights.grad is not None for weights in model.parameters())
    assert set(logs) == {"reconstruction", "divergence"}


def test_the_divergence_is_that_of_torch():
    posterior = torch.randn(5, 3, 8)
    mean, log_width = posterior.chunk(2, -1)
    normal, prior = torch.distributions.Normal(mean, log_width.exp()), torch.distributions.Normal(0, 1)
    assert_close(divergence(posterior), torch.distributions.kl_divergence(normal, prior).sum(-1))


def test_the_cell_is_torch_s():
    cell, inputs, hidden, memory = nn.LSTMCell(3, 4), torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    gates = inputs @ cell.weight_ih.T + cell.bias_ih + hidden @ cell.weight_hh.T + cell.bias_hh
    let_in, keep, candidate, let_out = gates.chunk(4, -1)
    found = lstm(torch.cat((keep, let_in, let_out, candidate), -1), memory)
    assert_close(found, cell(inputs, (hidden, memory)))


def test_reading_everything_sees_the_image_and_what_the_canvas_lacks(few_digits: Path):
    model, batch = made("draw-without-attention", few_digits)
    images, painted = batch["image"], torch.rand(8, 1, 28, 28)
    drive, _ = model.brush.read(model.brush.prepare(images), painted, torch.zeros(8, 16))
    assert_close(drive, model.brush.see(torch.cat((images, images - painted), 1).flatten(1)))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 20)])
def test_a_window_begins_over_the_whole_image_and_its_writing_is_even(shape: tuple[int, int, int]):
    placed = Window(8, 5, shape)(torch.zeros(2, 8))
    side, longest = max(shape), max(shape)
    assert (placed.side == side).all()
    top, left, bottom, right = placed.edges()[0].tolist()
    assert (top + bottom) / 2 == shape[1] / 2 and (left + right) / 2 == shape[2] / 2
    assert bottom - top == right - left == longest
    written = placed.write(torch.ones(2, 1, 5, 5))[0, 0]
    assert 0.7 < written[shape[1] // 2, shape[2] // 2] < 1.4, "as bright in the middle as the patch"


@pytest.mark.parametrize("kind", RECURRENT)
def test_an_image_is_painted_in_steps(kind: str, few_digits: Path):
    model, batch = made(kind, few_digits)
    output = model(batch["image"])
    assert len(output.canvases) == len(output.windows) == 3 and output.divergence.shape == (8, 3)
    assert (output.windows[0][0] is None) == (kind != "draw")
    samples = model.sample(5)
    assert samples.shape == (5, 1, 28, 28) and not (samples[0] == samples[1]).all()


def test_the_first_canvas_has_the_odds_of_each_pixel(few_digits: Path):
    config = replace(SMALL, data=str(few_digits))
    splits = draw.data(config)
    images = splits.train.batch(torch.arange(900), torch.Generator().manual_seed(0))["image"]
    assert_close(first_canvas(splits.train, splits.shape).sigmoid(), (images.sum(0) + 1) / 902)


def test_images_are_drawn_with_their_brightness(few_digits: Path):
    split = draw.data(replace(SMALL, data=str(few_digits))).test
    grey = split.split.batch(torch.arange(200))["image"]
    again = [split.batch(each)["image"] for each in (torch.arange(200), torch.tensor([7, 3]))]
    assert set(again[0].unique().tolist()) == {0.0, 1.0}
    assert (again[1] == again[0][[7, 3]]).all(), "the same in whatever batch"
    seeds = torch.stack([Binarised(split.split, seed).batch(torch.arange(50))["image"] for seed in range(200)])
    error = (seeds.mean(0) - grey[:50]) / (grey[:50] * (1 - grey[:50]) / 200).sqrt().clamp(min=1e-3)
    assert error.abs().max() < 6 and 0.5 < error[(grey[:50] > 0) & (grey[:50] < 1)].std() < 1.5


def test_images_to_learn_from_are_drawn_afresh(few_digits: Path):
    split = draw.data(replace(SMALL, data=str(few_digits))).train
    indices, generator = torch.arange(20), torch.Generator().manual_seed(3)
    first, second = (split.batch(indices, generator)["image"] for _ in range(2))
    again = split.batch(indices, torch.Generator().manual_seed(3))["image"]
    assert (first != second).any() and (first == again).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(("kind", "reached"), [("draw", 190), ("draw-without-attention", 190), ("vae", 200)])
def test_it_learns_in_seconds(kind: str, reached: float, few_digits: Path, tmp_path: Path):
    """Of the pixels' own odds alone 208 nats; the images are seen once more in a fresh run."""
    config = replace(SMALL, model=kind, data=str(few_digits), steps=4, hidden=48, epochs=8, learning_rate=1e-2)
    best = train(draw, config, tmp_path / kind, QUIET)
    assert best["valid_nats"] < reached and best["valid_divergence"] > 3


def test_a_canvas_of_sixty_has_the_digit_somewhere(few_digits: Path):
    model, batch = made("draw", few_digits, canvas=60)
    assert batch["image"].shape == (8, 1, 60, 60) and model(batch["image"]).canvases[-1].shape == (8, 1, 60, 60)


@kinds
def test_a_look_shows_each_image_and_samples_where_there_is_a_prior(kind: str, few_digits: Path):
    model, batch = made(kind, few_digits)
    pictures = draw.look(model.eval(), batch)
    assert len(pictures) == 8 + (kind != "autoencoder")
    assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)
    assert ("through" in pictures[0].text) == (kind == "draw")


@pytest.mark.unchecked
class TestCommands:
    def run(self, *words: object) -> int:
        return cli.main([str(word) for word in words])

    def trained(self, few_digits: Path, kind: str = "draw") -> None:
        words = "--steps", 2, "--hidden", 8, "--epochs", 1, "--progress", "none"
        assert self.run("train", "draw", "--data", few_digits, "--model", kind, *words) == 0

    def test_train_evaluate_look_and_predict(self, few_digits: Path, tmp_path: Path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        self.trained(few_digits)
        from PIL import Image

        Image.new("L", (40, 30), 255).save("white.png")
        Path("broken.png").write_text("no picture")
        capsys.readouterr()
        assert self.run("predict", "runs/draw/draw-seed0", "white.png", "broken.png") == 1
        out, err = capsys.readouterr()
        nats, path = out.strip().split("\t")
        assert path == "white.png" and 200 < float(nats) < math.inf
        assert "picture broken.png cannot be read" in err and err.count("\n") == 1
        assert self.run("evaluate", "runs/draw/draw-seed0", "--json") == 0
        assert '"nats": ' in capsys.readouterr().out
        assert self.run("look", "runs/draw/draw-seed0") == 0
        page = Path("runs/draw/draw-seed0/report.html").read_text()
        assert (
            "Samples" in page
            and "nats an image" in page
            and len(list(Path("runs/draw/draw-seed0/pictures").iterdir())) == 13
        )

    def test_compare(self, few_digits: Path, tmp_path: Path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        words = "--steps", 2, "--hidden", 8, "--quick", "--models", "vae,draw"
        assert self.run("compare", "draw", "--data", few_digits, *words, "--name", "few") == 0
        out = capsys.readouterr().out
        assert "bound" in out and "vae" in out and "autoencoder" not in out
        page = Path("runs/compare/draw/few/report.html").read_text()
        assert "Where vae looked" in page and "nats an image" in page

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("--canvas", 20), "canvas must be at least 28, the size of the images, not 20"),
            (("--canvas", 0), "--canvas expected at least 1, but got 0"),
            (("--read", 29), "a window of 29 filters is larger than a canvas of 28"),
            (("--steps", 0), "--steps expected at least 1, but got 0"),
            (("--model", "draww"), "--model expected one of "),
            (("--data", "nowhere"), "data folder nowhere does not exist"),
        ],
    )
    def test_bad_input_is_one_sentence(self, words, sentence: str, tmp_path: Path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert self.run("train", "draw", *words) in (1, 2)
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1

    def test_pictures_that_do_not_open_are_named(self, tmp_path: Path, monkeypatch, capsys):
        from PIL import Image

        monkeypatch.chdir(tmp_path)
        for name in ("cat", "dog"):
            (tmp_path / "zoo" / "train" / name).mkdir(parents=True)
            for n in range(20):
                Image.new("L", (12, 10), n * 10).save(tmp_path / "zoo" / "train" / name / f"{n}.png")
        words = "train", "draw", "--data", "zoo", "--steps", 2, "--hidden", 8, "--epochs", 1, "--progress", "none"
        assert self.run(*words) == 0
        (tmp_path / "zoo" / "train" / "cat" / "7.png").write_text("no picture")
        assert self.run(*words, "--name", "other") in (1, 2)
        assert "zoo/train/cat/7.png cannot be read" in capsys.readouterr().err
