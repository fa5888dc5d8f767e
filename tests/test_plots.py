"""Pictures of where an attention looked."""

import pytest
import torch

import regard as rg

KEYS, VALUES = torch.randn(2, 7, 4), torch.randn(2, 7, 3)


def seen(read=rg.mean, over=rg.softmax) -> rg.Attended:
    return rg.attend(KEYS[:, :3], KEYS, VALUES, over=over, read=read)


def drawn(figure) -> torch.Tensor:
    """The numbers of the picture."""
    return torch.as_tensor(figure.axes[0].images[0].get_array().data.copy())


def test_the_picture_is_of_the_weights():
    out = seen()
    for row in (0, 1, -1):
        torch.testing.assert_close(drawn(rg.plot(out, row)), out.weights[row])


def test_what_was_drawn_has_a_ring():
    out = seen(rg.sample)
    offsets = torch.as_tensor(rg.plot(out, row=1).axes[0].collections[0].get_offsets().data)
    assert offsets[:, 0].tolist() == out.z[1].tolist() and offsets[:, 1].tolist() == [0, 1, 2]
    assert not rg.plot(seen()).axes[0].collections


def test_words_stand_beside_the_axes():
    axes = rg.plot(seen(), queries="abc", places=list(range(7))).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="places expected 7 words, one for each, but got 2"):
        rg.plot(seen(), places=["a", "b"])


def test_locations_are_drawn_in_the_image():
    sensor = rg.Glimpses(torch.rand(1, 1, 28, 28), size=8)
    out = rg.look(torch.tensor([[0.5, -0.25]]), lambda query: rg.Coordinate(query, 0.1), sensor, rg.mode)
    axes = rg.plot(out).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[-0.25, 0.5]] and axes.get_ylim() == (1, -1)


def test_a_row_that_there_is_not():
    with pytest.raises(ValueError, match="row expected a number below 2, how many there are, but got 2"):
        rg.plot(seen(), row=2)


def test_a_notebook_shows_the_picture_and_a_line_of_shapes():
    out = seen(rg.sample)
    assert repr(out) == "Attended(context=(2, 3, 3), z=(2, 3), log_prob=(2, 3), over=OneHot)"
    assert out._repr_png_().startswith(b"\x89PNG")


def test_what_has_no_picture_shows_none():
    assert seen().detach()._repr_png_() is None, "neither weights nor what they can be made of"
    pixels, policy = torch.rand(1, 64, 1), lambda q: rg.GaussianGrid(q, torch.ones(1, 1), torch.ones(1, 1), 3, (8, 8))
    assert rg.look(torch.zeros(1, 2), policy, pixels, rg.mean)._repr_png_() is None
