"""The experiment alignments: error rates counted by hand, and IBM model 1 by enumeration of all alignments."""

import gzip
import importlib
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
BOOKS = [(["the", "house"], ["das", "haus"]), (["the", "book"], ["das", "buch"]), (["a", "book"], ["ein", "buch"])]


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("alignments")


# The error rate


def test_the_error_rate_as_counted_by_hand(experiment):
    first = experiment.Pair("abc", "xyz", {(0, 0), (1, 1)}, {(0, 0), (1, 1), (2, 2)})
    second = experiment.Pair("ab", "xy", {(1, 0)}, {(1, 0)})
    found = [{(0, 0), (2, 2), (2, 1)}, {(0, 0), (1, 0)}]
    # 5 links, 3 sure ones; sure and found: (0, 0) and (1, 0); possible and found: these and (2, 2).
    assert experiment.score(found, [first, second]) == experiment.Score(3 / 5, 2 / 3, 1 - (2 + 3) / (5 + 3))


def test_the_error_rate_is_that_of_all_links_and_no_mean_over_pairs(experiment):
    straight = {(i, i) for i in range(4)}
    short, long = experiment.Pair("a", "x", {(0, 0)}, {(0, 0)}), experiment.Pair("abcd", "wxyz", straight, straight)
    found = [{(0, 0)}, {(i, 3 - i) for i in range(4)}]
    assert experiment.score(found, [short, long]).error_rate == pytest.approx(1 - 2 / 10)


def test_nothing_is_wrong_with_the_sure_links_nor_with_possible_ones_beside_them(experiment):
    pair = experiment.Pair("abc", "xyz", {(0, 0)}, {(0, 0), (1, 1)})
    assert experiment.score([pair.sure], [pair]).error_rate == 0
    assert experiment.score([pair.possible], [pair]).error_rate == 0
    assert experiment.score([{(2, 2)}], [pair]).error_rate == 1
    only_sure = experiment.Pair("abc", "xyz", pair.sure, pair.sure)
    assert experiment.score([pair.possible], [only_sure]).error_rate == pytest.approx(1 / 3), "then it is 1 - F1"


def test_the_largest_weight_of_a_target_word_is_its_link(experiment):
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0], [0.3, 0.1, 0.2], [0.0, 0.2, 0.3]])
    assert experiment.argmax(weights) == {(1, 0), (0, 1)}, "the third looks nowhere, and so do the others mostly"
    assert experiment.argmax(torch.full((2, 3), 1 / 3)) == {(0, 0), (0, 1)}
    assert experiment.argmax(torch.zeros(0, 3)) == experiment.argmax(torch.zeros(2, 0)) == set()


@pytest.mark.parametrize(("source", "target"), [(3, 3), (1, 4), (4, 1), (7, 5), (5, 7)])
def test_the_diagonal_keeps_the_order_and_reaches_both_ends(experiment, source: int, target: int):
    places = {j: i for i, j in experiment.diagonal("s" * source, "t" * target)}
    order = [places[j] for j in range(target)]
    assert order == sorted(order) and len(order) == target
    middles = [abs((i + 0.5) / source - (j + 0.5) / target) for j, i in places.items()]
    assert max(middles) <= 0.5 / source, "no other word is nearer"


def test_no_aligner_with_a_link_for_each_target_word_is_better_than_the_best(experiment):
    pair = experiment.Pair("ab", "xyz", {(1, 0), (0, 0), (0, 1)}, {(1, 0), (0, 0), (0, 1)})
    every = [
        experiment.score([set(zip(places, range(3), strict=True))], [pair]).error_rate
        for places in itertools.product(range(2), repeat=3)
    ]
    assert experiment.score([experiment.at_best(pair)], [pair]).error_rate == min(every) < max(every)


# IBM model 1


def enumerated(pairs, iterations: int) -> list[list[list[float]]]:
    """p(i | j) after so many iterations over all alignments of each pair, one by one; the source begins with none."""
    table: dict = {}
    for _ in range(iterations):
        counts = Counter()
        for pair in pairs:
            for links, probability in _alignments(*pair, table):
                counts.update(dict.fromkeys(links, 0.0))
                for link in links:
                    counts[link] += probability
        totals = Counter()
        for (before, _), count in counts.items():
            totals[before] += count
        table = {link: count / totals[link[0]] for link, count in counts.items()}
    return [_posterior(*pair, table) for pair in pairs]


def _alignments(source, target, table):
    """Every alignment as its links of words, and its probability."""
    every = [list(zip(words, target, strict=True)) for words in itertools.product([None, *source], repeat=len(target))]
    weights = [math.prod(table.get(link, 1.0) for link in links) for links in every]
    return [(links, weight / sum(weights)) for links, weight in zip(every, weights, strict=True)]


