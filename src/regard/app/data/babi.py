"""Questions about stories: the bAbI tasks from their files, or stories that are generated.

Weston et al. 2015, "Towards AI-Complete Question Answering: A Set of Prerequisite Toy Tasks". A file holds lines
`ID sentence`, or `ID question<TAB>answer<TAB>IDs of the supporting facts`; IDs begin again at 1 with each story.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from regard.app.data.files import contents
from regard.app.data.generators.stories import generated
from regard.app.data.splits import Splits
from regard.app.data.stories import Question, Stories, split
from regard.app.text.reading import clean, raw_lines

PARTS = ("train", "test")
COUNTS = (1000, 1000)  # generated questions of each part
_NUMBERED = re.compile(r"(\d+) (.*)")


def questions(data: str | Path = "generated", task: int = 2) -> Splits:
    """The questions of one bAbI task, 1 to 20, from a folder with its files or with their archive, or "generated".

    The last tenth of the training questions is for validation. Raises ValueError where the data are missing, damaged
    or not bAbI's, or there are fewer than ten training questions.

    >>> splits = questions("generated", task=1)
    >>> len(splits.train), len(splits.valid), len(splits.test), splits.classes[:2]
    (900, 100, 1000, ('attic', 'bathroom'))
    """
    found, source = _find(data, task)
    train, test = found
    answers = sorted({each.answer for each in train})
    words = sorted({word for each in train for text in (*each.facts, each.text) for word in split(text)}.union(answers))
    if len(train) < 10:
        raise ValueError(f"{source} has {len(train)} training questions; expected ten, as a tenth is for validation")
    kept = len(train) - len(train) // 10
    learned, valid, test = (Stories(part, words, answers) for part in (train[:kept], train[kept:], test))
    counts = f"{len(learned):,} training, {len(valid):,} validation and {len(test):,} test questions"
    return Splits(learned, valid, test, f"{source}: {counts}", tuple(answers))


def _find(data: str | Path, task: int) -> tuple[list[list[Question]], str]:
    if data == "generated":
        found = [generated(task, count, seed) for seed, count in enumerate(COUNTS)]
        return found, f"stories generated in the manner of bAbI's task {task}"
    files = [_locate(Path(data), task, part) for part in PARTS]
    return [read(raw_lines(io.BytesIO(text), name), name) for name, text in files], f"bAbI, task {task} of {data}"


def _locate(folder: Path, task: int, part: str) -> tuple[str, bytes]:
    """The name and the bytes of a file in the folder, in its subfolder en, or in a tar archive in the folder."""
    pattern = f"qa{task}_*_{part}.txt"
    for file in (*folder.glob(pattern), *folder.glob(f"en/{pattern}")):
        return str(file), contents(file)
    for archive in sorted(folder.glob("*.tar*")):
        with tarfile.open(archive) as files:
            for member in files:
                if member.isfile() and Path(member.name).match(f"en/{pattern}"):
                    return f"{archive}:{member.name}", files.extractfile(member).read()  # pyright: ignore[reportOptionalMemberAccess]
    raise ValueError(
        f"bAbI file {pattern} is not in {folder}, nor in its subfolder en, nor in en of a tar archive there; expected "
        "'generated' or a folder of the bAbI tasks"
    )


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
    return Question(tuple(facts.values()), clean(asked), clean(answer), supporting)


def stream_stories(lines: Iterable[str], name: str = "standard input") -> Iterator[Question]:
    """The questions of lines that are to be answered, each as soon as it is read.

    `lines` are `raw_lines`. A line is a fact of the story, or a question if it ends in a question mark or has a tab:
    what follows the tab is left out. Numbers before the lines may be there as in bAbI's files, or not; a story begins
    at the number 1 and after an empty line. Raises ValueError for a question before any fact.

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
            raise ValueError(f"{name}, line {number}: expected a fact of the story before the question {text!r}")
