"""How far alignments of words are from those made by hand: the alignment error rate (Och and Ney 2003).

    regard experiment alignments --data DIR

DIR holds the folders `word_alignments` and `multi30k`. Links are between the places of a source and of a target word,
counted from 0. The table is of the references that attention is to be compared with: the diagonal, and IBM model 1,
learned from Multi30k and the pairs that it aligns, neither of which has a link to learn from.

Of the Hansards only the sure links are kept. Half of the French words have none, so that whatever links each word with
one is wrong in half of its links: `at best` is the error rate of such an aligner that is right wherever it can be, and
no figure is to be compared with a paper's, where possible links count as right.
"""

import gzip
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from regard.app import results

ITERATIONS = 5
"""Of expectation and maximisation."""

Links = set[tuple[int, int]]
"""(place in the source, place in the target)."""

Words = Sequence[str]


@dataclass(frozen=True)
class Pair:
    """Two sentences and the links between their words; every sure link is also a possible one."""

    source: Words
    target: Words
    sure: Links
    possible: Links


def read_pairs(folder: Path, name: str) -> list[Pair]:
    """The pairs of both parts of `word_alignments`, such as en-fr.hansards, in lower case; all their links are sure."""
    lines = [line for part in ("train", "valid") for line in _lines(folder / part / f"{name}.jsonl.gz")]
    rows = [json.loads(line) for line in lines]
    return [_pair(row["src_words"], row["tgt_words"], set(map(tuple, row["alignment"])), set()) for row in rows]


def read_sample(folder: Path) -> list[Pair]:
    """The English and German pairs of `word_alignments/en-de.sample`, in lower case; i-j is sure, ipj possible."""
    files = [folder / "en-de.sample" / f"sample_{name}" for name in ("eng.txt", "deu.txt", "eng_deu.gold")]
    lines = [[line.split()[1:] for line in file.read_text(encoding="utf-8").splitlines()] for file in files]
    return [
        _pair(source, target, _links(links, "-"), _links(links, "p"))
        for source, target, links in zip(*lines, strict=True)
    ]


def _lines(file: Path) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return list(lines)


def _pair(source: Words, target: Words, sure: Links, possible: Links) -> Pair:
    return Pair([word.lower() for word in source], [word.lower() for word in target], sure, sure | possible)


def _links(links: Words, kind: str) -> Links:
    places = [link.split(kind) for link in links if kind in link]
    return {(int(i), int(j)) for i, j in places}


def read_multi30k(folder: Path, language: str) -> list[list[str]]:
    """The training sentences of Multi30k as words."""
    lines = _lines(folder / "tok" / f"train.lc.norm.tok.{language}.gz")
    return [html.unescape(line).split() for line in lines]


@dataclass(frozen=True)
class Score:
    """How good the alignments A of pairs are, S being their sure links and P the possible ones (Och and Ney 2003)."""

    precision: float
    """|A and P| / |A|"""
    recall: float
    """|A and S| / |S|"""
    error_rate: float
    """1 - (|A and S| + |A and P|) / (|A| + |S|)"""


def score(found: Iterable[Links], pairs: Sequence[Pair]) -> Score:
    """The score of alignments of pairs, counted over all of them together. There must be a link and a sure one.

    >>> pair = Pair(["a", "b"], ["x", "y"], {(0, 0)}, {(0, 0), (1, 1)})
    >>> score([{(0, 0), (1, 1), (1, 0)}], [pair])
    Score(precision=0.66..., recall=1.0, error_rate=0.25)
    """
    each = list(zip(found, pairs, strict=True))
    links, sure = sum(len(links) for links, _ in each), sum(len(pair.sure) for pair in pairs)
    surely = sum(len(links & pair.sure) for links, pair in each)
    possibly = sum(len(links & pair.possible) for links, pair in each)
    return Score(possibly / links, surely / sure, 1 - (surely + possibly) / (links + sure))


def argmax(weights: Float[Tensor, "target source"]) -> Links:
    """A link from each target word to the source word of the largest weight, the first if several are; none where more
    of its weight is nowhere, which is what a row lacks to one.

    >>> sorted(argmax(torch.tensor([[0.1, 0.9], [0.2, 0.1], [0.6, 0.4]])))
    [(0, 2), (1, 0)]
    """
    nowhere = 1 - weights.sum(-1, keepdim=True)
    places = torch.cat((weights, nowhere), -1).argmax(-1).tolist()
    return {(place, j) for j, place in enumerate(places) if place < weights.shape[-1]}


