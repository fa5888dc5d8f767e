"""Sentences from files in CoNLL-U: what is read, what is refused and in which words, and the tensors of a batch."""

import gzip
import re
from pathlib import Path

import pytest
import torch

from regard.app.data import Sentence, Trees, treebank, trees_to_test
from regard.app.data.conllu import Block, annotated, find, read, stream_sentences
from regard.app.data.generators.grammar import grammar
from regard.app.data.trees import RELATIONS, TAGS, name, unparsed

TEXT = """# sent_id = 1
# text = Don't go .
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod:neg\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
3.1\tgone\tgo\tVERB\tVB\t_\t_\t_\t1:conj\t_
4\t.\t.\tPUNCT\t.\t_\t3\tpunct\t_\t_

1\tStop\tstop\tVERB\tVB\t_\t0\troot\t_\t_
"""
SENTENCES = [
    Sentence(
        ("Do", "n't", "go", "."), ("AUX", "PART", "VERB", "PUNCT"), (3, 3, 0, 3), ("aux", "advmod", "root", "punct")
    ),
    Sentence(("Stop",), ("VERB",), (0,), ("root",)),
]


def conllu(sentences: list[Sentence]) -> str:
    """The sentences in the format."""
    blocks = (
        "\n".join(
            "\t".join((str(n), word, "_", tag, "_", "_", str(head), relation, "_", "_"))
            for n, (word, tag, head, relation) in enumerate(zip(*sentence, strict=True), 1)
        )
        for sentence in sentences
    )
    return "".join(f"{block}\n\n" for block in blocks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A treebank of three small parts, one of them gzipped."""
    for part, count in (("train", 20), ("dev", 5), ("test", 4)):
        (tmp_path / f"xx-ud-{part}.conllu").write_text(conllu(grammar(count, seed=count)), encoding="utf-8")
    train = tmp_path / "xx-ud-train.conllu"
    Path(f"{train}.gz").write_bytes(gzip.compress(train.read_bytes()))
    train.unlink()
    return tmp_path


@pytest.mark.parametrize("end", ["\n", "\n\n", "\n\n\n", ""])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_words_are_read_without_ranges_empty_nodes_and_what_follows_a_colon(tmp_path: Path, end: str, newline: str):
    file = tmp_path / "a.conllu"
    file.write_bytes((TEXT.rstrip() + end).replace("\n", newline).encode())
    assert read(file) == SENTENCES


@pytest.mark.parametrize("zipped", [False, True])
def test_what_was_written_is_read_again(tmp_path: Path, zipped: bool):
    sentences = [
        *grammar(50, seed=5),
        Sentence(("naïve", "日本", "a b"), ("X", "_", "SYM"), (2, 0, 2), ("dep", "root", "list")),
    ]
    file, data = tmp_path / ("a.conllu.gz" if zipped else "a.conllu"), conllu(sentences).encode()
    file.write_bytes(gzip.compress(data) if zipped else data)
    assert read(file) == sentences


def test_a_folder_becomes_splits(folder: Path):
    splits = treebank(folder)
    assert splits.describe == f"the CoNLL-U files of {folder}: 20 training, 5 validation and 4 test sentences"
    assert splits.classes == RELATIONS
    assert [len(split) for split in splits[:3]] == [20, 5, 4]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_words_are_the_same_however_they_are_written(tmp_path: Path, end: str):
    text = (
        TEXT.replace("\tn't", "\tnai\u0308\u200bve\u00a0 't ").replace("2\tn", "\ufeff2\tn").replace("\n\n", "\n \t\n")
    )
    (tmp_path / "a.conllu").write_bytes(("\ufeff" + text.replace("\n", end)).encode())
    first, second = read(tmp_path / "a.conllu")
    assert first == SENTENCES[0]._replace(words=("Do", "na\u00efve 't", "go", ".")) and second == SENTENCES[1]


def test_what_is_too_long_is_left_out_and_said(folder: Path):
    long = Sentence(("x",) * 2_000, ("X",) * 2_000, (0, *range(1, 2_000)), ("root", *["dep"] * 1_999))
    wide = Sentence(("x" * 100_000,), ("X",), (0,), ("root",))
    kept = grammar(3, seed=1)
    (folder / "xx-ud-dev.conllu").write_text(conllu([wide, *kept, wide]))
    (folder / "xx-ud-test.conllu").write_text(conllu([*kept, long]))
    splits = treebank(folder)
    assert [len(split) for split in splits[:3]] == [20, 3, 3] and splits.valid.forms.shape[1] < 20
    reason = "over 250 words, or a word of over 1,000 characters"
    remark = f"; left out: 2 of the validation sentences ({reason}), 1 of the test sentences ({reason})"
    assert splits.describe.endswith(f": 20 training, 3 validation and 3 test sentences{remark}")
    (folder / "xx-ud-test.conllu").write_text(conllu([long]))
    with pytest.raises(ValueError, match=r"test\.conllu holds no sentence of at most 250 words of 1,000 characters$"):
        treebank(folder)


def test_the_test_part_alone_needs_no_other(folder: Path):
    whole = treebank(folder)
    for file in [*folder.glob("*train*"), *folder.glob("*dev*")]:
        file.unlink()
    alone = trees_to_test(folder)
    assert alone.describe == f"the CoNLL-U files of {folder}: 4 test sentences" and alone.classes == RELATIONS
    assert (len(alone.train), len(alone.valid)) == (0, 0)
    one, other = (splits.test.batch(torch.arange(4)) for splits in (whole, alone))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(trees_to_test("generated").test.words, Trees(grammar(300, seed=2)).words)


def test_a_sentence_to_be_parsed_is_a_sentence():
    batch = Trees([unparsed(("Go", "on"))]).batch(torch.tensor([0]))
    assert batch["heads"].tolist() == [[0, 1]] and (batch["words"] >= 0).all()


WORD = "1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_"
TWO = "1\tGo\tgo\tVERB\tVB\t_\t2\tobj\t_\t_\n2\ton\ton\tADP\tIN\t_\t1\tobj\t_\t_"


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (WORD + "\t_", 1, "expected 10 columns, but got 11"),
        ("words", 1, "expected 10 columns, but got 1"),
        (WORD.replace("1", "2", 1), 1, "expected word 1, but got '2'"),
        (f"{WORD}\n{WORD}", 2, "expected word 2, but got '1'"),
        (WORD.replace("Go", ""), 1, "expected a form for word 1, but got none"),
        (WORD.replace("\t0\t", "\t_\t"), 1, "expected the number of a word as head, but got '_'"),
        (WORD.replace("\t0\t", "\t-1\t"), 1, "expected the number of a word as head, but got '-1'"),
        (WORD.replace("root", "top"), 1, "expected a universal relation, but got 'top'"),
        (WORD.replace("VERB", "VVFIN"), 1, "expected a universal tag, but got 'VVFIN'"),
        (WORD.replace("\t0\t", "\t5\t") + "\n\n", 2, "expected heads among the 1 words before, but got 5"),
        (TWO, 3, "expected a sentence with a single root to end here, but it has 0"),
        (f"{WORD}\n{WORD.replace('1', '2', 1)}", 3, "expected a sentence with a single root to end here, but it has 2"),
        (
            f"{TWO}\n{WORD.replace('1', '3', 1)}",
            4,
            "expected a sentence whose heads form a tree to end here, but they form a cycle",
        ),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, text: str, line: int, sentence: str):
    file = tmp_path / "a.conllu"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}, line {line}: {sentence}')}$"):
        read(file)


@pytest.mark.parametrize("text", ["\n\n", "# nothing but a comment\n"])
def test_a_file_without_sentences_is_named(folder: Path, text: str):
    file = folder / "xx-ud-dev.conllu"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))} holds no sentence$"):
        treebank(folder)


def test_damaged_files_are_named(folder: Path):
    file = folder / "xx-ud-train.conllu.gz"
    whole = file.read_bytes()
    for damaged in (whole[:-9], b"text", whole[:30] + bytes(20) + whole[50:]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"^{re.escape(str(file))} is not a whole gzip file: "):
            treebank(folder)
    file.write_bytes(gzip.compress(b"\xff\xfe"))
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}, line 1: expected text in UTF-8, but got the byte"):
        treebank(folder)


def test_missing_files_and_too_many_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(
        ValueError, match=f"^data folder {re.escape(str(folder))}/no does not exist; expected 'generated' or"
    ):
        treebank(folder / "no")
    (folder / "yy-ud-dev.conllu").write_text("")
    with pytest.raises(ValueError, match=r"expected one file \*dev.conllu or \*dev.conllu.gz, but has 2$"):
        treebank(folder)
    for file in folder.glob("*dev*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"expected one file \*dev.conllu or \*dev.conllu.gz, but has 0$"):
        find(folder, "dev")


def test_a_batch_is_its_sentences_again():
    sentences = [*SENTENCES, *grammar(30, seed=1)]
    split, indices = Trees(sentences), torch.tensor([7, 1, 0, 20, 1])
    batch = split.batch(indices)
    assert split.lengths.tolist() == [len(sentence.words) for sentence in sentences]
    for n, index in enumerate(indices.tolist()):
        words, tags, heads, relations = sentences[index]
        length = len(words)
        forms = batch["forms"][batch["words"][n, :length]]
        assert tuple("".join(map(chr, filter(None, form))) for form in forms.tolist()) == words
        assert batch["names"][batch["words"][n, :length]].tolist() == [name(word) for word in words]
        assert tuple(TAGS[tag] for tag in batch["tags"][n, :length]) == tags
        assert tuple(RELATIONS[relation] for relation in batch["relations"][n, :length]) == relations
        assert [0 if head == i else head + 1 for i, head in enumerate(batch["heads"][n, :length].tolist())] == [*heads]
        assert all((batch[each][n, length:] == -1).all() for each in ("words", "heads", "relations", "tags"))
    assert batch["words"].shape[1] == max(len(sentences[index].words) for index in indices)
    assert (batch["forms"][:, -1] > 0).any(), "no column of padding alone"


def test_a_batch_does_not_depend_on_other_sentences():
    """A split holds no vocabulary: what it is trained on and what it is tested on may be encoded apart."""
    sentences = grammar(20, seed=0)
    some, all_ = Trees(sentences[10:]).batch(torch.arange(10)), Trees(sentences).batch(torch.arange(10, 20))
    present = some["words"] >= 0
    for each in ("forms", "names"):
        assert torch.equal(*(batch[each][batch["words"][present]] for batch in (some, all_)))
        assert len(some[each]) == len(all_[each]) == len(some["words"][present].unique())
    assert all(torch.equal(some[each], all_[each]) for each in ("heads", "relations", "tags"))


def test_the_grammar_s_trees_are_trees_and_an_eighth_of_them_cross(tmp_path: Path):
    sentences = grammar(500, seed=0)
    file = tmp_path / "a.conllu"
    file.write_text(conllu(sentences))
    assert read(file) == sentences, "which refuses what is no tree"
    assert sentences == grammar(500, seed=0) != grammar(500, seed=1)
    crossing = sum("who" in sentence.words for sentence in sentences)
    assert 40 < crossing < 90


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("folder", "sizes"), [("ud_english_ewt", (12544, 2001, 2077)), ("ud_afrikaans_afribooms", (1315, 194, 425))]
)
def test_real_treebanks(folder: str, sizes: tuple[int, ...], data_dir: Path):
    splits = treebank(data_dir / folder)
    assert tuple(len(split) for split in splits[:3]) == sizes
    if folder == "ud_english_ewt":
        assert [int(split.lengths.sum()) for split in splits[:3]] == [204577, 25147, 25094]


def test_sentences_are_streamed_and_written_again_with_their_trees():
    lines = iter([*TEXT.rstrip().split("\n"), "", "1\tGo\u00a0 on", "", "unread"])
    sentences = stream_sentences(lines)
    first, second, third = (next(sentences) for _ in range(3))
    assert next(lines) == "unread", "no more is read than the empty line after a sentence"
    assert [each.words for each in (first, second, third)] == [SENTENCES[0].words, SENTENCES[1].words, ("Go on",)]
    written = list(annotated(first, (2, 0, 2, 3), ("aux", "root", "dep", "punct")))
    assert written[:3] == TEXT.split("\n")[:3] and written[6] == TEXT.split("\n")[6], "comments, ranges, empty nodes"
    assert [line.split("\t")[6:8] for line in written[3:6]] == [["2", "aux"], ["0", "root"], ["2", "dep"]]
    assert [line.split("\t")[:6] for line in written[3:6]] == [line.split("\t")[:6] for line in first.lines[3:6]]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["", "2\tGo"], "standard input, line 2: expected word 1, but got '2'"),
        (["1\tGo", "Time flies"], "standard input, line 2: expected word 2, but got 'Time flies'"),
        (["# a comment", "1\t \u200b\t_"], "standard input, line 2: expected a form for word 1, but got none"),
    ],
)
def test_lines_that_are_no_sentence_are_named_and_the_next_sentence_is_read(lines: list[str], sentence: str):
    error, block = stream_sentences([*lines, "", "1\tGo"])
    assert isinstance(error, ValueError) and str(error) == sentence
    assert isinstance(block, Block) and block.words == ("Go",)
