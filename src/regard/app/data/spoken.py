"""Speech and what is said in it: strings of spoken digits, a folder of sounds with their texts, or generated tones."""

import csv
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.files import contents, left_out
from regard.app.data.generators.tones import LETTERS, tones
from regard.app.data.splits import Splits, hold_out, padded
from regard.app.speech.sounds import read_sound, resampled, sound_in
from regard.app.speech.strings import FIRST, Strings, Takes
from regard.app.text.reading import clean, printable, raw_lines

LISTS = "index.tsv", "transcripts.tsv", "index.csv", "transcripts.csv"
COLUMNS = {"path": ("path", "file"), "text": ("text", "transcript", "sentence")}
PARTS = {"train": ("train", "training"), "valid": ("valid", "validation", "val", "dev"), "test": ("test",)}
DIGITS = tuple("0123456789")
SPEAKERS = "george", "jackson", "lucas", "nicolas", "theo", "yweweler"
KEPT, HELD = 45, 60
"""The takes of a digit to learn from are below KEPT, and those to choose by above; and strings to choose by."""
SHOWN = 5
"""Bad files that are named."""


class Known(NamedTuple):
    """What a trained model knows of its sounds."""

    symbols: Sequence[str] = ()
    rate: int | None = None
    """Samples of a second; of the data's own if not given."""


def spoken(
    data: str, longest: int, each: int, held_out: str = "", words: bool = False, known: Known | None = None
) -> Splits:
    """Sounds with what is said: "generated" tones, a folder of the Free Spoken Digit Dataset (index.tsv with a column
    `digit`, and recordings.tar.xz), or a folder with a list of sound files and their texts.

    Of single takes, strings of one speaker's are made: `each` of up to `longest` symbols to learn from, afresh every
    time, and longer ones to choose by and to judge by, of takes that are never learned from. The speaker `held_out` is
    judged by alone. A list is index.tsv or transcripts.csv with columns `path` and `text`, and `split` if it likes;
    symbols are characters, or `words`. Sounds are in the symbols and at the rate that are `known`, if any.

    Raises ValueError where there is no such list, it lacks a column, a file cannot be read, nothing is left to learn
    from, or a symbol is not known.

    >>> splits = spoken("generated", longest=5, each=100)
    >>> splits.describe
    'strings of a generated language of tones: 100 of 1 to 5 symbols to learn from, 60 to choose by, 60 to judge by'
    """
    if data != "generated" and "digit" not in (rows := listed(Path(data)))[0]:
        splits = utterances(Path(data), rows, words, known or Known())
        if not len(splits.train):
            raise ValueError(f"{printable(data)} expected some sounds to learn from, but is left with none")
        return splits
    if data == "generated":
        takes, symbols, source = (tones(20, 0), tones(4, 1), tones(4, 2)), LETTERS, "a generated language of tones"
    else:
        takes, symbols, source = digits(Path(data), held_out), DIGITS, f"digits of {printable(data)}"
    if known and tuple(known.symbols) != symbols:
        others = "".join(known.symbols[:20])
        raise ValueError(f"{source} have the symbols {''.join(symbols)}, but the model learned {others}")
    if known and known.rate:
        first, second, third = (some.at(known.rate) for some in takes)
        takes = first, second, third
    return strings(takes, symbols, longest, each, source)


def spoken_to_test(
    data: str, longest: int, each: int, held_out: str = "", words: bool = False, known: Known | None = None
) -> Splits:
    """The same to test a model on: of a list the sounds of its test split, or without one, all."""
    if data == "generated" or "digit" in (rows := listed(Path(data)))[0]:
        return spoken(data, longest, each, held_out, words, known)
    judged = [row for row in rows if row.get("split", "").lower() in PARTS["test"]] or rows
    return utterances(Path(data), [row | {"split": "test"} for row in judged], words, known or Known())


def strings(takes: Sequence[Takes], symbols: Sequence[str], longest: int, each: int, source: str) -> Splits:
    """Strings of takes: those to choose by and to judge by have as many symbols as the longest, up to twice as many."""
    train, *others = takes
    valid, test = (Strings(some, HELD, longest, 2 * longest, seed) for seed, some in enumerate(others))
    about = f"{each:,} of 1 to {longest} symbols to learn from, {HELD} to choose by, {HELD} to judge by"
    return Splits(Strings(train, each, 1, longest), valid, test, f"strings of {source}: {about}", tuple(symbols))


def digits(folder: Path, held_out: str = "") -> tuple[Takes, Takes, Takes]:
    """The takes to learn from, to choose by and to judge by: the authors' test takes, or all test takes of the speaker
    who is `held_out`, of whom none is learned from."""
    archive = folder / "recordings.tar.xz"
    if held_out and held_out not in SPEAKERS:
        raise ValueError(f"--held_out expected one of {', '.join(SPEAKERS)}, but got {held_out!r}")
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(contents(archive)), mode="r:") as files:
            for member in (each for each in files if each.name.endswith(".wav")):
                digit, speaker, take = Path(member.name).stem.split("_")
                sound = sound_in(files.extractfile(member).read(), member.name)  # pyright: ignore
                found.append((sound, int(digit), SPEAKERS.index(speaker), int(take)))
    except tarfile.TarError as error:
        raise ValueError(f"{printable(archive)} is not a whole archive: {error}") from error
    sounds, labels, speakers, take = zip(*found, strict=True)
    takes = Takes([each.samples for each in sounds], torch.tensor(labels), torch.tensor(speakers), sounds[0].rate)
    number = torch.tensor(take)
    theirs = takes.speakers == SPEAKERS.index(held_out) if held_out else torch.zeros_like(number, dtype=torch.bool)
    judged = (number < 5) & (theirs if held_out else ~theirs)
    return takes.of((number >= 5) & (number < KEPT) & ~theirs), takes.of((number >= KEPT) & ~theirs), takes.of(judged)


