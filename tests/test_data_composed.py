"""Pairs of digits: what the captions say is what is to be seen."""

import time
from collections import Counter

import pytest
import torch

from regard.app.data import Composed, captioned, captions_to_test, digits, no_captions
from regard.app.data.generators.composed import NAMES, WORDS
from regard.app.data.mnist import SAMPLE, read_part
from regard.app.text.vocabulary import UNKNOWN, Words

IMAGES, LABELS = read_part(SAMPLE, "t10k")


def scenes(count: int = 500, **options) -> Composed:
    return Composed(IMAGES[:count], LABELS[:count], **options)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said(batch: dict[str, torch.Tensor]) -> list[str]:
    return [bytes(text[text > 0].tolist()).decode() for text in batch["text"]]


BATCH = scenes().batch(torch.arange(500), seeded(0))


def test_the_ink_of_two_digits_lies_in_the_boxes_of_the_words_that_name_them():
    for picture, boxes, text in zip((BATCH["picture"][:, 0] * 255).round(), BATCH["boxes"], said(BATCH), strict=True):
        named = [n for n, word in enumerate(text.split()) if word in NAMES]
        assert (~boxes[:, 0].isnan()).nonzero().flatten().tolist() == named and len(named) == 2
        cuts = [picture[y0:y1, x0:x1] for y0, x0, y1, x1 in boxes[named].int().tolist()]
        assert picture.sum() == sum(cut.sum() for cut in cuts), "they do not overlap, and there is nothing else"
        assert all(edge.any() for cut in cuts for edge in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))


def test_the_relation_is_that_of_the_larger_distance_and_the_first_is_left_or_above():
    for boxes, text in zip(BATCH["boxes"], said(BATCH), strict=True):
        first, second = boxes[~boxes[:, 0].isnan()]
        down, across = ((second + first.neg()).view(2, 2).sum(0) / 2).tolist()
        assert "left" in text if abs(across) >= abs(down) else "above" in text
        assert (across if "left" in text else down) > 0


def test_each_digit_is_named_by_its_label_and_shown_as_it_is():
    for index, (boxes, text) in enumerate(zip(BATCH["boxes"], said(BATCH), strict=True)):
        (y, x) = IMAGES[index].nonzero().unbind(1)
        ink = IMAGES[index, y.min() : y.max() + 1, x.min() : x.max() + 1]
        names = [n for n, word in enumerate(text.split()) if word == NAMES[LABELS[index]]]
        cuts = [BATCH["picture"][index, 0, y0:y1, x0:x1] for y0, x0, y1, x1 in boxes[names].int().tolist()]
        assert any(torch.equal((cut * 255).round().byte(), ink) for cut in cuts)


def test_the_numbers_are_those_of_the_words():
    assert [WORDS.decode(row.tolist()) for row in BATCH["caption"]] == said(BATCH)
    ends = [row[row > 0].tolist() for row in BATCH["caption"]]
    assert all(row[-1] == 2 and row.count(2) == 1 for row in ends) and {len(row) for row in ends} == {4, 5}
    assert BATCH["boxes"].shape == (500, 5, 4) and BATCH["index"].tolist() == list(range(500))


def test_both_relations_both_orders_and_all_digits_come_up_equally_often():
    batch = scenes(2000).batch(torch.arange(2000), seeded(1))
    texts = [text.split() for text in said(batch)]
    assert 900 < sum("left" in text for text in texts) < 1100
    first = sum(text[0] == NAMES[LABELS[n]] and text[-1] != text[0] for n, text in enumerate(texts))
    last = sum(text[-1] == NAMES[LABELS[n]] and text[-1] != text[0] for n, text in enumerate(texts))
    assert 0.85 < first / last < 1.18
    assert min(Counter(word for text in texts for word in (text[0], text[-1])).values()) > 250
    edges = batch["boxes"][~batch["boxes"].isnan().any(-1)]
    assert edges[:, :2].min() == 0 and edges[:, 2:].max() == 60, "they reach all edges"


