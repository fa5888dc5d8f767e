"""Irregular fragments of a photograph: their borders made straight, and joined by how well these fit.

Le and Li 2018, "JigsawNet: shredded image reassembly using convolutional neural network and loop-based composition",
propose poses for pairs of fragments first, and then judge them at the stitching region. Here the poses are given, and
with them the borders; which border belongs to which is not.
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from regard.app.data.joints import HEIGHT, WIDTH, laid, whole
from regard.app.text.reading import printable

POSES, BACKGROUND = "groundTruth.txt", "bg_color.txt"
"""Files beside the fragments: of each its number and the nine numbers of its pose; and the colour where no paper is."""
APART = 60
"""By how much a colour differs from the background, all three channels together, where there is paper."""
SHORTEST, STEP = 48, 16
"""Pixels of the shortest border that is asked about, and between two places on it where it is asked."""
SMOOTH = 4
"""The standard deviation, in pixels, with which the course of a border is averaged."""
LITTLE = 0.05
"""A share of paper about a pixel at which it still belongs to the fragment that has most there."""
WHOLE = 1 - 1e-3
"""The share of paper of a pixel that is not mixed with background."""


class Fragments(NamedTuple):
    """N fragments where they belong on the photograph, and where each has paper."""

    pixels: Float[Tensor, "N 3 Y X"]
    paper: Bool[Tensor, "N Y X"]


class Side(NamedTuple):
    """One fragment's side of a border that was made straight, seen from within the fragment, outwards to the right:
    its pixels, row by row along the border, where they have paper, and the number of the side that belongs to it."""

    fragment: int
    pixels: Float[Tensor, "3 y x"]
    paper: Bool[Tensor, "y x"]
    partner: int


def fragments(folder: Path) -> Fragments:
    """The fragments fragment_NNNN.png in a folder, laid by their poses: matrices that take (row, column, 1) of a
    fragment to that of the photograph. Raises ValueError where the poses or a fragment cannot be read."""
    poses = _poses(folder / POSES)
    background = torch.tensor([float(each) for each in (folder / BACKGROUND).read_text().split()])
    pictures = {number: whole(folder / f"fragment_{number:04d}.png").float() for number in poses}
    corners = [_corners(pictures[number], pose) for number, pose in poses.items()]
    first = torch.cat(corners, 1).amin(1).floor()
    size = (torch.cat(corners, 1).amax(1) - first).ceil().int().tolist()
    found = [_laid(pictures[number], pose, background, first, size) for number, pose in poses.items()]
    return Fragments(torch.stack([each for each, _ in found]), torch.stack([each for _, each in found]))


def _poses(file: Path) -> dict[int, Float[Tensor, "3 3"]]:
    lines = file.read_text(encoding="utf-8").split("\n")
    try:
        return {
            int(number): torch.tensor([float(each) for each in re.split(r"\s+", pose.strip())]).view(3, 3)
            for number, pose in zip(lines[::2], lines[1::2], strict=False)
        }
    except (ValueError, RuntimeError):
        raise ValueError(f"{printable(file)} expected a number and nine of its pose in turn, a line each") from None


def _corners(picture: Float[Tensor, "3 y x"], pose: Float[Tensor, "3 3"]) -> Float[Tensor, "2 4"]:
    high, wide = (size - 1.0 for size in picture.shape[1:])
    return (pose @ torch.tensor([[0, 0, high, high], [0, wide, 0, wide], [1, 1, 1, 1.0]]))[:2]


def _laid(
    picture: Float[Tensor, "3 y x"],
    pose: Float[Tensor, "3 3"],
    background: Float[Tensor, "3"],
    first: Float[Tensor, "2"],
    size: Sequence[int],
) -> tuple[Float[Tensor, "3 Y X"], Bool[Tensor, "Y X"]]:
    """A fragment on the photograph, whose first pixel is at `first`; paper mixed with background is none."""
    rows, columns = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    there = torch.stack((rows + first[0], columns + first[1], torch.ones_like(rows))).flatten(1)
    place = (torch.linalg.inv(pose) @ there)[:2].view(2, *size)  # (row, column) of the fragment
    paper = (picture - background.view(3, 1, 1)).abs().sum(0, keepdim=True) > APART
    both = at(torch.cat((picture, paper.float())), place)
    return both[:3], both[3] > WHOLE


def at(picture: Float[Tensor, "C Y X"], place: Float[Tensor, "2 y x"]) -> Float[Tensor, "C y x"]:
    """What a picture has at places (row, column), bilinearly, and zero beyond its edges.

    >>> at(torch.tensor([[[0.0, 2.0, 4.0]]]), torch.tensor([[[0.0, 0.0]], [[0.5, 2.0]]]))
    tensor([[[1., 4.]]])
    """
    span = torch.tensor([max(size - 1, 1) for size in picture.shape[1:]]).view(2, 1, 1)
    grid = (2 * place / span - 1).flip(0).permute(1, 2, 0).unsqueeze(0)
    return F.grid_sample(picture.unsqueeze(0), grid, align_corners=True)[0]


def sides(found: Fragments, gap: int) -> list[Side]:
    """Both sides of every border between two fragments, each without its half of the gap."""
    much, nearest = F.avg_pool2d(found.paper.float(), 9, 1, 4).max(0)
    nearest = nearest.where(much > LITTLE, -1)
    both: list[Side] = []
    for one, other in combinations(range(len(found.paper)), 2):
        course = _course(_touching(nearest, one, other))
        if len(course) >= SHORTEST:
            outwards, number = _outwards(course, nearest, one), len(both)
            both.append(_side(found, one, course, outwards, gap, number + 1))
            both.append(_side(found, other, course, -outwards, gap, number))
    return both


def _touching(nearest: Int[Tensor, "Y X"], one: int, other: int) -> Float[Tensor, "n 2"]:
    """The places between pixels of one fragment and of the other, (row, column)."""
    found = []
    for shift, half in (((1, 0), (0.5, 0.0)), ((0, 1), (0.0, 0.5))):
        here = nearest[: nearest.shape[0] - shift[0], : nearest.shape[1] - shift[1]]
        there = nearest[shift[0] :, shift[1] :]
        both = ((here == one) & (there == other)) | ((here == other) & (there == one))
        found.append(both.nonzero().float() + torch.tensor(half))
    return torch.cat(found)


def _course(points: Float[Tensor, "n 2"]) -> Float[Tensor, "m 2"]:
    """A line through points, a pixel from place to place: along their main direction, averaged across it."""
    if len(points) < SHORTEST:
        return points[:0]
    middle = points.mean(0)
    main = torch.linalg.svd(points - middle, full_matrices=False)[2]  # (2, 2), the main direction first
    along, across = ((points - middle) @ main.T).unbind(1)
    steps = torch.arange(float(along.min()), float(along.max()))
    near = torch.exp(-0.5 * ((along - steps.unsqueeze(1)) / SMOOTH).square())
    mean = (near @ across) / near.sum(1).clamp(min=1e-9)
    line = torch.stack((steps, mean), 1)
    length = torch.cat((torch.zeros(1), line.diff(dim=0).norm(dim=1).cumsum(0)))
    even = torch.arange(float(length[-1]))
    after = torch.searchsorted(length, even).clamp(1, len(length) - 1)
    part = ((even - length[after - 1]) / (length[after] - length[after - 1])).unsqueeze(1)
    return (line[after - 1] + part * (line[after] - line[after - 1])) @ main + middle


def _outwards(course: Float[Tensor, "m 2"], nearest: Int[Tensor, "Y X"], one: int) -> Float[Tensor, "m 2"]:
    """Unit vectors across a border, away from the fragment `one`."""
    ahead = torch.gradient(course, dim=0)[0]
    across = F.normalize(torch.stack((ahead[:, 1], -ahead[:, 0]), 1), dim=1)
    probed = (course - 4 * across).round().long()
    inside = nearest[probed[:, 0].clamp(0, len(nearest) - 1), probed[:, 1].clamp(0, nearest.shape[1] - 1)] == one
    return across if inside.float().mean() > 0.5 else -across


def _side(found: Fragments, fragment: int, course: Tensor, outwards: Tensor, gap: int, partner: int) -> Side:
    """A side of a border, whose rows run so that outwards is to the right, whichever way the course runs."""
    ahead = torch.gradient(course, dim=0)[0]
    turned = float((ahead[:, 0] * outwards[:, 1] - ahead[:, 1] * outwards[:, 0]).mean()) < 0
    course, outwards = (course.flip(0), outwards.flip(0)) if turned else (course, outwards)
    inwards = torch.arange(WIDTH // 2 - 1, -1, -1) + gap / 2
    place = (course.unsqueeze(1) - inwards.view(1, -1, 1) * outwards.unsqueeze(1)).permute(2, 0, 1)  # (2, y, x)
    both = at(torch.cat((found.pixels[fragment], found.paper[fragment : fragment + 1].float())), place)
    return Side(fragment, both[:3], both[3] > WHOLE, partner)


Judge = Callable[[Tensor, Tensor], Tensor]


def side_by_side(one: Side, other: Side, gap: int) -> Float[Tensor, "n 4 y x"]:
    """Pairs as they are learned from: two sides face to face, at places along the border, as far as both reach."""
    rows = max(min(len(one.paper), len(other.paper)), HEIGHT)
    facing = (one.pixels, one.paper.unsqueeze(0)), (other.pixels.flip(1, 2), other.paper.flip(0, 1).unsqueeze(0))
    left, right = (torch.cat((pixels, paper.float())) for pixels, paper in facing)
    both = torch.cat([F.pad(each[:, :rows], (0, 0, 0, max(0, rows - each.shape[1]))) for each in (left, right)], 2)
    windows = both.unfold(1, HEIGHT, STEP).permute(1, 0, 3, 2)  # (n, 4, y, x)
    seam = torch.full((len(windows),), WIDTH // 2)
    straight = laid(windows[:, :3].round().clamp(0, 255).to(torch.uint8), seam, gap)
    return straight * windows[:, 3:]


@torch.no_grad()
def matches(found: Sequence[Side], gap: int, judge: Judge) -> Float[Tensor, "n n"]:
    """The mean log-odds, along the border, that two sides belong together; -inf of one fragment. `judge` gives the
    log-odds (B,) of pairs (B, 4, y, x) whose seams are in the columns (B,)."""
    scores = torch.full((len(found), len(found)), -torch.inf)
    for n, one in enumerate(found):
        for m, other in enumerate(found[:n]):
            if one.fragment != other.fragment:
                pairs = side_by_side(one, other, gap)
                scores[n, m] = judge(pairs, torch.full((len(pairs),), WIDTH // 2)).mean()
    return scores


class Joined(NamedTuple):
    """How many fragments hang together rightly, of how many, and how many of the joints are wrong."""

    right: int
    of: int
    wrong: int


def join(found: Sequence[Side], scores: Float[Tensor, "n n"]) -> Joined:
    """Joins fragments side by side, the likeliest first, as long as it is likelier than not: each side once, and no two
    fragments that hang together already."""
    parts = {side.fragment: {side.fragment} for side in found}
    rightly = {side.fragment: {side.fragment} for side in found}
    used: set[int] = set()
    wrong, columns = 0, scores.shape[1]
    for flat in scores.flatten().argsort(descending=True).tolist():
        n, m = divmod(flat, columns)
        one, other = found[n].fragment, found[m].fragment
        if scores[n, m] <= 0:
            break
        if n in used or m in used or parts[one] is parts[other]:
            continue
        used |= {n, m}
        _unite(parts, one, other)
        if found[n].partner == m:
            _unite(rightly, one, other)
        else:
            wrong += 1
    return Joined(max(len(part) for part in rightly.values()), len(parts), wrong)


def _unite(parts: dict[int, set[int]], one: int, other: int) -> None:
    both = parts[one] | parts[other]
    for each in both:
        parts[each] = both


def as_picture(found: Fragments) -> UInt8[Tensor, "3 Y X"]:
    """The photograph that the fragments are, white where there is none."""
    paper = found.paper.unsqueeze(1).float()
    mean = (found.pixels * paper).sum(0) / paper.sum(0).clamp(min=1)
    return mean.where(paper.sum(0) > 0, 255.0).round().to(torch.uint8)