class Utterances:
    """Files of sound with their texts, read when they are asked for, as a split: as `Strings`, without `ends`."""

    def __init__(
        self,
        files: Sequence[Path],
        texts: Sequence[Sequence[str]],
        symbols: Sequence[str],
        rate: int,
        seconds: Sequence[float],
    ):
        numbers = {symbol: FIRST + n for n, symbol in enumerate(symbols)}
        self.files, self.targets = files, [torch.tensor([numbers[each] for each in text]) for text in texts]
        self.rate, self.lengths = rate, torch.tensor(seconds)
        self.reach = 2 * max((s / len(text) for s, text in zip(seconds, texts, strict=True)), default=0.0)

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """`sound` (B, N), `samples` (B,) and `target` (B, L) of the files at `indices`; `ends` is (B, 0)."""
        sounds = [resampled(read_sound(self.files[n]), self.rate).samples for n in indices.tolist()]
        return batched(sounds, [self.targets[n] for n in indices.tolist()])


def batched(sounds: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Tensor]:
    """Sounds below each other, with what is said in them, of which it is not known when."""
    samples = torch.tensor([len(sound) for sound in sounds])
    sound, ends = pad_sequence(list(sounds), batch_first=True), torch.zeros(len(sounds), 0, dtype=torch.long)
    return {"sound": sound, "samples": samples, "target": padded(targets), "ends": ends}


def listed(folder: Path) -> list[dict[str, str]]:
    """The rows of the list of a folder. Raises ValueError where there is none, or it has none."""
    file = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(f"{printable(folder)} expected a list of sounds, {LISTS[0]} or {LISTS[-1]}, but has none")
    text = raw_lines(io.BytesIO(contents(file)), printable(file))
    form: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {}
    rows = list(csv.DictReader(text, restval="", **form))
    if not rows:
        raise ValueError(f"{printable(file)} expected a line of names and one for each sound, but has no sounds")
    return rows


def utterances(folder: Path, rows: Sequence[dict[str, str]], words: bool, known: Known) -> Splits:
    """The sounds of a list, in their splits, or in tenths that are held out."""
    columns = {name: next((each for each in names if each in rows[0]), None) for name, names in COLUMNS.items()}
    if missing := [name for name, column in columns.items() if column is None]:
        has = ", ".join(filter(None, rows[0]))
        raise ValueError(f"{printable(folder)} expected a list with the column {missing[0]!r}, but it has {has}")
    files = [folder / row[columns["path"]] for row in rows]  # pyright: ignore[reportArgumentType]
    texts = [clean(row[columns["text"]]) for row in rows]  # pyright: ignore[reportArgumentType]
    said = [text.split() if words else list(text) for text in texts]
    sounds = _checked(files)
    symbols = tuple(known.symbols) or tuple(sorted({symbol for text in said for symbol in text}))
    if strange := sorted({symbol for text in said for symbol in text} - set(symbols)):
        raise ValueError(f"{printable(folder)} has the symbol {strange[0]!r}, which the model never learned")
    empty = [n for n, text in enumerate(said) if not text]
    parts = _parts([row.get("split", "") for row in rows])
    rate = known.rate or min(rate for _, rate in sounds)
    train, valid, test = (
        Utterances([files[n] for n in part], [said[n] for n in part], symbols, rate, [sounds[n][0] for n in part])
        for part in ([n for n in part if n not in empty] for part in parts)
    )
    away = left_out({"sounds (nothing is said)": len(empty)})
    counts = f"{len(train):,} to learn from, {len(valid):,} to choose by, {len(test):,} to judge by"
    return Splits(train, valid, test, f"sounds of {printable(folder)}: {counts}{away}", symbols)


def _checked(files: Sequence[Path]) -> list[tuple[float, int]]:
    """The seconds and the rates of all files, once read. Raises ValueError that names the bad ones."""
    found, bad = [], []
    for file in files:
        try:
            sound = read_sound(file)
            found.append((sound.seconds, sound.rate))
        except ValueError as error:
            bad.append(str(error))
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise ValueError(f"{len(bad)} of {len(files)} sounds cannot be used: {'; '.join(bad[:SHOWN])}{more}")
    return found


def _parts(named: Sequence[str]) -> list[list[int]]:
    """Which rows are of which part; of parts that are missing, a tenth of those to learn from."""
    parts = [[n for n, name in enumerate(named) if name.lower() in names] for names in PARTS.values()]
    if not parts[0]:
        parts[0] = [n for n in range(len(named)) if n not in {*parts[1], *parts[2]}]
    for place, seed in ((2, 0), (1, 1)):
        if not parts[place] and parts[0]:
            kept, held = hold_out(torch.zeros(len(parts[0]), dtype=torch.long), seed)
            parts[place], parts[0] = [parts[0][n] for n in held.tolist()], [parts[0][n] for n in kept.tolist()]
    return parts


def no_sounds(rate: int, reach: float) -> Utterances:
    """None, at the rate of a model, of which a symbol reached so far."""
    none = Utterances([], [], [], rate, [])
    none.reach = reach
    return none
