"""Pictures with what is said of them: pairs of digits that are composed on the fly, or pictures of your own."""

from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data import mnist
from regard.app.data.caption_folder import PARTS, Example, find, unheld
from regard.app.data.generators.composed import Composed
from regard.app.data.pixels import Pixels, bits_of, checked, form, on_canvas
from regard.app.data.splits import Splits, hold_out, padded
from regard.app.text.reading import printable
from regard.app.text.vocabulary import END, Words, words
from regard.app.vision.reading import File

OTHERS = 4  # captions without pictures beside each picture of a training batch


class Captions:
    """Pictures with one or more captions each as a split: N pictures, their captions in the numbers of a vocabulary.

    `pixels` are the pictures. `captions` are texts of known and unknown words, a space between them. `bits` are those
    of the values of pictures of more than eight bits.
    """

    def __init__(
        self,
        files: Sequence[File],
        captions: Sequence[list[str]],
        vocabulary: Words,
        shape: tuple[int, int, int],
        bits: int = 16,
    ):
        self.captions, self.bits, self.others = captions, bits, list[str]()
        self.pixels, self.features = Pixels(files, shape, bits), None
        self.counts = torch.tensor([len(each) for each in captions], dtype=torch.long)
        self.first = self.counts.cumsum(0) - self.counts
        self._spell(vocabulary)

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pictures at `indices`, each with one of its captions, drawn from `generator`; the first without one.

        Of captions of at most T words, END included:

            picture (B, C, Y, X)    in [0, 1]; not in training `with_features`, so that no picture is decoded
            features (B, K, D)      what `with_features` has given, if that was done
            caption (B, T)          the number of each word, END last; 0 after it
            text (B, C)             the bytes of all captions of the picture, a line each; 0 after them
            index (B,)              the indices
            others (4 B, T)         in training `with_others`, as many of these captions, about as long as each other

        Raises ValueError, with its name, for a picture that is damaged.
        """
        rows = self.first[indices]
        if generator is not None:
            drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64)
            rows = rows + (drawn * self.counts[indices]).long()
        caption, others = self.numbers[rows], {}
        if generator is not None and self.others:
            others["others"] = _cut(self.other_numbers[_neighbours(len(self.others), OTHERS * len(rows), generator)])
        texts = ("\n".join(self.captions[n]).encode() for n in indices.tolist())
        return {
            **self._seen(indices, training=generator is not None),
            **others,
            "caption": _cut(caption),
            "text": pad_sequence([torch.frombuffer(bytearray(text), dtype=torch.uint8) for text in texts], True),
            "index": indices,
        }

    def _seen(self, indices: Int[Tensor, " B"], training: bool) -> dict[str, Tensor]:
        found = {} if self.features is None else {"features": torch.from_numpy(self.features[indices.numpy()]).float()}
        if found and training:
            return found
        return found | {"picture": self.pixels[indices].float().mul_(1 / 255)}

    def with_features(self, features: Any) -> "Captions":
        """The same with the `features` of all pictures: an array (N, K, D), which may lie on the disk."""
        if len(features) != len(self):
            raise ValueError(f"expected the features of {len(self):,} pictures, but got those of {len(features):,}")
        other = copy(self)
        other.features = features
        return other

    def with_others(self, captions: Sequence[str]) -> "Captions":
        """The same with captions of pictures that are not there, for a network to learn to write from."""
        other = copy(self)
        other.others = sorted(captions, key=lambda each: each.count(" "))
        other._spell(self.vocabulary)
        return other

    def spelled_by(self, vocabulary: Words) -> "Captions":
        """The same, in the numbers of another vocabulary."""
        other = copy(self)
        other._spell(vocabulary)
        return other

    def _spell(self, vocabulary: Words) -> None:
        self.vocabulary = vocabulary
        texts = (text for each in self.captions for text in each)
        self.numbers, self.other_numbers = (_numbered(each, vocabulary) for each in (texts, self.others))


def _numbered(texts: Iterable[str], vocabulary: Words) -> Int[Tensor, "N T"]:
    return padded([torch.tensor([*numbers, END]) for numbers in vocabulary.encode(texts)]).int()


def _cut(numbers: Int[Tensor, "B T"]) -> Int[Tensor, "B t"]:
    """The rows up to the end of the longest one."""
    return numbers[:, : int((numbers > 0).any(0).sum())].long()


def _neighbours(count: int, wanted: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Some of `count` rows, drawn from among as many as are eight times those that are wanted, beside each other."""
    window = min(count, 8 * wanted)
    start = int(torch.randint(count - window + 1, (), generator=generator))
    return start + torch.randperm(window, generator=generator)[:wanted]


