"""Stories with a question that lacks a name: from JSON lines, or stories that are generated."""

import io
import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regard.app.data.files import contents, left_out
from regard.app.data.generators.village import village
from regard.app.data.splits import Splits, hold_out, padded
from regard.app.text.reading import clean, printable, raw_lines
from regard.app.text.tokens import cased_tokens
from regard.app.text.vectors import Lexicon, lexicon

BLANK = "XXXXX"
"""What stands in a question for the name that is asked for."""
MARKERS = 40
"""The most names of a story."""
LONGEST, LEAST = 2000, 10  # words of a story with its question, and questions that a tenth can be held out of
PARTS = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}
"""What the files of each part may be called."""
ENDINGS = (".jsonl", ".jsonl.xz", ".jsonl.gz")
COUNTS = {"train": 2000, "valid": 300, "test": 300}  # generated questions of each part
FORM = '{"context": "...", "question": "... XXXXX ...", "answer": "NAME", "candidates": ["NAME", ...]}'


class Cloze(NamedTuple):
    """A story, and the sentence after it, in which a name of the story is left out: words with a space between them."""

    story: str
    question: str
    """With XXXXX once, in the place of the name."""
    candidates: tuple[str, ...]
    """Names, each a word of the story."""
    answer: str = ""
    """One of them; nothing if it is not known."""

    @property
    def words(self) -> list[str]:
        """Those of the story, and behind them those of the question."""
        return f"{self.story} {self.question}".split()