def _posterior(source, target, table) -> list[list[float]]:
    places = list(itertools.product(range(1 + len(source)), repeat=len(target)))
    chances = [chance for _, chance in _alignments(source, target, table)]
    return [
        [sum(p for each, p in zip(places, chances, strict=True) if each[j] == i) for i in range(1, 1 + len(source))]
        for j in range(len(target))
    ]


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_model_1_is_expectation_and_maximisation_over_all_alignments(experiment, iterations: int):
    pairs = [*BOOKS, (["a", "a", "house", "the"], ["ein", "das"]), (["the"], ["das", "haus", "das"])]
    found, expected = experiment.ibm1(pairs, iterations), enumerated(pairs, iterations)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, torch.tensor(theirs, dtype=torch.float64))
    other = enumerated(pairs, iterations + 1)
    assert (found[0] - torch.tensor(other[0])).abs().max() > 1e-3, "an iteration more is noticed"


def test_the_first_two_iterations_as_worked_out_by_hand(experiment):
    # After one, t(das | the) = 1/2, t(haus | the) = t(buch | the) = 1/4, t(das | house) = t(haus | house) = 1/2, and
    # t(das | none) = 2/6, t(haus | none) = 1/6.
    first = [[3 / 8, 3 / 8], [3 / 11, 6 / 11]]
    assert experiment.ibm1(BOOKS, 1)[0].tolist() == [pytest.approx(row) for row in first]
    # After two, of which the second pair gives "das" (1/2, 1/4, 1/3) / (13/12) from the, book, none, and "buch"
    # (1/4, 1/2, 1/3) / (13/12); the third pair "ein" (1/2, 1/4, 1/6) / (11/12) from a, book, none and "buch"
    # (1/2, 1/2, 1/3) / (4/3).
    the = {"das": 3 / 8 + 6 / 13, "haus": 3 / 11, "buch": 3 / 13}
    house = {"das": 3 / 8, "haus": 6 / 11}
    none = {"das": 1 / 4 + 4 / 13, "haus": 2 / 11, "buch": 4 / 13 + 1 / 4, "ein": 2 / 11}
    das, haus = ([each[word] / sum(each.values()) for each in (the, house, none)] for word in ("das", "haus"))
    second = [[p / sum(row) for p in row[:2]] for row in (das, haus)]
    assert experiment.ibm1(BOOKS, 2)[0].tolist() == [pytest.approx(row) for row in second]


# The table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data folder: sentences to learn from, two files of links and the sample."""
    words, links = tmp_path / "multi30k" / "tok", tmp_path / "word_alignments"
    english, other = zip(*BOOKS, strict=True)
    for language, sentences in {"en": english, "fr": other, "de": other}.items():
        _write(words / f"train.lc.norm.tok.{language}.gz", "".join(f"{' '.join(each)} &apos;\n" for each in sentences))
    for part, (source, target) in {"train": BOOKS[0], "valid": (["The", "cat"], ["Das", "cat"])}.items():
        row = {"src_words": source, "tgt_words": target, "alignment": [[0, 0], [1, 1]]}
        _write(links / part / "en-fr.hansards.jsonl.gz", json.dumps(row) + "\n")
    sample = {"eng.txt": "0\tA Book .", "deu.txt": "0\tEin Buch .", "eng_deu.gold": "0\t0-0 1p1 2-2 10p11"}
    for name, line in sample.items():
        _write(links / "en-de.sample" / f"sample_{name}", line + "\n")
    return tmp_path


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def test_files_are_read_as_they_are_but_for_capitals(experiment, folder: Path):
    first, second = experiment.read_pairs(folder / "word_alignments", "en-fr.hansards")
    assert (first.source, first.target) == BOOKS[0]
    assert second == experiment.Pair(["the", "cat"], ["das", "cat"], {(0, 0), (1, 1)}, {(0, 0), (1, 1)})
    (pair,) = experiment.read_sample(folder / "word_alignments")
    assert (pair.source, pair.target) == (["a", "book", "."], ["ein", "buch", "."])
    assert (pair.sure, pair.possible) == ({(0, 0), (2, 2)}, {(0, 0), (2, 2), (1, 1), (10, 11)})
    assert experiment.read_multi30k(folder / "multi30k", "en")[0] == ["the", "house", "'"]


def test_the_table_says_how_many_pairs_are_known(experiment, folder: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["alignments.py", "--data", str(folder), "--json"])
    experiment.main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["data"], row["pairs"]) for row in rows[::3]] == [
        ("Hansards, known", 1),
        ("Hansards", 2),
        ("Europarl, en-de", 1),
    ]
    assert [row["aligner"] for row in rows[:3]] == ["at best", "diagonal", "IBM model 1"]
    assert [row["error_rate"] for row in rows[:6]] == pytest.approx([0] * 6)
    monkeypatch.setattr("sys.argv", ["alignments.py", "--data", str(folder)])
    experiment.main()
    assert "Hansards, known" in capsys.readouterr().out


def test_real_links_are_within_their_sentences(experiment, data_dir: Path):
    pairs = experiment.read_pairs(data_dir / "word_alignments", "en-fr.hansards")
    sample = experiment.read_sample(data_dir / "word_alignments")
    assert (len(pairs), sum(len(pair.sure) for pair in pairs), len(sample)) == (484, 4376, 5)
    for pair in (*pairs, *sample):
        assert all(i < len(pair.source) and j < len(pair.target) for i, j in pair.possible)
        assert pair.sure <= pair.possible
