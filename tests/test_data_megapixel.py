"""Megapixel scenes: windows and views are those of images that are never made, and every question has its answer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app.data.generators.megapixel import QUESTIONS, SIDE, Megapixel, Pasted, apart
from regard.app.data.mnist import find

DIGITS = find("embedded")[0]


def scenes(question: str = "majority", count: int = 40, side: int = 400, seed: int | None = 0) -> Megapixel:
    return Megapixel(DIGITS.images, DIGITS.labels, count, question, side=side, noise=8, seed=seed)


def fixed() -> list[Tensor]:
    """The kinds and the numbers of the digits, the strokes, and the corners of all."""
    found = scenes().fixed
    assert found is not None
    return found


def image(batch: dict[str, Tensor], side: int) -> Tensor:
    """What is pasted, (B, 1, side, side)."""
    whole = torch.zeros(len(batch["corners"]), 1, side, side)
    for row, (pieces, corners) in enumerate(zip(batch["pieces"], batch["corners"].tolist(), strict=True)):
        for piece, (top, left) in zip(pieces, corners, strict=True):
            whole[row, 0, top : top + SIDE, left : left + SIDE] += piece / 255
    return whole


@pytest.mark.parametrize("size", [7, 50, 81])
def test_windows_are_those_of_the_image(size: int):
    batch = scenes().batch(torch.arange(3))
    pasted = Pasted(batch["pieces"], batch["corners"], 400, size)
    z = 2.6 * torch.rand(9, 3, 2) - 1.3  # also at the edges, and beyond
    assert_close(pasted.read(z), rg.Glimpses(image(batch, 400), size).read(z))


@pytest.mark.parametrize(("side", "view"), [(400, 80), (400, 60), (390, 130)])
def test_the_view_is_the_image_made_smaller(side: int, view: int):
    batch = scenes(side=side).batch(torch.arange(3))
    wanted = pooled(image(batch, side), view)
    assert_close(Pasted(batch["pieces"], batch["corners"], side, 50).view(view), wanted, rtol=0, atol=1e-5)


def pooled(images: Tensor, view: int) -> Tensor:
    """The mean under each pixel of the view: of every pixel the share that lies there."""
    side = images.shape[-1]
    edges = torch.arange(view, dtype=torch.float64).unsqueeze(1) * side / view
    pixels = torch.arange(side, dtype=torch.float64)
    shares = (torch.minimum(edges + side / view, pixels + 1) - torch.maximum(edges, pixels)).clamp(min=0) * view / side
    return (shares @ images.double() @ shares.T).float()


def test_no_pieces_overlap():
    corners = apart(50, 30, 300)
    near = (corners.unsqueeze(1) - corners.unsqueeze(2)).abs().amax(-1) < SIDE
    assert near.sum() == 50 * 30
    assert corners.min() >= 0 and corners.max() <= 300 - SIDE


def test_three_digits_are_alike_and_every_question_has_its_answer():
    splits = {question: scenes(question).batch(torch.arange(40)) for question in QUESTIONS}
    kinds, _, _, corners = fixed()
    counts = F.one_hot(kinds, 10).sum(1)
    assert (counts.sort(1, descending=True).values[:, :3] == torch.tensor([3, 1, 1])).all()
    assert (splits["majority"]["label"] == counts.argmax(1)).all()
    assert (splits["max"]["label"] == kinds.max(1).values).all()
    assert (splits["several"]["label"] == (counts > 0)).all()
    highest = corners[:, :5, 0].min(1).indices
    assert (splits["top"]["label"] == kinds[torch.arange(40), highest]).all()


def test_the_digits_are_of_their_kinds():
    kinds, digits, _, _ = fixed()
    assert (DIGITS.labels[digits] == kinds).all()


def test_scenes_are_fixed_by_their_index_or_new_every_time():
    some, same = scenes().batch(torch.tensor([3, 5])), scenes().batch(torch.tensor([5, 3]))
    assert all((one == other.flip(0)).all() for one, other in zip(some.values(), same.values(), strict=True))
    fresh = scenes(seed=None)
    first, again, other = (fresh.batch(torch.tensor([3, 5]), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert (first["corners"] == again["corners"]).all() and (first["corners"] != other["corners"]).any()


def test_a_canvas_too_small_for_its_pieces_is_refused():
    with pytest.raises(ValueError, match="side expected room for 13 pieces of 28 pixels, but got 200"):
        scenes(side=200)