class Clozes:
    """Questions as a split, in the numbers of a lexicon. A name is none of its words but a marker, one of 40, by which
    it is the same name again and nothing else; which one is drawn anew whenever the question is learned from."""

    def __init__(self, questions: Sequence[Cloze], lexicon: Lexicon):
        self.questions, self.lexicon = list(questions), lexicon
        self.lengths = torch.tensor([len(each.words) for each in self.questions], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.questions)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The questions at `indices`, with other markers each time if there is a generator. Of at most K words:

        words (B, K)    the number of each word, the question behind the story; 0 after them
        names (B, K)    the marker of each word that is a candidate, 0 to 39; -1 elsewhere
        story (B,)      how many words the story has
        blank (B,)      where the name is left out
        answer (B,)     the marker of the answer; -1 if it is not known
        text (B, C)     the bytes of the words as they are written; 0 after them
        """
        asked = [self.questions[n] for n in indices.tolist()]
        markers = [_markers(len(each.candidates), generator) for each in asked]
        texts = [" ".join(each.words) for each in asked]
        numbers = self.lexicon.vocabulary.encode(text.lower() for text in texts)
        return {
            "words": padded([torch.tensor(each) for each in numbers]),
            "names": padded([given[_names(each)] for each, given in zip(asked, markers, strict=True)], -1),
            "story": torch.tensor([len(each.story.split()) for each in asked]),
            "blank": torch.tensor([each.words.index(BLANK) for each in asked]),
            "answer": torch.stack([given[_place(each)] for each, given in zip(asked, markers, strict=True)]),
            "text": pad_sequence(
                [torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) for text in texts], True
            ),
        }

    def spelled_by(self, vocabulary: Lexicon) -> "Clozes":
        """The same questions in the numbers of another lexicon."""
        return Clozes(self.questions, vocabulary)


def _names(given: Cloze) -> Int[Tensor, " K"]:
    """The number of the candidate that each word is, -1 for others."""
    known = {name: number for number, name in enumerate(given.candidates)}
    return torch.tensor([known.get(word, -1) for word in given.words])


def _place(given: Cloze) -> int:
    """The number of the candidate that is the answer, or -1."""
    return given.candidates.index(given.answer) if given.answer else -1


def _markers(count: int, generator: torch.Generator | None) -> Int[Tensor, " N"]:
    """The markers of so many candidates, and behind them -1, which is that of none."""
    order = torch.arange(MARKERS) if generator is None else torch.randperm(MARKERS, generator=generator)
    return torch.cat((order[:count], torch.tensor([-1])))


def no_clozes(known: Lexicon) -> Clozes:
    """None, in the numbers of a lexicon."""
    return Clozes([], known)


def clozes(data: str | Path = "generated") -> Splits:
    """Stories with a question: "generated" ones, those of a file of JSON lines, or of a folder with such files train,
    valid and test, of which the last two may be missing: a tenth is then held out. Gzipped, by xz, or not.

    A line is {"context": "...", "question": "... XXXXX ...", "answer": "NAME", "candidates": ["NAME", ...]}: words with
    a space between them, names of one word each. Without candidates they are the words of the story with a capital
    letter that is not that of a sentence. Questions whose answer is not in the story, of more than 2,000 words or 40
    names are left out, and `describe` says how many.

    Raises ValueError, with the number of the line, where a file is damaged, and where there are fewer than ten
    questions.

    >>> clozes().describe
    'stories of a village inside regard: 2,000 training, 300 validation and 300 test questions'
    """
    if data == "generated":
        parts = {part: _parsed(village(count, n), "a story") for n, (part, count) in enumerate(COUNTS.items())}
        return _splits(parts, "stories of a village inside regard", {})
    parts, dropped = _usable({part: found for part in PARTS if (found := _read(Path(data), part))})
    if "train" not in parts:
        parts, dropped = _usable({"train": _file(Path(data))})
    for part, seed in (("test", 0), ("valid", 1)):
        if part not in parts:
            parts["train"], parts[part] = _held_out(parts["train"], seed, printable(data))
    return _splits(parts, f"the stories of {printable(data)}", dropped)


def clozes_to_test(data: str | Path) -> Splits:
    """The test part of a folder, or all questions of a file; the other parts are empty.

    >>> clozes_to_test("generated").describe
    'stories of a village inside regard: 300 test questions'
    """
    if data == "generated":
        found, source, dropped = (
            _parsed(village(COUNTS["test"], 2), "a story"),
            "stories of a village inside regard",
            {},
        )
    else:
        parts, dropped = _usable({"test": _read(Path(data), "test") or _file(Path(data))})
        found, source = parts["test"], f"the stories of {printable(data)}"
    none, test = no_clozes(lexicon([])), Clozes(found, lexicon([]))
    return Splits(none, none, test, f"{source}: {len(test):,} test questions{left_out(dropped)}")


def _splits(parts: dict[str, list[Cloze]], source: str, dropped: dict[str, int]) -> Splits:
    train, valid, test = (Clozes(parts[part], lexicon([])) for part in PARTS)
    counts = f"{len(train):,} training, {len(valid):,} validation and {len(test):,} test questions"
    return Splits(train, valid, test, f"{source}: {counts}{left_out(dropped)}")


def _usable(parts: dict[str, list[Cloze]]) -> tuple[dict[str, list[Cloze]], dict[str, int]]:
    """The questions that can be learned from, and how many cannot, for which reason."""
    dropped: dict[str, int] = {}
    for part, questions in parts.items():
        answered = [each for each in questions if each.answer]
        parts[part] = [each for each in answered if len(each.words) <= LONGEST and len(each.candidates) <= MARKERS]
        dropped[f"{part} questions (no answer in the story)"] = len(questions) - len(answered)
        dropped[f"{part} questions (over {LONGEST:,} words or {MARKERS} names)"] = len(answered) - len(parts[part])
        if not parts[part]:
            raise ValueError(f"the {part} part holds no question with an answer in a story of 1 to {LONGEST:,} words")
    return parts, dropped


def _held_out(questions: list[Cloze], seed: int, name: str) -> tuple[list[Cloze], list[Cloze]]:
    """The questions to keep, and a tenth."""
    if len(questions) < LEAST:
        raise ValueError(f"{name} expected at least {LEAST} questions to hold a tenth out of, but has {len(questions)}")
    kept, held = hold_out(torch.zeros(len(questions), dtype=torch.long), seed)
    return [questions[n] for n in kept.tolist()], [questions[n] for n in held.tolist()]


def _read(place: Path, part: str) -> list[Cloze] | None:
    """The questions of a part of a folder, train, valid or test; None if it has no such file."""
    files = [file for name in PARTS[part] for end in ENDINGS if (file := place / f"{name}{end}").exists()]
    if len(files) > 1:
        raise ValueError(f"{printable(place)} expected one file {part}, but has {len(files)}")
    return _file(files[0]) if files else None


def _file(file: Path) -> list[Cloze]:
    if not file.name.endswith(ENDINGS):
        wanted = f"a file {' or '.join(ENDINGS)}, or a folder with such a file train"
        raise ValueError(f"{printable(file)} expected to be {wanted}")
    return _parsed(raw_lines(io.BytesIO(contents(file)), printable(file)), printable(file))


def _parsed(given: Iterable[str], name: str) -> list[Cloze]:
    return [cloze_of(line, f"{name}, line {number}") for number, line in enumerate(given, 1) if line.strip()]


def cloze_of(line: str, where: str) -> Cloze:
    """The question that a line of JSON is. Raises ValueError where it is none.

    >>> line = '{"context": "Ida saw Ben . Then Ida left .", "question": "XXXXX stayed .", "answer": "Ben"}'
    >>> cloze_of(line, "line 1").candidates
    ('Ben', 'Ida')
    """
    try:
        found = json.loads(line)
        story, question = (clean(found[name]) for name in ("context", "question"))
        answer, listed = clean(found.get("answer", "")), [clean(each) for each in found.get("candidates", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: expected {FORM}, but got {line[:60]!r}") from error
    return _cloze(story, question, listed or names_of(story.split()), answer, where)


def _cloze(story: str, question: str, listed: Sequence[str], answer: str, where: str) -> Cloze:
    if (count := question.split().count(BLANK)) != 1 or BLANK in story.split():
        raise ValueError(f"{where}: expected {BLANK} once, as a word of the question, but got it {count} times there")
    words = set(story.split())
    candidates = tuple(dict.fromkeys(name for name in listed if name in words))
    if not candidates:
        raise ValueError(f"{where}: expected a name among the words of the story, but there is none")
    return Cloze(story, question, candidates, answer if answer in candidates else "")


def cloze_in(text: str) -> Cloze:
    """The question that a text is: a line of JSON, or running text in which XXXXX stands for the name that is asked
    for. The sentence where it stands, and what follows, is the question, and what is before it the story.

    Raises ValueError where there is no XXXXX, no story before it, or no name in the story.

    >>> cloze_in("There sat Ida. Then Ben came, whom Ida liked. Soon XXXXX left.").question
    'Soon XXXXX left .'
    """
    where = "a text to read"
    if not isinstance(text, str):
        raise ValueError(f"{where} expected a story with a name left out, but got {text!r}")
    if text.startswith("{"):
        return cloze_of(text, where)
    words = cased_tokens(clean(text))
    if BLANK not in words:
        raise ValueError(f"{where} expected {BLANK} in the place of a name, but got {text[:60]!r}")
    ends = [place for place, word in enumerate(words[: words.index(BLANK)], 1) if word in ENDS]
    begin = ends[-1] if ends else 0
    story = words[:begin]
    return _cloze(" ".join(story), " ".join(words[begin:]), names_of(story), "", where)


ENDS = (".", "?", "!")
_CAPITAL = re.compile(r"[^\W\d_a-z]\w*[a-z]\w*")


def names_of(words: Sequence[str]) -> list[str]:
    """The words that have a capital letter where no sentence begins, and are never written without.

    >>> names_of("Soon Ida came . Then she saw Ben . The Dog barked at the dog .".split())
    ['Ben', 'Ida']
    """
    inside = {word for before, word in pairwise(words) if before not in ENDS}
    return sorted(word for word in inside if _CAPITAL.fullmatch(word) and word.lower() not in words)
