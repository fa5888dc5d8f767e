"""Your own pictures: a folder with a folder for each class, the ImageFolder convention."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.app.data.files import left_out
from regard.app.data.pixels import Pixels, bits_of, checked, form, on_canvas
from regard.app.data.splits import Splits, count, hold_out
from regard.app.facts import Facts as Known
from regard.app.text.reading import clean, printable
from regard.app.vision import reading
from regard.app.vision.jitter import varied
from regard.app.vision.reading import ENDINGS

SHOWN = 10  # kinds of files that are told apart
STORE = ".zarr"  # how the name of a folder ends that is an image
OUTSIDE = "outside the class folders"
LOOKED_FOR = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


class Listing(NamedTuple):
    """Files and the number of each one's class."""

    files: list[Path]
    labels: Int[Tensor, " N"]

    def take(self, indices: Int[Tensor, " M"]) -> "Listing":
        """The files at `indices`."""
        return Listing([self.files[i] for i in indices.tolist()], self.labels[indices])


NONE = Listing([], torch.zeros(0, dtype=torch.long))


class Pictures:
    """Pictures of any size, each centred on a canvas of `shape` (C, Y, X), as a split: their `Pixels` and labels; in
    training `varied` by `jitter`, and mirrored with `flip`."""

    def __init__(
        self, listing: Listing, shape: tuple[int, int, int], bits: int = 16, jitter: float = 0.0, flip: bool = False
    ):
        self.files, self.labels, self.bits = listing.files, listing.labels, bits
        self.pixels, self.jitter, self.flip = Pixels(listing.files, shape, bits), jitter, flip

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pictures at `indices`: `image` (B, C, Y, X) in [0, 1] and `label` (B,). They are varied by what is drawn
        from the generator, and without one as they are.

        Raises ValueError, with its name, for a picture that is damaged.
        """
        images = self.pixels[indices].float().mul_(1 / 255)
        if generator is not None and (self.jitter or self.flip):
            images = varied(images, self.jitter, self.flip, generator)
        return {"image": images, "label": self.labels[indices]}


def read_picture(file: str | Path, shape: tuple[int, int, int], bits: int = 16) -> Float[Tensor, "C Y X"]:
    """The picture in a file as a model of images of `shape` expects it, in [0, 1]: one of `Pictures`, by itself.

    `bits` are those of the data set that the model was trained on. Raises ValueError if it cannot be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (40, 30), 255).save(Path(folder) / "white.png")
    ...     read_picture(Path(folder) / "white.png", (1, 30, 40)).unique()
    tensor([1.])
    """
    return reading.read(Path(file), shape, bits).float().mul_(1 / 255)


def picture_for(facts: Known, file: str | Path) -> Float[Tensor, "C Y X"]:
    """The picture in a file as the model expects it whose `facts` say the shape and the bits of its images."""
    known = facts.values
    return read_picture(file, tuple(known["shape"]), known["bits"] or 16)


def pictures(
    folder: str | Path, canvas: int | None = None, seed: int = 0, jitter: float = 1.0, flip: bool = False
) -> Splits:
    """The pictures `folder`/train/CLASS/* and `folder`/test/CLASS/*, also in folders below these.

    They end in .png, .jpg, .jpeg, .webp, .tif, .tiff, .bmp or .gif, in any case; `describe` says what else there is,
    which is left out, but for hidden files. Classes are numbered in the order of their names. A tenth of the training
    pictures, drawn with `seed`, is held out for validation, and before that a tenth for the test where there is no
    folder `test`. The canvas is `canvas` x `canvas` or, where that is None, as high and as wide as the median picture,
    made smaller until its longer side has at most 512 pixels. It has one channel if every file is a grey one, else
    three. Those to learn from are varied by `jitter`, and mirrored with `flip`. See `Pictures`.

    Raises ValueError where a folder is missing, there are fewer than two classes, a class has no pictures or a name
    that is not UTF-8, the test has a class that the training has not, or too few pictures are left to train on. All
    pictures are decoded once, and those that cannot be are named.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         (Path(folder) / "train" / name).mkdir(parents=True)
    ...         for i in range(20):
    ...             Image.new("L", (40, 30)).save(Path(folder) / "train" / name / f"{i}.png")
    ...     splits = pictures(folder)
    >>> splits.classes, splits.shape, len(splits.train), len(splits.valid), len(splits.test)
    (('cat', 'dog'), (1, 30, 40), 32, 4, 4)
    """
    folder = Path(folder)
    if canvas is not None and canvas < 1:
        raise ValueError(f"canvas must be one pixel or more, not {canvas}")
    learned = class_folders(folder / "train")
    classes = classes_of(learned)
    tested = class_folders(folder / "test") if (folder / "test").is_dir() else None
    train = listing(learned, classes)
    train, test = (train, listing(tested, classes)) if tested else apart(train, seed)
    known = checked(train.files + test.files)
    shape, bits = form(known, canvas), bits_of(known)
    train, valid = apart(train, seed)
    if not train.files:
        raise ValueError(
            f"{printable(folder)} has too few pictures: none is left to train on after a tenth of each is held out"
        )
    learn = Pictures(train, shape, bits, jitter, flip)
    parts = learn, Pictures(valid, shape, bits), Pictures(test, shape, bits)
    remark = "" if tested else f" (there is no folder test: a tenth is held out for it with seed {seed})"
    others = left_out(_others(folder, learned, *([tested] if tested else [])))
    counts = f"the pictures of {printable(folder)}: {count(*parts)}{remark}"
    return Splits(*parts, f"{counts}; {_form(classes, shape)}{others}", classes, shape)


def pictures_to_test(
    folder: str | Path, classes: Sequence[str], shape: tuple[int, int, int], bits: int | None = None, seed: int = 0
) -> Splits:
    """Pictures to test what was trained on others, with its classes, shape and bits; the other parts are empty.

    They are those of `folder`/test/CLASS; where there is no folder `test`, those that `pictures` would hold out of
    `folder`/train/CLASS; where there is none of either, all of `folder`/CLASS. The bits are those of these pictures if
    they are not given. Raises ValueError where there are no such folders, one is none of the classes, there are no
    pictures, or some cannot be read.
    """
    folder, classes = Path(folder), tuple(classes)
    root = next((folder / part for part in ("test", "train") if (folder / part).is_dir()), folder)
    found = class_folders(root)
    test = listing(found, classes)
    if root.name == "train" and root != folder:
        _, test = apart(test, seed)
    known = checked(test.files)
    none, tested = (Pictures(each, shape, bits or bits_of(known)) for each in (NONE, test))
    describe = f"the pictures of {printable(root)}: {len(test.files):,} test images; {_form(classes, shape)}"
    return Splits(none, none, tested, describe + left_out(_kinds(found.others)), classes, shape)


def _form(classes: Sequence[str], shape: tuple[int, int, int]) -> str:
    return f"{len(classes)} classes {on_canvas(shape)}"


class Found(NamedTuple):
    """What lies in a folder of classes: the files of each class, and how many others of each kind."""

    root: Path
    classes: dict[str, list[Path]]
    others: Counter[str]


def class_folders(root: Path, endings: Sequence[str] = ENDINGS) -> Found:
    """What there is in a folder of classes, by how names end; folders whose names look the same are one class."""
    if not root.is_dir():
        raise ValueError(f"folder {printable(root)} does not exist; pictures are read from FOLDER/train/CLASS/*.png")
    found = Found(root, {}, Counter())
    for entry in _entries(root):
        if entry.is_dir():
            files = found.classes.setdefault(_class_name(entry), [])
            for file in _files(entry, found.others, endings):
                if file.suffix.lower() in endings and (file.is_file() or file.is_symlink() or file.is_dir()):
                    files.append(file)
                else:
                    found.others[file.suffix.lower() or "no ending"] += 1
        else:
            found.others[OUTSIDE] += 1
    return found


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, but for what is hidden, in order."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from error


def _files(folder: Path, others: Counter[str], endings: Sequence[str]) -> list[Path]:
    """All files of a class in their order, those in folders below included, and folders that are images, as stores
    are; links to folders are not followed."""
    files, folders = [], [folder]
    while folders:
        for entry in _entries(folders.pop()):
            if not entry.is_dir() or entry.suffix.lower() == STORE in endings:
                files.append(entry)
            elif entry.is_symlink():
                others["links to folders"] += 1
            else:
                folders.append(entry)
    return sorted(files)


def _unreadable(error: OSError) -> ValueError:
    return ValueError(f"folder {printable(error.filename)} cannot be read: {error.strerror}")


def _class_name(folder: Path) -> str:
    try:
        return clean(folder.name)
    except ValueError as error:
        raise ValueError(f"the name of the class folder {printable(folder)} is not UTF-8") from error


def classes_of(found: Found) -> tuple[str, ...]:
    """The names of the classes to learn, in order."""
    classes = tuple(sorted(found.classes))
    if len(classes) < 2:
        raise ValueError(
            f"{printable(found.root)} must have a folder for each of two classes or more; it has {len(classes)}"
        )
    for name in classes:
        if not found.classes[name]:
            raise ValueError(f"class folder {printable(found.root / name)} has no pictures that end in {LOOKED_FOR}")
    return classes


def listing(found: Found, classes: Sequence[str]) -> Listing:
    """The files of all classes, in their order. Raises ValueError for a class that is none of these, or no files."""
    for name in found.classes:
        if name not in classes:
            raise ValueError(
                f"class {name} in {printable(found.root)} is not among those of train: {', '.join(classes)}"
            )
    files = [(file, i) for i, name in enumerate(classes) for file in found.classes.get(name, ())]
    if not files:
        raise ValueError(f"{printable(found.root)} has no class folders with pictures that end in {LOOKED_FOR}")
    return Listing([file for file, _ in files], torch.tensor([i for _, i in files]))


def apart(listing: Listing, seed: int) -> tuple[Listing, Listing]:
    """Most files, and a tenth of each class that is held out, drawn with the seed."""
    kept, held = hold_out(listing.labels, seed)
    return listing.take(kept), listing.take(held)


def _others(folder: Path, *parts: Found) -> dict[str, int]:
    """How much of a folder is left out, and why, of the parts and beside them."""
    beside = [entry for entry in _entries(folder) if entry.name not in ("train", "test")]
    folders = sum(entry.is_dir() for entry in beside)
    others = sum((part.others for part in parts), Counter({OUTSIDE: len(beside) - folders}))
    return {**_kinds(others), "folders (beside train and test)": folders}


def _kinds(others: Counter[str]) -> dict[str, int]:
    """How many files of each kind are left out, of the most frequent ones, and of all others."""
    most = dict(others.most_common(SHOWN))
    counts = {f"files ({printable(kind)})": number for kind, number in most.items()}
    return {**counts, "files (other kinds)": others.total() - sum(most.values())}
