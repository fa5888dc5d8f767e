"""Pictures that are varied: mirrored by halves, and coloured, within their range."""

import torch
from torch.testing import assert_close

from regard.app.vision.jitter import varied


def test_half_of_the_pictures_are_mirrored_and_nothing_else_is_done():
    pictures = torch.rand(200, 3, 6, 8)
    found = varied(pictures, amount=0.0, flip=True, generator=torch.Generator().manual_seed(0))
    mirrored = torch.isclose(found, pictures.flip(-1), atol=1e-4).flatten(1).all(1)
    same = torch.isclose(found, pictures, atol=1e-4).flatten(1).all(1)
    assert (mirrored ^ same).all() and 70 < mirrored.sum() < 130


def test_colours_are_strengthened_each_and_lightened_together():
    pictures = torch.full((500, 3, 4, 4), 0.5)
    found = varied(pictures, generator=torch.Generator().manual_seed(0))
    assert_close(found, found[:, :, :1, :1].expand_as(found))  # what has no edges stays without, also at the margin
    colours = found[:, :, 0, 0]
    assert colours.min() >= 0.5 * 0.8 - 0.1 and colours.max() <= 0.5 * 1.2 + 0.1
    assert colours.std(0).min() > 0.05 and (colours[:, 0] - colours[:, 1]).std() > 0.05


def test_pictures_are_moved_and_turned():
    picture = torch.zeros(1, 1, 21, 21)
    picture[..., 10, 10] = 1
    drawn = torch.Generator().manual_seed(0)
    middles = torch.stack([varied(picture, generator=drawn).flatten().argmax() for _ in range(40)])
    rows, columns = middles // 21, middles % 21
    assert 8 <= rows.min() < 10 < rows.max() <= 12 and 8 <= columns.min() < 10 < columns.max() <= 12
