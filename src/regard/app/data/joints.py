"""Pairs of pieces of photographs, side by side: do they belong together?

Le and Li 2018, "JigsawNet: shredded image reassembly using convolutional neural network and loop-based composition",
section 4: two pieces laid together as proposed, of which a network says whether they fit. Pieces have lost their edges:
a gap of some pixels is between those that belong together.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from regard.app.data.folder import LOOKED_FOR
from regard.app.data.generators.scenery import scenery
from regard.app.data.splits import Splits
from regard.app.text.reading import printable
from regard.app.vision import reading
from regard.app.vision.reading import ENDINGS

HEIGHT, WIDTH = 64, 144
"""Pixels of a pair, with the gap in it."""
NARROWEST = 48
"""Pixels of the narrower piece, with its half of the gap."""
TRUE, ELSEWHERE, NEAR = 0, 1, 2
"""Whether the right piece is the one that belongs there, or is from anywhere on the photograph, or from near by."""
REACH = 64
"""Pixels by which a piece from near by is displaced each way, at most."""
LEAST = 8
"""By how many it is displaced in one direction, at least."""
SCENES, SIDE = 24, 320
"""Made-up pictures, and their height and width in pixels."""


class Joints:
    """Pairs of pieces of `photographs`, as a split: half of them belong together, of the others half are from near by.

    A batch has `pair` (B, 4, y, x), red, green and blue in [-1, 1] and where there is paper, one or zero; `seam` (B,),
    the column in the middle of the gap; `kind` (B,) and `label` (B,), one for those that belong together. Pairs are
    turned by quarters, and mirrored. With `seed=None` every batch has other pairs; with a seed they are fixed by the
    index.

    Raises ValueError for a photograph that is too small for a pair and what is near by.

    >>> photograph = scenery(256, torch.Generator().manual_seed(0))
    >>> batch = Joints([photograph], gap=3, count=8, seed=0).batch(torch.arange(8))
    >>> batch["pair"].shape, batch["label"].sum()
    (torch.Size([8, 4, 64, 144]), tensor(4))
    """

    def __init__(
        self,
        photographs: Sequence[UInt8[Tensor, "3 _ _"]],
        gap: int,
        count: int,
        seed: int | None = None,
        names: Sequence[str] = (),
    ):
        least = WIDTH + REACH
        for n, each in enumerate(photographs):
            if min(each.shape[1:]) < least:
                name = names[n] if names else f"photograph {n}"
                raise ValueError(f"{name} expected {least} pixels each way or more, but has {tuple(each.shape[1:])}")
        self.photographs, self.gap, self.count, self.seed = photographs, gap, count, seed

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The pairs at `indices`."""
        kinds = torch.where(indices % 2 == 0, TRUE, torch.where(indices % 4 == 1, ELSEWHERE, NEAR))
        if self.seed is None:
            generators = [generator] * len(indices)
        else:
            generators = [torch.Generator().manual_seed(self.seed * 1_000_003 + n) for n in indices.tolist()]
        pairs = [self._pair(kind, each) for kind, each in zip(kinds.tolist(), generators, strict=True)]
        pair, seam = torch.stack([each for each, _ in pairs]), torch.tensor([each for _, each in pairs])
        return {"pair": laid(pair, seam, self.gap), "seam": seam, "kind": kinds, "label": (kinds == TRUE).long()}

    def _pair(self, kind: int, generator: torch.Generator | None) -> tuple[UInt8[Tensor, "3 y x"], int]:
        """The pixels of a pair, the gap not yet cut out, and the middle of the gap."""

        def draw(low: int, high: int) -> int:
            return int(torch.randint(low, high, (), generator=generator))

        photograph = self.photographs[draw(0, len(self.photographs))]
        turned = photograph.mT if draw(0, 2) else photograph
        _, high, wide = turned.shape
        seam = draw(NARROWEST, WIDTH - NARROWEST + 1)
        y, x = draw(0, high - HEIGHT + 1), draw(0, wide - WIDTH + 1)
        left, right_y, right_x = turned[:, y : y + HEIGHT, x : x + seam], y, x + seam
        low, top, last_y, last_x = 0, 0, high - HEIGHT, wide - (WIDTH - seam)
        if kind == NEAR:
            low, top = max(0, y - REACH), max(0, x + seam - REACH)
            last_y, last_x = min(last_y, y + REACH), min(last_x, x + seam + REACH)
        while kind != TRUE and max(abs(right_y - y), abs(right_x - x - seam)) < LEAST:
            right_y, right_x = draw(low, last_y + 1), draw(top, last_x + 1)
        right = turned[:, right_y : right_y + HEIGHT, right_x : right_x + WIDTH - seam]
        pair = torch.cat((left, right), 2)
        pair = pair.flip(1) if draw(0, 2) else pair
        return (pair.flip(2), WIDTH - seam) if draw(0, 2) else (pair, seam)


