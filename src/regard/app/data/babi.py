"""Questions about stories: the bAbI tasks from their files, or stories that are generated.

Weston et al. 2015, "Towards AI-Complete Question Answering: A Set of Prerequisite Toy Tasks". A file holds lines
`ID sentence`, or `ID question<TAB>answer<TAB>IDs of the supporting facts`; IDs begin again at 1 with each story.
"""

import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regard.app.data.files import contents, left_out
from regard.app.data.generators.stories import generated
from regard.app.data.splits import Splits
from regard.app.data.stories import Question, Stories, split
from regard.app.text.reading import clean, printable, raw_lines

PARTS = ("train", "test")
COUNTS = {"train": 1000, "test": 1000}  # generated questions of each part
SEEDS = {"train": 0, "test": 1}
FACTS, WORDS = 500, 100  # of a story, and of a sentence: the longest of bAbI have 320 and 12
_NUMBERED = re.compile(r"(\d+) (.*)")


def questions(data: str | Path = "generated", task: int = 2) -> Splits:
    """The questions of one bAbI task, 1 to 20, from a folder with its files or with their archive, or "generated".

    The last tenth of the training questions is for validation. Those about a story of more than 500 facts or with a
    sentence of more than 100 words are left out, and `describe` says how many. Raises ValueError where the data are
    missing, damaged or not bAbI's, or there are fewer than ten training questions.

    >>> splits = questions("generated", task=1)
    >>> len(splits.train), len(splits.valid), len(splits.test), splits.classes[:2]
    (900, 100, 1000, ('attic', 'bathroom'))
    """
    (train, test), source = _find(data, task, PARTS)
    if len(train.questions) < 10:
        count = len(train.questions)
        raise ValueError(f"{source} has {count} training questions; expected ten, as a tenth is for validation")
    answers = sorted({each.answer for each in train.questions})
    texts = {text for each in train.questions for text in (*each.facts, each.text)}
    words = sorted({word for text in texts for word in split(text)}.union(answers))
    kept = len(train.questions) - len(train.questions) // 10
    parts = (train.questions[:kept], train.questions[kept:], test.questions)
    learned, valid, tested = (Stories(part, words, answers) for part in parts)
    counts = f"{len(learned):,} training, {len(valid):,} validation and {len(tested):,} test questions"
    remark = left_out(train.left_out | test.left_out)
    return Splits(learned, valid, tested, f"{source}: {counts}{remark}", tuple(answers))


def questions_to_test(data: str | Path, task: int, words: Sequence[str], answers: Sequence[str]) -> Splits:
    """The test part of `questions`, with the words and answers that were learned before; the others are empty.

    A folder need not have the training part. Raises ValueError as `questions` does.

    >>> questions_to_test("generated", 1, ("where", "is"), ("attic", "bathroom")).describe
    "stories generated in the manner of bAbI's task 1: 1,000 test questions"
    """
    (found,), source = _find(data, task, ("test",))
    none, test = (Stories(part, words, answers) for part in ((), found.questions))
    describe = f"{source}: {len(test):,} test questions{left_out(found.left_out)}"
    return Splits(none, none, test, describe, tuple(answers))


class Part(NamedTuple):
    """The questions of a part, and how many are left out for which reason."""

    questions: list[Question]
    left_out: dict[str, int]


def _find(data: str | Path, task: int, parts: Sequence[str]) -> tuple[list[Part], str]:
    if data == "generated":
        found = [Part(generated(task, COUNTS[part], SEEDS[part]), {}) for part in parts]
        return found, f"stories generated in the manner of bAbI's task {task}"
    return [_read(Path(data), task, part) for part in parts], f"bAbI, task {task} of {printable(data)}"


