"""What reads every pixel: pictures on one footing, and networks for pictures of any size."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import regard as rg
from regard.app.data.folder import pictures
from regard.app.data.splits import Splits
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.app.vision.convolutional import Residual, Small, Standard
from regard.recipes import glimpse


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """Pictures of two colours, darker and lighter."""
    folder, draw = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    for name, colour in (("red", (200, 40, 30)), ("blue", (20, 60, 180))):
        (folder / "train" / name).mkdir(parents=True)
        for n in range(20):
            noise = torch.randint(-20, 20, (12, 16, 3), generator=draw)
            pixels = (torch.tensor(colour) + noise).clamp(0, 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / "train" / name / f"{n}.png")
    return pictures(folder)


def test_pictures_have_the_mean_zero_and_the_deviation_one(splits: Splits):
    images = splits.train.batch(torch.arange(len(splits.train)))["image"]
    found = Standard(splits.train)(images)  # pyright: ignore[reportArgumentType]
    assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    assert_close(found.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_pictures_of_one_colour_are_finite(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for n in range(20):
            Image.new("L", (8, 8), 77).save(tmp_path / "train" / name / f"{n}.png")
    split = pictures(tmp_path).train
    found = Standard(split)(split.batch(torch.arange(4))["image"])  # pyright: ignore[reportArgumentType]
    assert_close(found, torch.zeros(4, 1, 8, 8), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 5, 7), (3, 120, 40), (1, 512, 300)])
def test_a_residual_network_takes_pictures_of_any_size(shape: tuple[int, int, int]):
    network = Residual(shape, width=4)
    images = torch.rand(2, *shape, requires_grad=True)
    found = network(images)
    assert found.shape == (2, network.size) == (2, 16)
    found.sum().backward()
    assert images.grad is not None and images.grad.isfinite().all()


def test_a_small_network_takes_images_of_any_size():
    assert Small(1)(torch.rand(2, 1, 60, 60)).shape == Small(1)(torch.rand(2, 1, 28, 28)).shape == (2, 128)


def test_pictures_to_learn_from_are_varied_and_others_are_not(splits: Splits):
    few = torch.arange(6)
    plain = splits.train.batch(few)["image"]
    varied, again = (splits.train.batch(few, torch.Generator().manual_seed(1))["image"] for _ in range(2))
    assert torch.equal(varied, again) and not torch.allclose(varied, plain, atol=0.05)
    assert varied.min() >= 0 and varied.max() <= 1
    valid = splits.valid.batch(torch.arange(2))["image"]
    assert torch.equal(splits.valid.batch(torch.arange(2), torch.Generator())["image"], valid)


@pytest.mark.parametrize("attention", ["cnn", "hard"])
def test_a_trained_model_keeps_the_footing_of_its_pictures(tmp_path: Path, splits: Splits, attention: str):
    folder = splits.train.files[0].parents[2]  # pyright: ignore[reportAttributeAccessIssue]
    config = glimpse.Config(attention=attention, data=str(folder), epochs=1, hidden=8, glimpses=2, draws=2)  # pyright: ignore[reportArgumentType]
    train(glimpse, config, tmp_path / "run", Fit(accelerator="cpu", threads=1, progress="none"))
    model: Any = open_run(tmp_path / "run").model
    assert_close(model.standard.mean, Standard(splits.train).mean)  # pyright: ignore[reportArgumentType]
    assert (model.standard.mean > 0.05).all()
    files = [str(file) for file in splits.test.files]  # pyright: ignore[reportAttributeAccessIssue]
    images = splits.test.batch(torch.arange(len(files)))["image"]
    named = [splits.classes[n] for n in model(images).answers[0, :, -1].argmax(-1)]
    assert [each.name for each in rg.load(tmp_path / "run").predict(files)] == named