def diagonal(source: Words, target: Words) -> Links:
    """A link from each target word to the source word that is as far into its sentence.

    >>> sorted(diagonal("abc", "vwxyz"))
    [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)]
    """
    return {((2 * j + 1) * len(source) // (2 * len(target)), j) for j in range(len(target))}


def at_best(pair: Pair) -> Links:
    """A link from each target word, a right one if there is any.

    >>> sorted(at_best(Pair("ab", "xy", {(1, 0)}, {(1, 0)})))
    [(0, 1), (1, 0)]
    """
    right = {j: i for i, j in (*pair.possible, *pair.sure)}
    return {(right.get(j, 0), j) for j in range(len(pair.target))}


def ibm1(pairs: Sequence[tuple[Words, Words]], iterations: int = ITERATIONS) -> list[Float[Tensor, "target source"]]:
    """For each pair of sentences, the probability of a target word being a translation of a source word, by IBM model 1
    (Brown et al. 1993, "The Mathematics of Statistical Machine Translation"), learned from the pairs alone.

    p(i | j) = t(f_j | e_i) / sum over all i and none of t(f_j | e_i), and after each iteration t(f | e) is the expected
    number of times that e became f, as a share of those that it became anything. It begins with all alike. What a row
    lacks to one is the probability of a word that comes from none of the source.

    >>> ibm1([(["the", "book"], ["das", "Buch"]), (["the"], ["das"])], iterations=2)[0]
    tensor([[0.5, 0.1], [0.3, 0.5]], dtype=torch.float64)
    """
    sources, targets, words = _cells(pairs)
    entries, cells = (sources * (1 + targets.max()) + targets).unique(return_inverse=True)
    before = entries // (1 + targets.max())  # the source word of each entry of the table
    table = torch.ones(len(entries), dtype=torch.float64)
    for _ in range(iterations):
        counts = torch.bincount(cells, _shares(table[cells], words))
        table = counts / torch.bincount(before, counts)[before]
    sizes = [(len(target), 1 + len(source)) for source, target in pairs]
    parts = _shares(table[cells], words).split([rows * columns for rows, columns in sizes])
    return [part.view(size)[:, 1:] for part, size in zip(parts, sizes, strict=True)]


def _shares(values: Tensor, groups: Tensor) -> Tensor:
    """Values as shares of the sum of their group."""
    return values / torch.bincount(groups, values)[groups]


def _cells(pairs: Sequence[tuple[Words, Words]]) -> tuple[Tensor, Tensor, Tensor]:
    """For every target word of every pair and each source word of it, none being the first: the numbers of the source
    word, of the target word, and of its occurrence."""
    numbers: dict[str | None, int] = {}
    sources, targets, count = [], [], []
    for source, target in pairs:
        before, after = (torch.tensor(_numbers(words, numbers)) for words in ((None, *source), target))
        sources.append(before.repeat(len(after)))
        targets.append(after.repeat_interleave(len(before)))
        count.append(torch.full((len(after),), len(before)))
    repeats = torch.cat(count)
    return torch.cat(sources), torch.cat(targets), torch.arange(len(repeats)).repeat_interleave(repeats)


def _numbers(words: Iterable[str | None], numbers: dict[str | None, int]) -> list[int]:
    """The number of each word, a new one getting the next."""
    return [numbers.setdefault(word, len(numbers)) for word in words]


@dataclass(frozen=True)
class Row:
    """One aligner on one set of pairs."""

    data: str
    pairs: int
    aligner: str
    precision: float
    recall: float
    error_rate: float


def known(pairs: Sequence[Pair], sources: Sequence[Words], targets: Sequence[Words]) -> list[Pair]:
    """The pairs whose words are all among those of the sentences of their language."""
    source, target = ({word for sentence in each for word in sentence} for each in (sources, targets))
    return [pair for pair in pairs if source.issuperset(pair.source) and target.issuperset(pair.target)]


def measure(data: str, pairs: Sequence[Pair], corpus: Sequence[tuple[Words, Words]]) -> list[Row]:
    """The rows of a set of pairs, IBM model 1 having learned from a corpus and from them."""
    learned = ibm1([*((pair.source, pair.target) for pair in pairs), *corpus])[: len(pairs)]
    aligners = {
        "at best": map(at_best, pairs),
        "diagonal": (diagonal(pair.source, pair.target) for pair in pairs),
        "IBM model 1": map(argmax, learned),
    }
    return [Row(data, len(pairs), name, **asdict(score(found, pairs))) for name, found in aligners.items()]


def rows(folder: Path) -> list[Row]:
    """The whole table."""
    english, french, german = (read_multi30k(folder / "multi30k", language) for language in ("en", "fr", "de"))
    hansards = read_pairs(folder / "word_alignments", "en-fr.hansards")
    en_fr, en_de = (list(zip(english, other, strict=True)) for other in (french, german))
    return [
        *measure("Hansards, known", known(hansards, english, french), en_fr),
        *measure("Hansards", hansards, en_fr),
        *measure("Europarl, en-de", read_sample(folder / "word_alignments"), en_de),
    ]


def show(found: Sequence[Row]) -> None:
    """Prints the table, in per cent."""
    table = Table("data", "pairs", "aligner", "precision", "recall", "error rate", title="alignments")
    for row in found:
        numbers = (f"{100 * each:.1f}" for each in (row.precision, row.recall, row.error_rate))
        table.add_row(row.data, str(row.pairs), row.aligner, *numbers)
    Console().print(table)


def main() -> None:
    """The command line."""
    flags = results.parser("alignments", "Alignment error rates.")
    flags.add_argument("--data", type=Path, metavar="DIR", required=True, help="holds word_alignments and multi30k")
    options = flags.parse_args()
    found = rows(options.data)
    as_rows = [asdict(row) for row in found]
    results.give({"name": "alignments", "rows": as_rows}, options, lambda: show(found))


if __name__ == "__main__":
    main()
