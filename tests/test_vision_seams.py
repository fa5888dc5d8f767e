"""Strips of pairs, what finds them and what judges them, and puzzles."""

from itertools import permutations

import pytest
import torch
from torch.testing import assert_close

from regard.app.data.joints import Joints, laid
from regard.app.report.seam_figures import pair_figure
from regard.app.vision.assembly import Fits, assembled, best_board, cut, fits
from regard.app.vision.seams import Finder, Joiner, even, smaller, starts, steps, strips


def test_strips_are_columns():
    pair, begin = torch.rand(2, 4, 5, 24), torch.tensor([[0, 8], [3, 4], [1, 1]])
    found = strips(pair, begin, 16)
    assert found.shape == (3, 2, 4, 5, 16)
    for draw, row in ((0, 1), (1, 0), (2, 1)):
        first = int(begin[draw, row])
        assert_close(found[draw, row], pair[row, :, :, first : first + 16])


@pytest.mark.parametrize("width", [128, 144])
@pytest.mark.parametrize("size", [16, 24])
def test_every_strip_has_a_score_of_what_lies_in_it(size: int, width: int):
    """What changes in the middle of a strip changes its own score, and those of strips about it, but none far away."""
    finder, pair = Finder(64, size, prior=False), torch.zeros(1, 4, 64, width)
    begins = starts(width, size)
    assert (finder(torch.rand_like(pair)) == 0).all()
    torch.nn.init.normal_(finder.network[-1].weight)
    before = finder(pair)
    assert before.shape == (1, 1, len(begins))
    middle = width // 2
    pair[..., middle - 4 : middle + 4] = 1
    changed = (finder(pair) - before)[0, 0].abs() > 1e-7
    inside = (begins + size / 2 - middle).abs()
    assert changed[inside < 4].all() and not changed[inside > 32].any()


@pytest.mark.parametrize("gap", [3, 8])
def test_what_has_no_paper_is_looked_at_first(gap: int):
    pair, seam = torch.rand(5, 3, 64, 144).mul(255).to(torch.uint8), torch.tensor([48, 57, 70, 83, 96])
    pair = laid(pair, seam, gap)
    z = Finder(64, 24, prior=True)(pair).argmax(-1).squeeze(1)
    assert ((starts(144, 24)[z] + 12 - seam).abs() <= 6).all()


def test_pale_photographs_look_like_gaudy_ones():
    pair = torch.cat((torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)), 1)
    pair[..., 7:9] = 0
    pale = pair.clone()
    pale[:, :3] = (pair[:, :3] * 0.5 + 0.2) * pair[:, 3:]
    assert_close(even(pale)[:, :3], even(pair)[:, :3], rtol=0.05, atol=0.05)
    assert (even(pair)[..., 7:9] == 0).all()
    assert even(torch.zeros(1, 4, 8, 8)).isfinite().all()


def test_the_whole_made_smaller_has_as_many_pixels_as_a_strip():
    small = smaller(torch.rand(1, 4, 64, 144), 16)
    assert abs(small.shape[2] * small.shape[3] / (64 * 16) - 1) < 0.05
    assert Joiner()(small).shape == (1,) == Joiner()(torch.rand(1, 4, 64, 16)).shape


def test_the_rule_sees_a_step():
    row = torch.linspace(-1, 1, 40).expand(2, 3, 8, 40).clone()
    row[1, :, :, 20:] -= 1
    pair = torch.cat((row, torch.ones(2, 1, 8, 40)), 1)
    found = steps(pair, torch.tensor([20, 20]), gap=3)
    assert_close(found[0], torch.tensor(1.0), rtol=0.01, atol=0.01)
    assert found[1] > 3


def test_a_board_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    right, below = torch.randn(2, 6, 6, generator=generator).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)

    def worth(board: tuple[int, ...]) -> float:
        across = sum(right[board[n], board[n + 1]] for n in (0, 1, 3, 4))
        return float(across + sum(below[board[n], board[n + 3]] for n in range(3)))

    best = max(permutations(range(6)), key=worth)
    assert best_board(Fits(right, below), 2, 3).flatten().tolist() == list(best)


def test_a_puzzle_is_put_together():
    photograph = torch.stack([torch.arange(150).view(-1, 1) + torch.zeros(150), torch.arange(150).expand(150, 150)])
    photograph = torch.cat((photograph, photograph[:1])).to(torch.uint8)
    pieces = cut(photograph, 3, 5, rows=3, size=40, gap=6)
    order = torch.tensor([4, 1, 7, 0, 8, 3, 5, 2, 6])

    def judge(pair: torch.Tensor, seam: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(pair))
        apart = pair[rows, :3, :, seam - 4] - pair[rows, :3, :, seam + 3]
        return -(apart.abs().amax(1) - 14 / 255).abs().mean(1)

    board = best_board(fits(pieces[order], 6, judge), 3, 3)
    assert order[board.flatten()].tolist() == list(range(9))
    picture = assembled(pieces[order], board, 6)
    assert picture.shape == (3, 132, 132)
    assert (picture[:, :40, :40] == pieces[0]).all() and (picture[:, 92:, 92:] == pieces[8]).all()


def test_a_pair_is_drawn_with_what_was_read():
    photograph = torch.randint(0, 256, (3, 220, 220), dtype=torch.uint8)
    pair = Joints([photograph], 3, 1, seed=0).batch(torch.tensor([0]))["pair"][0]
    assert len(pair_figure(pair).axes) == 1
    figure = pair_figure(pair, (40, 16), torch.ones(65) / 65)
    (box,) = figure.axes[1].patches
    assert box.get_xy() == (39.5, -0.5)
