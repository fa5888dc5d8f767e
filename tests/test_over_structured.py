"""The masks of structures: of positions, of labels, and such that are refused."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg

B, T, S = 3, 5, 4
PRESENT = torch.arange(T) < torch.tensor([[5], [2], [0]])


def chains() -> dict:
    links = torch.randn(S, S)
    return {"chain": rg.chain(links, links[0], links[1]), "semi_markov": rg.semi_markov(2, links)}


def check_equal(one: rg.Positions, other: rg.Positions) -> None:
    assert_close((one.log_z, one.mean), (other.log_z, other.mean))


@pytest.mark.parametrize("over", ["chain", "semi_markov"])
def test_the_mask_of_taggers(over: str):
    part, scores = chains()[over], torch.randn(B, T, S)
    check_equal(part(scores, PRESENT), part(scores, PRESENT.unsqueeze(-1)))
    check_equal(part(scores[1], PRESENT[1]), part(scores[1], PRESENT[1, :, None]))
    check_equal(part(scores[:1], PRESENT[:1]), part(scores[:1]))
    check_equal(part(scores[None], PRESENT[None]), part(scores[None], PRESENT[None, ..., None]))
    assert_close(part(scores, PRESENT).log_z[1], part(scores[1, :2]).log_z)


@pytest.mark.parametrize("over", ["chain", "semi_markov"])
def test_the_mask_of_labels(over: str):
    part, scores, mask = chains()[over], torch.randn(B, T, S), torch.ones(T, S, dtype=torch.bool)
    mask[1, 2] = False
    check_equal(part(scores, mask), part(scores.masked_fill(~mask, -torch.inf)))
    check_equal(part(scores, mask), part(scores, mask.expand(B, T, S)))


@pytest.mark.parametrize("over", [rg.tree(), rg.tree(projective=False)])
def test_the_mask_of_words(over: rg.tree):
    scores = torch.randn(B, T, T)
    for mask in (PRESENT, PRESENT.unsqueeze(-1), PRESENT.unsqueeze(-2), PRESENT.unsqueeze(-1) & PRESENT.unsqueeze(-2)):
        check_equal(over(scores, mask), over(scores, rg.padding(torch.tensor([5, 2, 0]), T)))
    check_equal(over(scores[1], PRESENT[1]), over(scores[1], PRESENT[1:2]))
    check_equal(over(scores[1:2], PRESENT[1:2]), over(scores[1:2], PRESENT[1:2, None]))


def test_the_mask_of_places():
    scores, part = torch.randn(B, 2, T), rg.segments()
    check_equal(part(scores, PRESENT[:, None]), part(scores, PRESENT[:, None].expand(B, 2, T)))
    check_equal(part(scores, PRESENT[:2]), part(scores, PRESENT[:2].expand(B, 2, T)))
    assert_close(part(scores[:, 0], PRESENT).mean, part(scores[:, :1], PRESENT[:, None]).mean[:, 0])


SQUARE = torch.arange(4) < torch.tensor([[4], [3], [2], [1]])


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("part", "scores", "mask", "message"),
    [
        (
            rg.chain(torch.zeros(4, 4)),
            (4, 4, 4),
            SQUARE,
            r"mask expected no two meanings, but \(4, 4\) may be the positions of each row as well as the labels of "
            r"all rows: mask\[..., None\] is the former, mask\[None\] the latter.",
        ),
        (rg.semi_markov(2, torch.zeros(4, 4)), (4, 4, 4), SQUARE, "may be the positions of each row"),
        (rg.tree(), (4, 4, 4), SQUARE, "may be the words of each row as well as the arcs of all rows"),
        (rg.segments(), (4, 4, 4), SQUARE, r"may be the places of each row, \(B, K\), as well as those of each query"),
        (
            rg.chain(torch.zeros(4, 4)),
            (2, 3, 4),
            torch.ones(2, 4).bool(),
            r"mask expected the shape of the positions, \(2, 3\), or of the labels, \(2, 3, 4\), but got \(2, 4\).",
        ),
        (rg.tree(), (2, 3, 3), torch.ones(2, 2, 3).bool(), r"of the words, \(2, 3\), or of the arcs, \(2, 3, 3\)"),
        (
            rg.segments(),
            (2, 3, 4),
            torch.ones(2, 4).bool(),
            r"shape of the scores, \(2, 3, 4\), or \(Q, K\), but got \(2, 4\); the places of each row "
            r"are mask\[..., None, :\].",
        ),
        (rg.segments(), (2, 3, 4), torch.ones(5, 4).bool(), r"or \(Q, K\), but got \(5, 4\).$"),
    ],
)  # fmt: skip
def test_what_is_refused(part, scores: tuple[int, ...], mask: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        part(torch.randn(scores), mask)


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.long])
@pytest.mark.parametrize(
    "part", [rg.chain(torch.zeros(4, 4)), rg.segments(), rg.semi_markov(2, torch.zeros(4, 4)), rg.tree()]
)
def test_only_masks_of_bool(part, kind: torch.dtype):
    for mask in (torch.ones(2, 4, dtype=kind), torch.ones(2, 4, 4, dtype=kind)):
        with pytest.raises(TypeError, match=f"dtype bool, True where a key may be looked at, but got {kind}"):
            part(torch.randn(2, 4, 4), mask)
    with pytest.raises(TypeError, match="mask expected dtype bool, True where a key may be looked at, but got list"):
        part(torch.randn(2, 4, 4), [[True] * 4] * 2)


@pytest.mark.unchecked
def test_the_remedies_do_what_they_say():
    part, scores = rg.chain(torch.randn(4, 4)), torch.randn(4, 4, 4)
    assert [each.tolist().count(-1) for each in part(scores, SQUARE[..., None]).mode] == [0, 1, 2, 3]
    check_equal(part(scores, SQUARE[None]), part(scores.masked_fill(~SQUARE, -torch.inf)))
    words = rg.tree()(scores, SQUARE[..., None])
    assert [each.tolist().count(-1) for each in words.mode] == [0, 1, 2, 3]
