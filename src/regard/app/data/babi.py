"""Questions about stories: the bAbI tasks from their files, or stories that are generated.

Weston et al. 2015, "Towards AI-Complete Question Answering: A Set of Prerequisite Toy Tasks". A file holds lines
`ID sentence`, or `ID question<TAB>answer<TAB>IDs of the supporting facts`; IDs begin again at 1 with each story.
"""

import tarfile
from pathlib import Path

from regard.app.data.generators.stories import generated
from regard.app.data.splits import Splits
from regard.app.data.stories import Question, Stories, split

PARTS = ("train", "test")
COUNTS = (1000, 1000)  # generated questions of each part


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
    return [read(text, name) for name, text in files], f"bAbI, task {task} of {data}"


def _locate(folder: Path, task: int, part: str) -> tuple[str, str]:
    """The name and the text of a file in the folder, in its subfolder en, or in a tar archive in the folder."""
    pattern = f"qa{task}_*_{part}.txt"
    for file in (*folder.glob(pattern), *folder.glob(f"en/{pattern}")):
        return str(file), file.read_text(encoding="utf-8")
    for archive in sorted(folder.glob("*.tar*")):
        with tarfile.open(archive) as files:
            for member in files:
                if member.isfile() and Path(member.name).match(f"en/{pattern}"):
                    return f"{archive}:{member.name}", files.extractfile(member).read().decode()  # pyright: ignore[reportOptionalMemberAccess]
    raise ValueError(
        f"bAbI file {pattern} is not in {folder}, nor in its subfolder en, nor in en of a tar archive there; expected "
        "'generated' or a folder of the bAbI tasks"
    )


def read(text: str, name: str) -> list[Question]:
    """The questions of a file's text; `name` is what errors call it.

    Raises ValueError for a line that is not bAbI's, or a file without questions.

    >>> read("1 Mary went home.\\n2 Mary slept.\\n3 Where is Mary? \\thome\\t1", "the example")[0].supporting
    (1,)
    """
    questions: list[Question] = []
    facts: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            _take_in(line, facts, questions)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{name} is not a file of bAbI: line {number} is {line[:60]!r}") from error
    if not questions:
        raise ValueError(f"{name} holds no questions")
    return questions


def _take_in(line: str, facts: dict[int, str], questions: list[Question]) -> None:
    """Adds what a line says to the facts of the story or to the questions."""
    start, text = line.split(" ", 1)
    if start == "1":
        facts.clear()
    if "\t" not in text:
        facts[int(start)] = text
        return
    asked, answer, marked = text.split("\t")
    if not marked.strip():
        raise ValueError("no supporting facts")
    later = {line: ago for ago, line in enumerate(reversed(facts))}
    supporting = tuple(later[int(line)] for line in marked.split())
    questions.append(Question(tuple(facts.values()), asked.strip(), answer, supporting))