def laid(pixels: UInt8[Tensor, "B 3 y x"], seam: Int[Tensor, " B"], gap: int) -> Float[Tensor, "B 4 y x"]:
    """Pixels of pairs with the gap cut out round the column of the seam, and where there is paper as a channel.

    >>> laid(torch.full((1, 3, 1, 6), 255, dtype=torch.uint8), torch.tensor([3]), gap=2)[0, [0, 3], 0]
    tensor([[1., 1., 0., 0., 1., 1.],
            [1., 1., 0., 0., 1., 1.]])
    """
    column = torch.arange(pixels.shape[-1]) - seam.view(-1, 1, 1, 1) + gap // 2
    paper = ((column < 0) | (column >= gap)).float().expand(-1, 1, pixels.shape[2], -1)
    return torch.cat(((pixels.float() / 127.5 - 1) * paper, paper), 1)


def joints(folder: str | Path, gap: int, count: int) -> Splits:
    """Pairs of the photographs of a folder: the first third of them, by their names, is kept apart to be judged by, and
    of the others their lowest quarter to choose by; the rest is learned from, at several sizes. Or made-up pictures, if
    it is called "generated".

    Raises ValueError where there are fewer than two photographs, or they cannot be read, or are too small.
    """
    train, valid, test = _generated() if str(folder) == "generated" else _apart(photographs(Path(folder)))
    learned = SCENES * 2 // 3 if str(folder) == "generated" else len(valid)
    return Splits(
        Joints(list(train.values()), gap, count, names=list(train)),
        Joints(list(valid.values()), gap, 2000, 1, list(valid)),
        Joints(list(test.values()), gap, 4000, 2, list(test)),
        f"pairs of pieces of {learned} {_kind(folder)}, and of {len(test)} others, {gap} pixels apart",
        ("apart", "together"),
        (4, HEIGHT, WIDTH),
    )


Named = dict[str, UInt8[Tensor, "3 _ _"]]


def _kind(folder: str | Path) -> str:
    return "made-up pictures" if str(folder) == "generated" else f"photographs of {printable(folder)}"


def _generated() -> tuple[Named, Named, Named]:
    """Made-up pictures to learn from, to choose by, and to judge by."""
    generator = torch.Generator().manual_seed(0)
    made = {f"picture {n}": scenery(SIDE, generator) for n in range(SCENES)}
    names, held = list(made), SCENES // 6
    parts = names[2 * held :], names[held : 2 * held], names[:held]
    train, valid, test = ({name: made[name] for name in part} for part in parts)
    return train, valid, test


def _apart(found: Named) -> tuple[Named, Named, Named]:
    """The same of photographs."""
    names, held = list(found), max(1, len(found) // 3)
    rows = {name: found[name].shape[1] * 3 // 4 for name in names[held:]}
    train = {f"{name}{size}": each for name in rows for size, each in scales(found[name][:, : rows[name]]).items()}
    valid = {f"the lowest quarter of {name}": found[name][:, rows[name] :] for name in rows}
    return train, valid, {name: found[name] for name in names[:held]}


def scales(photograph: UInt8[Tensor, "3 Y X"]) -> Named:
    """A photograph as it is, and at a half and a quarter of its size where it is large enough: those are sharper, and
    so more like others."""
    found = {"": photograph}
    for size, k in ((" at half its size", 2), (" at a quarter of its size", 4)):
        if min(photograph.shape[1:]) // k >= WIDTH + REACH:
            found[size] = F.avg_pool2d(photograph.float(), k).round().to(torch.uint8)
    return found


def photographs(folder: Path) -> dict[str, UInt8[Tensor, "3 _ _"]]:
    """The pictures in a folder by their names, in the order of these. Raises ValueError where there are fewer than two,
    or one cannot be read."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if len(files) < 2:
        raise ValueError(f"{printable(folder)} expected two photographs or more ({LOOKED_FOR}), but has {len(files)}")
    return {printable(file): whole(file) for file in files}


def whole(file: Path) -> UInt8[Tensor, "3 Y X"]:
    """The picture in a file, in colour. Raises ValueError if it cannot be read."""
    found = reading.facts(file)
    return reading.read(file, (3, found.height, found.width), found.bits or 16)
