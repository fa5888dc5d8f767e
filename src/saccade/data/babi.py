"""Questions about stories: the bAbI tasks from their files, or stories that are generated.

Weston et al. 2015, "Towards AI-Complete Question Answering: A Set of Prerequisite Toy Tasks". A file holds lines
`ID sentence`, or `ID question<TAB>answer<TAB>IDs of the supporting facts`; IDs begin again at 1 with each story.
"""

import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from saccade.data.splits import Splits
from saccade.data.stories import Question, generated

PARTS = ("train", "test")
COUNTS = (1000, 1000)  # generated questions of each part


class Stories:
    """Questions about stories as a split: words and answers as numbers, what is absent as zero or -1.

    `words` are those that the numbers 1, 2, ... stand for, `answers` those of 0, 1, ...
    """

    def __init__(self, questions: Sequence[Question], words: Sequence[str], answers: Sequence[str]):
        self.words = tuple(words)
        numbers = {word: number for number, word in enumerate(words, 1)}
        facts = [[[numbers.get(word, 0) for word in split(fact)] for fact in each.facts] for each in questions]
        asked = [[numbers.get(word, 0) for word in split(each.text)] for each in questions]
        widest, longest = max(len(fact) for each in facts for fact in each), max(map(len, facts))
        self.facts = torch.zeros(len(questions), longest, widest, dtype=torch.long)
        for n, each in enumerate(facts):
            for ago, fact in enumerate(reversed(each), 1):
                self.facts[n, -ago, : len(fact)] = torch.tensor(fact)
        self.questions = _table(asked, 0)
        self.supporting = _table([each.supporting for each in questions], -1)
        known = {answer: number for number, answer in enumerate(answers)}
        self.answers = torch.tensor([known.get(each.answer, -1) for each in questions])

    def __len__(self) -> int:
        return len(self.answers)

    def batch(self, indices: Int[Tensor, " B"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The questions at `indices`: `facts` (B, N, W) of at most W words, the latest fact last, so that shorter
        stories begin later; `question` (B, V), `answer` (B,), -1 for one that is not in training, and `supporting`
        (B, M), how many facts came after each that is marked, then -1. Nothing in them is random."""
        facts = self.facts[indices]
        longest = int((facts[..., 0] > 0).sum(-1).amax())
        return {
            "facts": facts[:, -longest:],
            "question": self.questions[indices],
            "answer": self.answers[indices],
            "supporting": self.supporting[indices],
        }


def split(sentence: str) -> list[str]:
    """Its words, without capitals and the mark at the end.

    >>> split("Where is Mary? ")
    ['where', 'is', 'mary']
    """
    return sentence.lower().strip(" .?").split()


def _table(rows: Iterable[Sequence[int]], absent: int) -> Int[Tensor, "N M"]:
    """Rows of different lengths, filled up at their ends."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=absent)


def babi(data: str | Path = "generated", task: int = 2) -> Splits:
    """The questions of one bAbI task, 1 to 20, from a folder with its files or with their archive, or "generated".

    The last tenth of the training questions is for validation. Raises ValueError where the data are missing, damaged
    or not bAbI's.

    >>> splits = babi("generated", task=1)
    >>> len(splits.train), len(splits.valid), len(splits.test), splits.classes[:2]
    (900, 100, 1000, ('attic', 'bathroom'))
    """
    found, source = _find(data, task)
    train, test = found
    answers = sorted({each.answer for each in train})
    words = sorted({word for each in train for text in (*each.facts, each.text) for word in split(text)}.union(answers))
    kept = len(train) - len(train) // 10
    parts = [Stories(part, words, answers) for part in (train[:kept], train[kept:], test)]
    counts = "{:,} training, {:,} validation and {:,} test questions".format(*map(len, parts))
    return Splits(*parts, f"{source}: {counts}", tuple(answers))


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
    later = {line: ago for ago, line in enumerate(reversed(facts))}
    supporting = tuple(later[int(line)] for line in marked.split())
    questions.append(Question(tuple(facts.values()), asked.strip(), answer, supporting))
