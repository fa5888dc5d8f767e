"""Constituency trees as brackets: read as most work on treebanks does, compared as evalb does, and bad ones by name."""

import gzip
from pathlib import Path

import pytest
import torch

from regard.app import data as datasets
from regard.app.data.brackets import learned
from regard.app.data.generators.phrases import phrases
from regard.app.text.brackets import (
    FIRST_LABEL,
    counted,
    read_brackets,
    read_steps,
    scores,
    steps,
    without_marks,
    written,
)
from regard.app.text.charts import gold_labels

GOLD = [(0, 4, "S"), (0, 1, "NP"), (2, 4, "VP"), (3, 4, "NP"), (3, 4, "QP")]


def test_labels_are_cut_and_what_is_empty_is_left_out():
    line = "( (S (NP-SBJ-1 (-NONE- *)) (NP=2 (NN|NNS tide) (-RRB- -RRB-)) (VP (VBZ turns) (S-TPC (NP (-NONE- T))))))"
    (tree,) = read_brackets([line])
    assert tree.words == ("tide", "-RRB-", "turns") and tree.tags == ("NN", "-RRB-", "VBZ")
    assert tree.spans == ((0, 2, "S"), (0, 1, "NP"), (2, 2, "VP"))


def test_trees_over_several_lines_and_several_on_one():
    lines = ["(ROOT (S (NP (NN a))", "  (VP (VB b))))", "", "(S1 (X (Y c))) ((Z d))", "( (NP (-NONE- *)) )"]
    assert [tree.spans for tree in read_brackets(lines)] == [
        ((0, 1, "S"), (0, 0, "NP"), (1, 1, "VP")),
        ((0, 0, "X"),),
        (),
    ]


def test_a_tree_may_be_deep():
    depth = 20_000
    (tree,) = read_brackets(["(X " * depth + "(NN a)" + ")" * depth])
    assert len(tree.spans) == depth


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["(S (NN a))", "(S (NN b)"], "x, line 2: expected all brackets to close, but 1 do not"),
        (["(S (NN a)))"], r"x, line 1: expected \(, but got '\)'"),
        (["", "a"], r"x, line 2: expected \(, but got 'a'"),
        (["(S (NN a) b)"], "x, line 1: expected a word or brackets in a bracket, but got both, 'b' being the word"),
        (["(S a (NN b))"], "expected .* after the word 'a', but got another bracket"),
    ],
)
def test_brackets_that_are_wrong_are_named(lines: list[str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        list(read_brackets(lines, "x"))


def test_what_is_written_is_read_again():
    for tree in phrases(50, seed=1):
        assert list(read_brackets([written(*tree)])) == [tree]


def test_steps_are_read_again_and_malformed_ones_are_none():
    for tree in phrases(50, seed=2):
        labels = sorted({label for *_, label in tree.spans})
        spans = [(first, last, labels.index(label)) for first, last, label in tree.spans]
        made = steps(len(tree.words), spans)
        assert read_steps(made[:-1], len(tree.words)) == spans
        assert read_steps(made[:-1], len(tree.words) + 1) is None
        assert read_steps(made[1:-1], len(tree.words)) is None and read_steps(made[:-2], len(tree.words)) is None
    assert read_steps([FIRST_LABEL, 4, 3], 1) is None  # that holds nothing


def test_scores_by_hand():
    """Two brackets around the same words count each; one of another label or other words is wrong."""
    found = [(0, 4, "S"), (0, 1, "NP"), (1, 4, "VP"), (3, 4, "QP"), (3, 4, "QP")]
    count = counted(found, GOLD)
    assert count == {"right": 3, "found": 5, "gold": 5}
    assert scores(count) == {"f1": 60.0, "precision": 60.0, "recall": 60.0}
    assert scores(counted([], GOLD))["f1"] == 0 and scores(counted([], []))["f1"] == 0
    assert scores(counted(GOLD, GOLD))["f1"] == 100


def test_without_punctuation():
    """The words 1 and 4 are marks: what spans them and others is shorter, and what spans them alone is gone."""
    found = without_marks([*GOLD, (4, 4, "X")], [0, 1, 0, 0, 1])
    assert found == [(0, 2, "S"), (0, 0, "NP"), (1, 2, "VP"), (2, 2, "NP"), (2, 2, "QP")]


def test_gold_labels_by_their_definition():
    chains = torch.tensor([[[0, 4, 3], [1, 3, 5], [2, 3, 4]], [[0, 1, 2], [-1, -1, -1], [-1, -1, -1]]])
    found = gold_labels(chains, 5)
    for row, spans in enumerate(chains.tolist()):
        real = {(first, last): label for first, last, label in spans if first >= 0}
        for i in range(5):
            for j in range(i, 5):
                cross = any(i < first <= j < last or first < i <= last < j for first, last in real)
                assert found[row, i, j] == (-1 if cross else real.get((i, j), 0))


def files(folder: Path, train: str = "(S (NN a) (VB b))") -> Path:
    for part in ("train", "dev"):
        (folder / f"{part}.mrg").write_text(train)
    (folder / "my-test.ptb.gz").write_bytes(gzip.compress(b"(S (NN a) (NP (VB c)))"))
    return folder


def test_a_folder_of_ones_own(tmp_path: Path):
    splits = datasets.bracketed(files(tmp_path))
    assert splits.classes == ("S",) and len(splits.test) == 1
    batch = splits.test.batch(torch.tensor([0]))
    assert batch["spans"].tolist() == [[[0, 1, 0], [1, 1, 1]]]  # NP is not known
    assert batch["chains"].tolist() == [[[0, 1, 1], [1, 1, 0]]]
    assert batch["words"].shape == (1, 2) and bytes(batch["text"][0].tolist()) == b"a c"


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ("(S (NN a)", "train.mrg, line 1: expected all brackets to close"),
        ("", "train.mrg is empty"),
        ("( (NP (-NONE- *)) )", "train.mrg holds no tree of at most 250 words"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, train: str, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        datasets.bracketed(files(tmp_path, train))


def test_no_files(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected one file \*train.ptb or \*train.mrg"):
        datasets.bracketed(tmp_path)
    with pytest.raises(ValueError, match="does not exist; expected 'generated' or a folder of bracket files"):
        datasets.bracketed(tmp_path / "none")


def test_chains_that_are_rare_are_as_much_of_them_as_is_known():
    known = learned(list(read_brackets(["(S (VP (NN a) (NN b)))"])))
    assert known.chains == ["-", "S", "VP"]
    split = datasets.Bracketed(list(read_brackets(["(S (VP (NN a) (NN b)))"])), known)
    assert split.batch(torch.tensor([0]))["chains"].tolist() == [[[0, 1, 1]]]