def captioned(
    data: str | Path = "digits",
    pictures: str | Path | None = None,
    canvas: int | None = None,
    least: int = 1,
    others: str | Path | None = None,
) -> Splits:
    """The splits of `data`, which is "digits", or a folder of

        MNIST's files           pairs of digits are composed of them, as of the sample in this package for "digits"
        captions.csv or .txt    lines of image,caption, or of image,caption,split below such a header
        captions.jsonl          an object with image, caption and perhaps split on each line
        captions_train*.json    and captions_val*.json, also in a folder annotations: the form of COCO

    or such a file; it may end in .gz or .xz besides. The pictures lie in the folder and those below it, or in its
    images.tar, images.tar.gz or images.tar.xz, or else in `pictures`, a folder or an archive. The end of a picture's
    path is enough to name it, where no other has the same.

    Where no split is told a tenth each is held out for the test and then for validation, by chance, the same ones
    always; of pictures in an archive the last tenth by name and the one before it. Where only the test is not told half
    of the validation pictures are taken for it. The canvas is `canvas` x `canvas` pixels or, where that is None, 60 for
    digits and for pictures as high and wide as the median one, at most 512. The vocabulary of each split is made of the
    words that the training captions have `least` times or more. Captions that are empty, have more than 100 words, or
    are of no picture are left out, and so are pictures without captions; `describe` says how many.

    `others` is another file of captions, whose pictures need not be there: the training split has those of them whose
    picture is not held out, to learn to write from.

    Raises ValueError where something is missing, damaged, not in UTF-8, or nothing is left; each picture is decoded
    once, and those that cannot be are named.

    >>> print(captioned().describe)
    pairs of digits composed of MNIST, the real digits inside regard: 9,000 training, 1,000 validation and 2,000 test
    pictures on 60x60 pixels
    """
    if _is_digits(data, pictures):
        if others is not None:
            raise ValueError(f"others {printable(others)} expected captions as data, but of digits all are known")
        return _composed(data, 60 if canvas is None else canvas)
    if canvas is not None and canvas < 1:
        raise ValueError(f"canvas must be one pixel or more, not {canvas}")
    if least < 1:
        raise ValueError(f"least must be how often a word occurs, one or more, not {least}")
    found = find(Path(data), pictures)
    known = checked([each.file for part in PARTS for each in found.examples(part)])
    shape, bits = form(known, canvas), bits_of(known)
    vocabulary = words((text for each in found.parts["train"] for text in each.captions), least)
    parts = [_split(found.examples(part), vocabulary, shape, bits) for part in PARTS]
    captions = f"{sum(int(part.counts.sum()) for part in parts):,} captions of {len(vocabulary.words):,} words"
    describe = f"{found.what}: {_counts(parts)}{found.remark} with {captions}, {on_canvas(shape)}{found.left_out}"
    if others is not None:
        parts[0] = parts[0].with_others(unheld(Path(others), found))
        describe += f"; {len(parts[0].others):,} captions without pictures"
    return Splits(*parts, describe=describe, shape=shape)


def captions_to_test(
    data: str | Path,
    vocabulary: Words,
    shape: tuple[int, int, int],
    pictures: str | Path | None = None,
    bits: int | None = None,
) -> Splits:
    """The test part of `captioned`, to test what was trained on others with its words, shape and bits; the other parts
    are empty.

    The bits are those of these pictures if they are not given. Raises ValueError as `captioned` does, but the other
    parts may be missing, and where digits, which are grey, were not learned.

    >>> from regard.app.data.generators.composed import WORDS
    >>> len(captions_to_test("digits", WORDS, (1, 60, 60)).test)
    2000
    """
    none = _split([], vocabulary, shape)
    if _is_digits(data, pictures):
        if shape != (1, shape[1], shape[1]):
            raise ValueError(f"digits are grey on a square, but the pictures that were learned are of {shape}")
        images, labels, source = mnist.find_test("embedded" if data == "digits" else data)
        test = Composed(images, labels, shape[1], seed=2, vocabulary=vocabulary)
        what = f"pairs of digits composed of {source}: {len(test):,} test pictures on {shape[1]}x{shape[1]} pixels"
        return Splits(none, none, test, what, (), shape)
    found = find(Path(data), pictures)
    known = checked([each.file for each in found.examples("test")])
    test = _split(found.examples("test"), vocabulary, shape, bits or bits_of(known))
    describe = f"{found.what}: {len(test):,} test pictures{found.remark}, {on_canvas(shape)}{found.left_out}"
    return Splits(none, none, test, describe, (), shape)


def no_captions(vocabulary: Words, shape: tuple[int, int, int], bits: int = 16) -> Splits:
    """Splits without a picture, but with a vocabulary and a shape: what a trained model knows of its data.

    >>> len(no_captions(Words(["a", "dog"]), (3, 64, 64)).train)
    0
    """
    none = _split([], vocabulary, shape, bits)
    return Splits(none, none, none, "", (), shape)


def _is_digits(data: str | Path, pictures: str | Path | None) -> bool:
    digits = data == "digits" or mnist.holds_digits(Path(data))
    if digits and pictures is not None:
        raise ValueError(f"pictures {printable(pictures)} expected captions as data, but digits are their own pictures")
    return digits


def _composed(data: str | Path, canvas: int) -> Splits:
    found, source = mnist.find("embedded" if data == "digits" else data)
    train, valid = hold_out(found.labels)
    parts = (
        Composed(found.images[train], found.labels[train], canvas),
        Composed(found.images[valid], found.labels[valid], canvas, seed=1),
        Composed(found.test_images, found.test_labels, canvas, seed=2),
    )
    describe = f"pairs of digits composed of {source}: {_counts(parts)} on {canvas}x{canvas} pixels"
    return Splits(*parts, describe, (), (1, canvas, canvas))


def _counts(parts: Sequence[Captions | Composed]) -> str:
    return "{:,} training, {:,} validation and {:,} test pictures".format(*map(len, parts))


def _split(examples: Sequence[Example], vocabulary: Words, shape: tuple[int, int, int], bits: int = 16) -> Captions:
    return Captions([each.file for each in examples], [each.captions for each in examples], vocabulary, shape, bits)