def test_training_scenes_are_drawn_afresh_and_others_fixed_by_their_index():
    train, valid = scenes(), scenes(seed=1)
    indices = torch.tensor([7, 3, 7])
    one, same, other = (train.batch(indices, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one["picture"], same["picture"]) and not torch.equal(one["picture"], other["picture"])
    assert not torch.equal(one["picture"][0], one["picture"][2])
    fixed, alone = valid.batch(indices, seeded(0)), valid.batch(indices[1:2], seeded(5))
    assert torch.equal(fixed["picture"][0], fixed["picture"][2])
    assert torch.equal(fixed["picture"][1], alone["picture"][0]) and torch.equal(fixed["text"][1], alone["text"][0])
    assert not torch.equal(scenes(seed=2).batch(indices)["picture"], fixed["picture"])


def test_a_batch_takes_a_few_milliseconds():
    train, indices = scenes(2000), torch.arange(64)
    train.batch(indices)
    begin = time.process_time()
    for _ in range(20):
        train.batch(indices)
    assert (time.process_time() - begin) / 20 < 0.02


@pytest.mark.parametrize("canvas", [40, 41, 100])
def test_any_canvas_that_two_digits_fit_on(canvas: int):
    batch = scenes(canvas=canvas).batch(torch.arange(500), seeded(0))
    boxes = batch["boxes"][~batch["boxes"].isnan().any(-1)]
    assert batch["picture"].shape[2:] == (canvas, canvas) and boxes.min() == 0 and boxes.max() == canvas


def test_a_smaller_canvas_is_refused():
    with pytest.raises(
        ValueError, match=r"^canvas must be at least 40, as two digits must fit beside each other, not 39$"
    ):
        scenes(canvas=39)


def test_letters_are_refused():
    with pytest.raises(ValueError, match=r"^digits have the labels 0 to 9, but there is a 26$"):
        Composed(IMAGES[:3], torch.tensor([1, 26, 3]))


def test_one_digit_alone_is_shown_twice():
    batch = Composed(IMAGES[:1], LABELS[:1]).batch(torch.zeros(3).long())
    assert set(said(batch)) <= {"seven left of seven", "seven above seven"}


def test_in_the_words_of_another_vocabulary():
    other = scenes(seed=1).spelled_by(Words(["seven", "left"]))
    batch, same = other.batch(torch.arange(9)), scenes(seed=1).batch(torch.arange(9))
    assert torch.equal(batch["picture"], same["picture"]) and torch.equal(batch["text"], same["text"])
    expected = [[{"seven": 4, "left": 5}.get(word, UNKNOWN) for word in text.split()] for text in said(same)]
    assert [row[row > 0].tolist()[:-1] for row in batch["caption"]] == expected


def test_the_splits_are_those_of_digits():
    splits, plain = captioned(), digits(canvas=28, clutter=0)
    assert [len(part) for part in splits[:3]] == [9000, 1000, 2000] and splits.shape == (1, 60, 60)
    for ours, theirs in zip(splits[:3], plain[:3], strict=True):
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.vocabulary.words == [*NAMES, "left", "of", "above"]
    assert "9,000 training, 1,000 validation and 2,000 test pictures on 60x60 pixels" in splits.describe


def test_a_folder_of_idx_files_is_composed_too(few_digits):
    splits = captioned(few_digits, canvas=50)
    assert [len(part) for part in splits[:3]] == [900, 100, 200] and splits.shape == (1, 50, 50)
    with pytest.raises(ValueError, match=r"^pictures photos expected captions as data, but digits are their own "):
        captioned(few_digits, "photos")


def test_to_test_what_was_trained_before():
    found = captions_to_test("digits", WORDS, (1, 50, 50))
    assert [len(part) for part in found[:3]] == [0, 0, 2000] and found.shape == (1, 50, 50)
    assert torch.equal(
        found.test.batch(torch.arange(5))["picture"], captioned(canvas=50).test.batch(torch.arange(5))["picture"]
    )
    message = r"^digits are grey on a square, but the pictures that were learned are of \(3, 50, 50\)$"
    with pytest.raises(ValueError, match=message):
        captions_to_test("digits", WORDS, (3, 50, 50))
    none = no_captions(WORDS, (1, 50, 50))
    assert len(none.test) == 0 and none.test.vocabulary is WORDS and none.shape == (1, 50, 50)
