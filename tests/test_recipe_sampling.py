"""The recipe sampling: every way to look, every question, and what is read of an image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.data.mnist import SAMPLE
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.app.vision.sampled import Gated, Prior, blindly, centres, drawn, evenly, everywhere, likeliest
from regard.recipes import sampling
from regard.recipes.sampling import Config

SMALL = Config(side=300, view=60, grid=20, noise=3, patches=4, features=16, scenes=32, batch=8, epochs=1)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")


def made(**settings) -> tuple[sampling.Model, dict[str, Tensor]]:
    config = replace(SMALL, **settings)
    splits = sampling.data(config)
    return sampling.Model(config, splits), splits.train.batch(torch.arange(3))


@pytest.mark.parametrize("task", ["majority", "max", "top", "several"])
@pytest.mark.parametrize("attention", sampling.KINDS)
def test_every_kind_answers_every_question(attention: str, task: str):
    model, batch = made(attention=attention, task=task)
    total, _ = sampling.loss(model, batch)
    total.backward()
    assert total.isfinite() and all(each.grad is not None for each in model.network.parameters())
    assert (model.prior.level.grad is not None) == (attention in ("sampled", "top-k", "all"))
    values = sampling.evaluate(model.eval(), batch)
    assert all(value.shape == (3,) for value in values.values())
    look = sampling.look(model, batch)
    assert len(look.classes) >= 1 and look.locations.shape[:1] == (3,)


@pytest.mark.parametrize(("attention", "pixels"), [
    ("sampled", 4 * 50**2 + 60**2), ("top-k", 4 * 50**2 + 60**2), ("random", 4 * 50**2), ("grid", 4 * 50**2),
    ("all", 100 * 50**2 + 60**2), ("mil", 100 * 50**2), ("ips", 104 * 50**2),
])  # fmt: skip
def test_what_is_read_is_counted(attention: str, pixels: int):
    model, batch = made(attention=attention)
    assert_close(sampling.evaluate(model.eval(), batch)["share"], torch.full((3,), pixels / 300**2))


def test_where_to_look_is_trained_by_what_was_drawn():
    """On average by the gradient of reading every place."""
    torch.manual_seed(0)
    scores, worth = torch.randn(1, 1, 6, requires_grad=True), torch.randn(6)
    (wanted,) = torch.autograd.grad((scores.squeeze(1).softmax(-1) * worth).sum(), scores)
    found = []
    for _ in range(4000):
        z, weights = drawn(scores, 2)
        assert weights is not None
        found.append(torch.autograd.grad((weights * worth[z]).sum(), scores)[0])
    error = torch.stack(found).std(0) / 4000**0.5
    assert ((torch.stack(found).mean(0) - wanted).abs() < 5 * error).all()


def test_ways_to_choose():
    scores = torch.tensor([[[0.0, 3.0, 1.0, 2.0, -1.0, 0.0, 0.0, 0.0, 0.0]]])
    best = likeliest(scores, 2)
    assert best.z.tolist() == [[1, 3]]
    assert_close(best.weights, torch.tensor([[3.0, 2.0]]).softmax(-1))
    assert len({int(each) for _ in range(200) for each in blindly(scores, 1).z}) == 9
    assert (
        evenly(torch.zeros(1, 1, 9), 4).z.tolist() == [[0, 2, 6, 8]] or len(set(evenly(scores, 4).z[0].tolist())) == 4
    )
    assert len(set(evenly(torch.zeros(1, 1, 3600), 10).z[0].tolist())) == 10
    assert_close(everywhere(scores, 2).weights, scores.squeeze(1).softmax(-1))


@pytest.mark.parametrize("by", ["contrast", "brightness"])
def test_the_prior_finds_what_is_there(by: str):
    view = torch.zeros(1, 1, 60, 60)
    view[..., 31:34, 16:19] = 0.5
    scores = Prior(1, 60, 6, 20, by)(view)
    y, x = (centres(20)[scores.argmax()] + 1) * 30
    assert abs(y - 32.5) < 3 and abs(x - 17.5) < 3


def test_contrast_does_not_mind_what_is_bright_and_what_dark():
    view = torch.rand(2, 1, 60, 60)
    prior = Prior(1, 60, 6, 20, "contrast")
    assert_close(prior(view), prior(1 - view), rtol=1e-4, atol=1e-3)


def test_the_gated_score_is_equation_9():
    score, keys = Gated(5, 3), torch.randn(2, 4, 5)
    wanted = (score.key(keys).tanh() * score.gate(keys).sigmoid()) @ score.energy.weight[0]
    assert_close(score(torch.zeros(2, 1, 1), keys), wanted.unsqueeze(1))


def test_it_learns(tmp_path: Path):
    config = replace(SMALL, patches=6, features=64, scenes=1600, epochs=2, batch=16, learning_rate=4e-3, noise=0)
    train(sampling, config, tmp_path / "run", QUIET)
    run = open_run(tmp_path / "run")
    values = [sampling.evaluate(run.model, run.splits.test.batch(part)) for part in torch.arange(200).split(50)]
    assert torch.cat([each["error"] for each in values]).mean() < 0.7  # by chance 0.9


@pytest.mark.parametrize(("settings", "said"), [
    ({"view": 50}, "--view expected a multiple of the 20 places of --grid, up to the 300 of --side, but got 50"),
    ({"view": 600}, "--view expected a multiple of the 20 places"),
    ({"patches": 401}, "--patches expected at most the 400 places, but got 401"),
    ({"size": 0}, "--size expected at least 1, but got 0"),
    ({"side": 120, "noise": 50}, "side expected room for 55 pieces"),
])  # fmt: skip
def test_bad_settings(settings: dict, said: str):
    with pytest.raises(ValueError, match=said):
        sampling.data(replace(SMALL, **settings))


@pytest.mark.unchecked
def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    train(sampling, SMALL, tmp_path / "run", QUIET)
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0
    assert cli.main(["look", str(tmp_path / "run")]) == 0
    assert "data:image/png;base64" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("task", ["majority", "several"])
def test_a_run_is_opened_where_its_digits_are_not(task: str, tmp_path: Path):
    mnist = tmp_path / "digits"
    mnist.symlink_to(SAMPLE)
    train(sampling, replace(SMALL, task=task, data=str(mnist)), tmp_path / "run", QUIET)
    mnist.unlink()
    source = rg.open_image(torch.rand(1, 300, 300))
    (answer,) = rg.load(tmp_path / "run").predict([source])
    assert len(answer.places) == 4 and 0 < answer.probability <= 1


def own_images(folder: Path, ending: str, count: int = 14) -> Path:
    """Two classes of images of 300 x 340 pixels: a bright ring somewhere, or a bright disc, on a grey noise."""
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    distance = (y.square() + x.square()).sqrt()
    shapes = {"disc": (distance < 12).float(), "ring": ((distance < 13) & (distance > 8)).float()}
    for name, shape in shapes.items():
        (folder / "train" / name).mkdir(parents=True)
        for number in range(count):
            image = 0.1 * torch.rand(300, 340)
            top, left = torch.randint(270, (2,)).tolist()
            image[top : top + 28, left : left + 28] += 0.8 * shape
            save(folder / "train" / name / f"{number}{ending}", image.numpy())
    return folder


def save(file: Path, pixels: np.ndarray) -> None:
    """A grey image as the ending says."""
    if file.suffix == ".npy":
        np.save(file, pixels)
    elif file.suffix == ".png":
        Image.fromarray((255 * pixels).astype(np.uint8)).save(file)
    else:
        tifffile.imwrite(file, (255 * pixels).astype(np.uint8), tile=(64, 64), compression="zlib")


@pytest.mark.unchecked
@pytest.mark.parametrize("ending", [".npy", ".png", ".tif"])
def test_images_of_ones_own(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = own_images(tmp_path / "data", ending)
    config = replace(SMALL, data=str(folder), batch=4, epochs=2)
    train(sampling, config, tmp_path / "run", QUIET)
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    file = folder / "train" / "disc" / f"0{ending}"
    assert cli.main(["predict", str(tmp_path / "run"), str(file)]) == 0
    answer, probability, path = capsys.readouterr().out.strip().split("\t")
    assert answer in ("disc", "ring") and 0 < float(probability) <= 1 and path == str(file)


def test_a_table_of_paths_and_labels(tmp_path: Path):
    folder = own_images(tmp_path / "data", ".npy")
    rows = [f"train/{name}/{number}.npy,{name}" for name in ("disc", "ring") for number in range(14)]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    splits = sampling.data(replace(SMALL, data=str(table)))
    assert splits.classes == ("disc", "ring") and splits.shape == (1, 300, 340)
    batch = splits.train.batch(torch.tensor([0, 1]))
    assert batch["view"].shape == (2, 1, 60, 60) and len(batch["image"].sources) == 2


@pytest.mark.parametrize(("text", "said"), [
    ("file,label\na.npy,x", "expected the columns path and label"),
    ("path,label\na.npy,x\nb.npy,", "line 3: expected a path and a label"),
    ("path,label\na.npy,x\nb.npy,x", "expected two labels or more, but all images have 'x'"),
    ("path,label\n" + "\n".join(f"a{n}.npy,{n % 2}" for n in range(30)), "24 of 24 images cannot be opened"),
])  # fmt: skip
def test_a_bad_table(text: str, said: str, tmp_path: Path):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        sampling.data(replace(SMALL, data=str(tmp_path / "table.csv")))
