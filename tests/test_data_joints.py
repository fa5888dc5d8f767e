"""Pairs of pieces of photographs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from regard.app.data.generators.scenery import scenery
from regard.app.data.joints import ELSEWHERE, NEAR, TRUE, Joints, joints, laid, photographs, scales


def numbered(high: int, wide: int) -> torch.Tensor:
    """A photograph whose pixels say where they are: the row, the column, and a constant."""
    row = torch.arange(high).view(-1, 1).expand(high, wide)
    column = torch.arange(wide).expand(high, wide)
    return torch.stack((row, column, torch.full((high, wide), 7))).to(torch.uint8)


def test_pieces_that_belong_together_are_one_photograph_but_for_the_gap():
    batch = Joints([numbered(220, 230)], gap=3, count=40, seed=0).batch(torch.arange(40))
    pixels, paper = (batch["pair"][:, :3] + 1) * 127.5, batch["pair"][:, 3]
    for n in (batch["kind"] == TRUE).nonzero().flatten().tolist():
        seam = int(batch["seam"][n])
        assert_close(paper[n, 0].logical_not().nonzero().flatten(), torch.arange(seam - 1, seam + 2))
        assert (batch["pair"][n, :, :, seam - 1 : seam + 2] == 0).all()
        left, right = pixels[n, :, :, seam - 2], pixels[n, :, :, seam + 2]
        assert sorted((left - right)[:2].abs().mean(1).round().tolist()) == [0, 4]


def test_wrong_pieces_are_from_near_by_or_from_anywhere():
    batch = Joints([numbered(250, 255)], gap=3, count=400, seed=0).batch(torch.arange(400))
    pixels = (batch["pair"][:, :3] + 1) * 127.5
    rows = torch.arange(400)
    apart = pixels[rows, :2, :, batch["seam"] - 2] - pixels[rows, :2, :, batch["seam"] + 2]
    apart = apart.abs().amax((1, 2)).round()
    kind = batch["kind"]
    assert torch.bincount(kind).tolist() == [200, 100, 100] and (batch["label"] == (kind == TRUE)).all()
    assert apart[kind == TRUE].max() == 4 and apart[kind == NEAR].max() <= 64 + 4 < apart[kind == ELSEWHERE].max()
    assert apart[kind == NEAR].min() >= 8 - 4


def test_pairs_of_a_seed_are_fixed_and_others_are_new():
    photograph = scenery(256, torch.Generator().manual_seed(0))
    fixed, new = Joints([photograph], 3, 8, seed=1), Joints([photograph], 3, 8)
    numbers = torch.tensor([5, 2])
    assert_close(fixed.batch(numbers)["pair"], fixed.batch(torch.arange(8))["pair"][numbers])
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(new.batch(numbers, generator)["pair"], new.batch(numbers, generator)["pair"])


def test_the_gap_is_cut_out():
    pair = laid(torch.full((2, 3, 4, 20), 255, dtype=torch.uint8), torch.tensor([8, 10]), gap=8)
    assert pair[:, 3, 0].logical_not().nonzero()[:, 1].view(2, 8)[:, 0].tolist() == [4, 6]
    assert (pair[:, :3] == pair[:, 3:]).all()


def test_scenes_have_grain_and_edges():
    picture = scenery(128, torch.Generator().manual_seed(0)).float()
    assert picture.std() > 20 and 1 < picture.diff(dim=2).abs().mean() < 20


def test_large_photographs_are_learned_from_at_several_sizes():
    found = list(scales(torch.full((3, 450, 840), 100, dtype=torch.uint8)).values())
    assert [tuple(each.shape) for each in found] == [(3, 450, 840), (3, 225, 420)]
    assert (found[1] == 100).all()


def write(folder: Path, *sizes: tuple[int, int]) -> None:
    for n, (high, wide) in enumerate(sizes):
        pixels = np.random.default_rng(n).integers(0, 256, (high, wide, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")


def test_photographs_of_the_test_are_never_learned_from(tmp_path: Path):
    write(tmp_path, *[(900, 300)] * 7)
    (tmp_path / "notes.txt").write_text("nothing")
    splits = joints(tmp_path, gap=3, count=10)
    found = list(photographs(tmp_path).values())
    assert len(found) == 7
    for part, numbers, rows in (("test", [0, 1], slice(None)), ("train", [2, 3, 4, 5, 6], slice(675))):
        held = getattr(splits, part).photographs
        assert len(held) == len(numbers)
        assert all(torch.equal(each, found[n][:, rows]) for each, n in zip(held, numbers, strict=True))
    assert all(each.shape[1] == 225 for each in splits.valid.photographs)


@pytest.mark.parametrize(("sizes", "said"), [
    ([], "expected two photographs or more (.png, .jpg, .jpeg, .webp, .tif, .tiff, .bmp or .gif), but has 0"),
    ([(900, 300)], "expected two photographs or more"),
    ([(900, 300), (900, 100)], "1.png expected 208 pixels each way or more, but has (675, 100)"),
    ([(900, 300), (800, 300)], "the lowest quarter of"),
])  # fmt: skip
def test_bad_photographs(tmp_path: Path, sizes: list[tuple[int, int]], said: str):
    write(tmp_path, *sizes)
    with pytest.raises(ValueError, match=re.escape(said)):
        joints(tmp_path, gap=3, count=10)


def test_a_damaged_photograph_is_named(tmp_path: Path):
    write(tmp_path, (900, 300))
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        joints(tmp_path, gap=3, count=10)
