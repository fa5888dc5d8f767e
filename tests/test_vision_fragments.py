"""Irregular fragments: laid by their poses, their borders made straight, and joined."""

from math import cos, sin
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from regard.app.data.generators.scenery import scenery
from regard.app.vision.fragments import Fragments, Side, as_picture, at, fragments, join, matches, side_by_side, sides
from regard.app.vision.seams import steps

SIDE, GAP = 256, 3
BACKGROUND = torch.tensor([248.0, 8.0, 232.0])


def parts() -> tuple[Tensor, list[Tensor]]:
    """A photograph, and the paper of four pieces that two waves cut it into."""
    picture = scenery(SIDE, torch.Generator().manual_seed(3)).float()
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    below = rows > SIDE / 2 + 10 * (columns / 30).sin()
    right = columns > SIDE / 2 + 10 * (rows / 25).cos()
    return picture, [~below & ~right, ~below & right, below & ~right, below & right]


def write(folder: Path) -> Tensor:
    """Writes the pieces, each turned by its own angle, with their poses; gives the photograph."""
    picture, papers = parts()
    lines = []
    for number, paper in enumerate(papers, 1):
        angle, middle = 0.7 * number, paper.nonzero().float().mean(0)
        turn = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
        pose = torch.eye(3)
        pose[:2, :2], pose[:2, 2] = turn, middle - turn @ torch.tensor([110.0, 110.0])
        rows, columns = torch.meshgrid(torch.arange(220.0), torch.arange(220.0), indexing="ij")
        there = (pose @ torch.stack((rows, columns, torch.ones_like(rows))).flatten(1))[:2].view(2, 220, 220)
        paper = (at(paper.float().unsqueeze(0), there) > 0.5).float()
        fragment = at(picture, there) * paper + BACKGROUND.view(3, 1, 1) * (1 - paper)
        pixels = fragment.round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"fragment_{number:04d}.png")
        lines += [str(number), " ".join(str(float(each)) for each in pose.flatten())]
    (folder / "groundTruth.txt").write_text("\n".join(lines))
    (folder / "bg_color.txt").write_text("248 8 232")
    return picture


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Fragments]:
    folder = tmp_path_factory.mktemp("fragments")
    return write(folder), fragments(folder)


def rule(pair: Tensor, seam: Tensor) -> Tensor:
    return torch.tensor(1.5).log() - steps(pair, seam, GAP).clamp(min=1e-6).log()


def test_fragments_lie_where_they_were_cut(laid: tuple[Tensor, Fragments]):
    picture, found = laid
    assert (found.paper.sum(0) <= 1).all()
    shown = as_picture(found).float()
    inside = found.paper.any(0)
    assert 0.95 * SIDE**2 < inside.sum() < SIDE**2
    rows, columns = (each.amin() for each in inside.nonzero().unbind(1))
    high, wide = (int(min(SIDE, size - first)) for size, first in zip(inside.shape, (rows, columns), strict=True))
    apart = (shown[:, rows : rows + high, columns : columns + wide] - picture[:, :high, :wide]).abs().mean(0)
    assert apart[inside[rows : rows + high, columns : columns + wide]].median() < 12


def test_both_sides_of_a_border_continue_each_other(laid: tuple[Tensor, Fragments]):
    found = sides(laid[1], GAP)
    assert len(found) == 8 and all(found[side.partner].partner == n for n, side in enumerate(found))
    assert {frozenset((side.fragment, found[side.partner].fragment)) for side in found} == {
        frozenset(pair) for pair in ((0, 1), (0, 2), (1, 3), (2, 3))
    }
    for side in found:
        pair = side_by_side(side, found[side.partner], GAP)
        assert pair.shape[1:] == (4, 64, 144)
        assert pair[:, 3, :, 71:74].sum() == 0 and pair[:, 3, :, [68, 75]].mean() > 0.8
        assert rule(pair, torch.full((len(pair),), 72)).mean() > -0.5


def test_they_are_joined_by_what_fits(laid: tuple[Tensor, Fragments]):
    found = sides(laid[1], GAP)
    scores = matches(found, GAP, rule)
    assert scores[0, 0] == scores[1, 2] == -torch.inf
    assert join(found, scores + 0.5) == (4, 4, 0)
    assert join(found, torch.full_like(scores, -1.0)) == (1, 4, 0)


def test_wrong_joints_are_counted():
    none = torch.zeros(3, 64, 72), torch.ones(64, 72).bool()
    found = [Side(n // 2, *none, partner) for n, partner in enumerate((2, 4, 0, 5, 1, 3))]
    scores = torch.full((6, 6), -1.0)
    scores[2, 0], scores[5, 1] = 2.0, 1.0
    assert join(found, scores) == (2, 3, 1)


def test_poses_that_cannot_be_read(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "groundTruth.txt").write_text("1\n1 0 0 1")
    with pytest.raises(ValueError, match=r"groundTruth\.txt expected a number and nine of its pose in turn"):
        fragments(tmp_path)