def _read(folder: Path, task: int, part: str) -> Part:
    """The questions of a part about stories that are not too long."""
    name, data = _locate(folder, task, part)
    questions = read(raw_lines(io.BytesIO(data), name), name)
    texts = {text for each in questions for text in (*each.facts, each.text)}
    long = {text for text in texts if len(split(text)) > WORDS}
    short = [each for each in questions if len(each.facts) <= FACTS]
    kept = [each for each in short if long.isdisjoint((*each.facts, each.text))]
    if not kept:
        raise ValueError(f"{name} holds no question about at most {FACTS:,} facts of at most {WORDS:,} words each")
    kind = {"train": "training", "test": "test"}[part]
    dropped = {f"over {FACTS:,} facts": len(questions) - len(short), f"over {WORDS:,} words": len(short) - len(kept)}
    return Part(kept, {f"{kind} questions ({reason})": count for reason, count in dropped.items()})


def _locate(folder: Path, task: int, part: str) -> tuple[str, bytes]:
    """The name and the bytes of a file in the folder, in its subfolder en, or in a tar archive in the folder."""
    pattern = f"qa{task}_*_{part}.txt"
    for file in (*folder.glob(pattern), *folder.glob(f"en/{pattern}")):
        return printable(file), contents(file)
    for archive in sorted(folder.glob("*.tar*")):
        if found := _unpacked(archive, f"en/{pattern}"):
            return found
    raise ValueError(
        f"bAbI file {pattern} is not in {folder}, nor in its subfolder en, nor in en of a tar archive there; expected "
        "'generated' or a folder of the bAbI tasks"
    )


def _unpacked(archive: Path, pattern: str) -> tuple[str, bytes] | None:
    """The name and the bytes of a file in an archive."""
    try:
        with tarfile.open(archive) as files:
            for member in files:
                if member.isfile() and Path(member.name).match(pattern):
                    return printable(f"{archive}:{member.name}"), files.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{archive} is not a whole tar archive: {error}") from error


def read(lines: Iterable[str], name: str) -> list[Question]:
    """The questions of the lines of a file; `name` is what errors call it.

    Raises ValueError for a line that is not bAbI's, or a file without questions.

    >>> read(["1 Mary went home.", "2 Mary slept.", "3 Where is Mary? \\thome\\t1"], "the example")[0].supporting
    (1,)
    """
    questions = list(_questions(lines, name))
    if not questions:
        raise ValueError(f"{name} holds no questions")
    return questions


def _questions(lines: Iterable[str], name: str) -> Iterator[Question]:
    facts: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            start, text = line.split(maxsplit=1)
            if start == "1":
                facts.clear()
            if "\t" in text:
                yield _question(text, facts)
            else:
                facts[int(start)] = clean(text)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{name} is not a file of bAbI: line {number} is {line[:60]!r}") from error


def _question(text: str, facts: Mapping[int, str]) -> Question:
    """The question that a text asks about the facts of a story so far, with its answer and what supports it."""
    asked, answer, marked = text.split("\t")
    if not marked.strip():
        raise ValueError("no supporting facts")
    later = {number: ago for ago, number in enumerate(reversed(list(facts)))}
    supporting = tuple(later[int(number)] for number in marked.split())
    latest = tuple(facts.values())[-FACTS - 1 :]  # one too many tells that there are
    return Question(latest, clean(asked), clean(answer), supporting)


def stream_stories(lines: Iterable[str], name: str = "standard input") -> Iterator[Question | ValueError]:
    """The questions of lines that are to be answered, each as soon as it is read.

    `lines` are `raw_lines`. A line is a fact of the story, or a question if it ends in a question mark or has a tab:
    what follows the tab is left out. Numbers before the lines may be there as in bAbI's files, or not; a story begins
    at the number 1 and after an empty line. In the place of a question before any fact stands a ValueError.

    >>> [question] = stream_stories(["Mary went home.", "Where is Mary?"])
    >>> question.facts, question.text
    (('Mary went home.',), 'Where is Mary?')
    """
    facts: list[str] = []
    for number, line in enumerate(lines, 1):
        text, tab, _ = line.partition("\t")
        found = _NUMBERED.fullmatch(clean(text))
        start, text = found.groups() if found else ("", clean(text))
        if start == "1" or not text:
            facts = []
        if text and not tab and not text.endswith("?"):
            facts.append(text)
        elif text and facts:
            yield Question(tuple(facts), text, "", ())
        elif text:
            yield ValueError(f"{name}, line {number}: expected a fact of the story before the question {text!r}")
