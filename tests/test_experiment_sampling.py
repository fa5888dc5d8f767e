"""The experiment of sampled attention: slides with marks on them, bags of digits, and what its rows say."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import tifffile
import torch
from PIL import Image
from torch.testing import assert_close

import regard as rg
from regard.app.data.mnist import SAMPLE, find
from regard.images import overview

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The experiment with small slides, and its results elsewhere."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = importlib.import_module("sampling")
    monkeypatch.setattr(module, "SLIDES", tmp_path / "slides")
    monkeypatch.setattr(module, "TABLE", replace(module.TABLE, results=tmp_path / "sampling.json"))
    for name, value in {"SIDE": 512, "LEVELS": 3, "MARKS": 3, "COUNTS": {"train": 3, "test": 2}}.items():
        monkeypatch.setattr(module.marked, name, value)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Digits, and three photographs: a black one, which is of the test, a smaller green one and a blue one."""
    (tmp_path / "data" / "photos_large").mkdir(parents=True)
    (tmp_path / "data" / "mnist").symlink_to(SAMPLE)
    for name, size, colour in (("a", (700, 600), "black"), ("b", (400, 500), "lime"), ("c", (600, 512), "blue")):
        Image.new("RGB", size, colour).save(tmp_path / "data" / "photos_large" / f"{name}.png")
    return tmp_path / "data"


def test_slides_are_tiled_pyramids_and_those_of_the_test_of_other_photographs(experiment, data):
    marked = experiment.marked
    marked.write_slides(data / "photos_large", experiment.SLIDES)
    slides = marked.read_marks(experiment.SLIDES)
    assert len(slides) == 4 * (3 + 2) and {len(each.corners) for each in slides} == {marked.MARKS}
    for slide in slides:
        with tifffile.TiffFile(slide.path) as file:
            assert [page.shape[0] for page in file.pages] == [512, 256, 128] and file.pages[0].is_tiled
        source = rg.open_image(slide.path)
        corner = source.crop(*next(at for at in ((0, 0), (0, 504), (504, 0), (504, 504)) if is_free(slide, at)), 8, 8)
        assert (float(corner.amax()) < 0.1) == ("test" in slide.path.parts)
        y, x = slide.corners[-1]
        assert_close(source.crop(y, x, 96, 96)[0, 20:76, 20:76].mean(), torch.tensor(200 / 255), rtol=0, atol=0.1)
    before = {each.path: each.path.stat().st_mtime_ns for each in slides}
    marked.write_slides(data / "photos_large", experiment.SLIDES)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def is_free(slide, at: tuple[int, int]) -> bool:
    """Whether no mark is near a place."""
    return all(max(abs(y + 48 - at[0]), abs(x + 48 - at[1])) > 70 for y, x in slide.corners)


def test_marks_are_told_apart_near_by_and_not_from_afar(experiment):
    def pasted(label: str) -> torch.Tensor:
        slide = torch.zeros(3, 128, 128, dtype=torch.uint8)
        experiment.marked.paste(slide, label, 16, 16, torch.Generator().manual_seed(0))
        return slide.float() / 255

    red, blue = pasted("red"), pasted("blue")
    assert (red - blue).abs().amax() > 0.15
    afar = [overview(rg.open_image(each), 5) for each in (red, blue)]  # a pixel of 32 x 32
    assert (afar[0] - afar[1]).abs().amax() < 0.03 < afar[0].amax()


def test_a_bag_has_a_nine_or_none(experiment):
    digits = find("embedded")[0]
    bags = experiment.bags.Bags(digits.images, digits.labels, 500, seed=0)
    batch = bags.batch(torch.arange(500))
    sizes = batch["there"].sum(1)
    assert 9.5 < sizes.float().mean() < 10.5 and 1.5 < sizes.float().std() < 2.5
    assert 0.5 < batch["label"].float().mean() < 0.8  # of ten digits 65 % have a nine
    for row in range(20):
        labels = digits.labels[bags.which[row]][batch["there"][row]]
        assert bool((labels == 9).any()) == bool(batch["label"][row])
        assert batch["digits"][row][~batch["there"][row]].abs().sum() == 0


@pytest.mark.parametrize("attention", ["mil", "gated-mil", "mean"])
def test_only_the_digits_of_a_bag_count(experiment, attention: str):
    bags = experiment.bags
    config = bags.Config(attention=attention, bags=8)
    splits = bags.data(config)
    model, batch = bags.Model(config, splits).eval(), splits.train.batch(torch.arange(4))
    logits, weights = model(batch)
    assert_close(weights.sum(1), torch.ones(4))
    assert (weights[~batch["there"]] == 0).all()
    if attention == "mean":
        assert_close(weights[batch["there"]], (1 / batch["there"].sum(1)).repeat_interleave(batch["there"].sum(1)))
    noise = torch.rand_like(batch["digits"])
    elsewhere = torch.where(batch["there"][..., None, None], batch["digits"], noise)
    assert torch.equal(model(batch | {"digits": elsewhere})[0], logits)
    assert not torch.equal(model(batch | {"digits": noise})[0], logits)


def rows(experiment, monkeypatch, capsys, data: Path, *words: str) -> list[dict]:
    """What the experiment prints."""
    runs = data.parent / "runs"
    given = ["sampling.py", "--data", str(data), "--runs", str(runs), "--seed", "0", "--json", *words]
    monkeypatch.setattr("sys.argv", given)
    capsys.readouterr()
    experiment.main()
    out = capsys.readouterr().out
    return json.loads(out[out.index("{\n") :])["rows"]


@pytest.mark.unchecked
def test_rows_of_slides(experiment, data, monkeypatch, capsys):
    small = {"size": 32, "view": 64, "grid": 16, "patches": 3, "features": 16, "batch": 4, "epochs": 1, "scenes": 8}

    def configuration(job, folder):
        return experiment.sampling.Config(**small, data=str(experiment.SLIDES), attention=job.model)

    monkeypatch.setattr(experiment, "TABLE", replace(experiment.TABLE, configuration=configuration))
    (row,) = rows(experiment, monkeypatch, capsys, data, "--of", "slides", "--model", "sampled")
    found = {name: values[0] for name, values in row["metrics"].items()}
    assert (row["data"], row["model"], row["seeds"]) == ("slides", "sampled", [0])
    assert 0 <= found["pointing_percent"] <= found["covered_percent"] <= 100 and 0 <= found["error_percent"] <= 100
    assert 5 < found["share_read_percent"] < 100


@pytest.mark.unchecked
def test_rows_of_bags(experiment, data, monkeypatch, capsys):
    def configuration(job, folder):
        return experiment.bags.Config(data=str(folder / "mnist"), attention=job.model, bags=40, epochs=1)

    monkeypatch.setattr(experiment, "TABLE", replace(experiment.TABLE, configuration=configuration))
    found = rows(experiment, monkeypatch, capsys, data, "--of", "bags")
    assert [(row["data"], row["model"]) for row in found] == [("bags", name) for name in ("gated-mil", "mil", "mean")]
    for row in found:
        assert 0.3 < row["metrics"]["auc"][0] <= 1 and len(row["curve"][0]) == 1


def test_every_committed_configuration_is_one(experiment, data):
    kinds = {type(experiment.configuration(job, data)) for job in experiment.jobs()}
    assert kinds == {experiment.sampling.Config, experiment.bags.Config}
