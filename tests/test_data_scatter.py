import pytest
import torch

from regard.app.data import Scattered, digits
from regard.app.vision.jitter import jittered


def flat(*values: int, size: int = 28) -> torch.Tensor:
    """One image of a single grey level for each of `values`."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None].expand(-1, size, size).contiguous()


def some_digits(count: int) -> torch.Tensor:
    """Random ink in the middle of each image, which begins and ends at random rows and columns."""
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for image in images:
        y0, x0 = torch.randint(0, 10, (2,))
        y1, x1 = torch.randint(15, 29, (2,))
        image[y0:y1, x0:x1] = torch.randint(1, 256, (int(y1 - y0), int(x1 - x0)), dtype=torch.uint8)
    return images


def grey(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (batch["image"] * 255).round().byte()[:, 0]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_images_own_size_without_clutter_gives_the_images_themselves():
    images, labels = some_digits(5), torch.arange(5)
    batch = Scattered(images, labels, canvas=28, clutter=0).batch(torch.tensor([3, 1]))
    assert torch.equal(grey(batch), images[[3, 1]])
    assert batch["label"].tolist() == [3, 1]
    assert batch["label"].dtype == torch.int64
    assert batch["image"].dtype == batch["box"].dtype == torch.float32
    assert float(batch["image"].max()) <= 1


def test_the_box_holds_all_the_ink_and_no_empty_edge():
    images = some_digits(50)
    batch = Scattered(images, torch.zeros(50).long(), clutter=0).batch(torch.arange(50))
    for canvas, image, (y0, x0, y1, x1) in zip(grey(batch), images, batch["box"].int().tolist(), strict=True):
        cut = canvas[y0:y1, x0:x1]
        assert canvas.sum() == cut.sum() == image.sum()
        assert all(edge.any() for edge in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))


def test_an_empty_image_has_the_whole_of_its_place_as_its_box():
    box = Scattered(flat(0), torch.zeros(1).long(), clutter=0).batch(torch.zeros(1).long())["box"]
    assert (box[:, 2:] - box[:, :2]).tolist() == [[28, 28]]


def test_every_place_wholly_inside_the_canvas_is_as_likely():
    count, places = 20_000, 33  # corners 0..32 on a canvas of 60
    batch = Scattered(flat(255), torch.zeros(1).long(), clutter=0).batch(torch.zeros(count).long(), seeded(0))
    for corner in batch["box"][:, :2].long().T:
        hits = corner.bincount(minlength=places)
        expected = count / places
        assert len(hits) == places
        assert ((hits - expected) ** 2 / expected).sum() < 62.5  # chi-square of 32 degrees: false alarm 1e-3
    assert abs(float(torch.corrcoef(batch["box"][:, :2].T)[0, 1])) < 0.024  # false alarm 1e-3


def test_training_images_are_scattered_afresh_by_the_generator_alone():
    split, indices = Scattered(some_digits(9), torch.arange(9)), torch.arange(9)
    one, same, other = (split.batch(indices, seeded(seed))["image"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    generator = seeded(1)
    assert not torch.equal(split.batch(indices, generator)["image"], split.batch(indices, generator)["image"])


def test_seeded_images_are_the_same_in_whatever_order_and_batches_they_are_asked_for():
    split = Scattered(some_digits(30), torch.arange(30), seed=1)
    whole = split.batch(torch.arange(30))
    order = torch.randperm(30)
    for indices in (*order.split(7), order[:1]):
        part = split.batch(indices, torch.Generator().manual_seed(int(indices[0])))
        assert all(torch.equal(part[name], whole[name][indices]) for name in whole)
    other = Scattered(split.images, split.labels, seed=2).batch(torch.arange(30))
    assert not torch.equal(other["box"], whole["box"])


def test_pieces_are_8x8_and_cut_from_every_digit_but_its_own():
    split = Scattered(flat(0, 100, 200), torch.arange(3), clutter=1)
    shown = grey(split.batch(torch.zeros(500).long(), seeded(0)))  # the digit is black: only its clutter shows
    assert ((shown > 0).sum((1, 2)) == 8 * 8).all()
    assert set(shown.flatten(1).amax(1).tolist()) == {100, 200}
    split = Scattered(flat(0, 200), torch.arange(2))
    shown = grey(split.batch(torch.ones(50).long(), seeded(0)))  # the only other is black: only the digit shows
    assert ((shown > 0).sum((1, 2)) == 28 * 28).all()


def test_pieces_reach_every_place_and_are_cut_from_every_place():
    corners = torch.zeros(1, 28, 28, dtype=torch.uint8)
    corners[0, [0, 0, 27, 27], [0, 27, 0, 27]] = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    split = Scattered(torch.cat([flat(0), corners, flat(5)]), torch.zeros(3).long(), canvas=32)
    shown = grey(split.batch(torch.zeros(4000).long(), seeded(0)))
    assert (shown == 5).any(0).all()
    assert shown.unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_where_the_digit_lies_and_a_piece_is_cut_and_put_are_independent():
    rows = torch.arange(1, 29, dtype=torch.uint8).view(1, 28, 1).expand(1, 28, 28)  # a row's grey level is its number
    batch = Scattered(torch.cat([flat(0), rows]), torch.zeros(2).long(), clutter=1).batch(torch.zeros(4000).long())
    lines = grey(batch).amax(2)  # (B, 60)
    cut = lines.amax(1)
    put = (lines > 0).byte().argmax(1)
    correlation = torch.corrcoef(torch.stack([batch["box"][:, 0], cut, put])).triu(1).abs()
    assert correlation.max() < 0.06  # false alarm 1e-3 at worst: 3.8 / sqrt(4000)


def test_the_brighter_pixel_is_seen_where_clutter_and_digit_overlap():
    split = Scattered(flat(100, 50, 200), torch.arange(3), clutter=6)
    batch = split.batch(torch.zeros(200).long(), seeded(0))
    inside = set()
    for canvas, (y0, x0, y1, x1) in zip(grey(batch), batch["box"].int().tolist(), strict=True):
        inside |= set(canvas[y0:y1, x0:x1].flatten().tolist())
    assert inside == {100, 200}
    assert set(grey(batch).unique().tolist()) == {0, 50, 100, 200}


def test_the_images_given_are_not_changed():
    images = some_digits(4)
    before = images.clone()
    Scattered(images, torch.arange(4)).batch(torch.arange(4))["image"].zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "canvas", "clutter", "message"),
    [
        (flat(1, 2), 27, 0, "canvas must be at least 28, the size of the images, not 27"),
        (flat(1, 2), 60, -1, "clutter must be the number of pieces, zero or more, not -1"),
        (flat(1, 2, size=7), 60, 4, "clutter is cut from other images of at least 8x8 pixels, not from 2 of 7x7"),
        (flat(1), 60, 4, "clutter is cut from other images of at least 8x8 pixels, not from 1 of 28x28"),
    ],
)
def test_bad_arguments_are_named(images: torch.Tensor, canvas: int, clutter: int, message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Scattered(images, torch.zeros(len(images)).long(), canvas, clutter)


class TestJitter:
    digits = digits(canvas=28, clutter=0).train

    def test_digits_are_warped_afresh_in_each_batch_and_the_box_is_around_the_ink_all_the_same(self):
        split = Scattered(self.digits.images, self.digits.labels, canvas=60, clutter=0, jitter=1.0)
        plain = Scattered(self.digits.images, self.digits.labels, canvas=60, clutter=0)
        indices = torch.arange(64)
        batch, other, unwarped = (
            each.batch(indices, torch.Generator().manual_seed(seed))
            for each, seed in ((split, 0), (split, 1), (plain, 0))
        )
        assert not torch.equal(batch["image"], other["image"])
        for image, box in zip(batch["image"][:, 0], batch["box"].long(), strict=True):
            y, x = image.nonzero().unbind(1)
            assert box.tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]
        ink = [each["image"].flatten(1).sum(1) for each in (batch, unwarped)]
        assert ((ink[0] / ink[1]).log().abs() < 0.4).all(), "about as much ink as before"
        assert (ink[0] != ink[1]).any()

    def test_a_digit_is_moved_by_no_more_than_it_may(self):
        image = torch.zeros(500, 28, 28, dtype=torch.uint8)
        image[:, 12:16, 12:16] = 255
        warped = jittered(image, generator=torch.Generator().manual_seed(0)).double()
        weights = warped / warped.sum((1, 2), keepdim=True)
        middle = torch.stack(
            [(weights.sum(2) * torch.arange(28)).sum(1), (weights.sum(1) * torch.arange(28)).sum(1)], 1
        )
        moved = (middle - 13.5).abs()
        assert moved.max() < 0.07 * 14 * 1.3 and moved.mean() > 0.2

    def test_a_bend_moves_the_ink_by_less_than_a_few_pixels_and_not_all_of_it_alike(self):
        image = torch.zeros(500, 28, 28, dtype=torch.uint8)
        image[:, 4:24, 13:15] = 255
        warped = jittered(image, 0.0, bend=1.0, generator=torch.Generator().manual_seed(0)).double()
        assert not torch.equal(warped.byte(), image)
        column = (warped * torch.arange(28)).sum(2) / warped.sum(2)  # (B, Y): where the line is
        inside = column[:, 6:22]
        assert not inside.isnan().any()
        off = inside - 13.5
        assert 0.3 < off.std() < 1 and off.abs().max() < 5
        assert off.std(1).mean() > 0.2, "a line is bent, not only moved"
        assert (inside.diff(dim=1).abs() < 1).double().mean() > 0.99, "smoothly"

    @pytest.mark.unchecked
    @pytest.mark.parametrize("name", ["jitter", "bend"])
    @pytest.mark.parametrize("amount", [-1.0, float("nan")])
    def test_an_amount_that_makes_no_sense_is_refused(self, name: str, amount: float):
        with pytest.raises(ValueError, match=f"{name} must be a number, zero or more, not"):
            Scattered(self.digits.images, self.digits.labels, **{name: amount})
