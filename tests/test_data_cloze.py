"""Stories with a name left out, from every kind of file: what is read, how it is divided, how names become markers, and
what is refused in which words."""

import gzip
import json
import lzma
import re
from pathlib import Path

import pytest
import torch

from regard.app.data.cloze import BLANK, MARKERS, Cloze, Clozes, cloze_in, cloze_of, clozes, clozes_to_test
from regard.app.data.generators.village import village
from regard.app.text.vectors import lexicon

LINES = village(40, seed=5)
STORY = Cloze("Ida saw Ben . Then Ida left .", "soon XXXXX was missed by Ben .", ("Ben", "Ida"), "Ida")


def made(*questions: Cloze) -> Clozes:
    return Clozes(questions, lexicon(" ".join(each.words).lower() for each in questions))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.xz", "a.jsonl.gz"])
def test_a_file_is_divided(tmp_path: Path, name: str):
    content = "\n".join(LINES).encode()
    packed = {"xz": lzma.compress, "gz": gzip.compress}.get(name[-2:], bytes)(content)
    (tmp_path / name).write_bytes(packed)
    splits = clozes(tmp_path / name)
    assert [len(part) for part in splits[:3]] == [32, 4, 4]
    told = [each.story for part in splits[:3] for each in part.questions]
    assert sorted(told) == sorted(json.loads(line)["context"] for line in LINES)
    assert splits.describe.endswith("32 training, 4 validation and 4 test questions")


def test_parts_that_are_given_are_kept(tmp_path: Path):
    for name, some in (("train", LINES[:20]), ("dev", LINES[20:30]), ("test", LINES[30:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*some, " "]))
    splits = clozes(tmp_path)
    assert [len(part) for part in splits[:3]] == [20, 10, 10]
    assert splits.test.questions[0].story == json.loads(LINES[30])["context"]
    assert len(clozes_to_test(tmp_path).test) == 10
    assert len(clozes_to_test(tmp_path / "train.jsonl").test) == 20


def test_a_batch_has_the_question_behind_the_story_and_names_as_markers():
    batch = made(STORY, Cloze("a Cat", "XXXXX", ("Cat",), "Cat")).batch(torch.tensor([0, 1]))
    words = STORY.words
    assert batch["story"].tolist() == [8, 2] and batch["blank"].tolist() == [words.index(BLANK), 2]
    ben, ida = 0, 1
    wanted = [{"Ben": ben, "Ida": ida}.get(word, -1) for word in words]
    assert batch["names"].tolist() == [wanted, [-1, 0, -1] + [-1] * (len(words) - 3)]
    assert batch["answer"].tolist() == [ida, 0]
    assert bytes(batch["text"][1][batch["text"][1] > 0].tolist()) == b"a Cat XXXXX"
    assert (batch["words"] > 0).sum(1).tolist() == [len(words), 3]


def test_markers_are_drawn_anew_and_say_only_which_name_is_the_same():
    split, chance = made(STORY), torch.Generator().manual_seed(0)
    batches = [split.batch(torch.tensor([0]), chance) for _ in range(200)]
    seen = {int(batch["answer"]) for batch in batches}
    assert len(seen) > 30 and seen <= set(range(MARKERS))
    fixed = split.batch(torch.tensor([0]))["names"]
    for batch in batches:
        names = batch["names"]
        assert torch.equal(names < 0, fixed < 0)
        assert len({(int(a), int(b)) for a, b in zip(fixed[0], names[0], strict=True) if a >= 0}) == 2
        assert batch["answer"] == names[0, 0]


def test_names_without_candidates_are_words_with_a_capital_inside_a_sentence():
    assert cloze_in("There sat Ida. Then Ben came, whom Ida liked. Soon XXXXX left.").candidates == ("Ben", "Ida")
    assert cloze_in('{"context": "So Ida ran .", "question": "XXXXX ran ."}').candidates == ("Ida",)
    assert cloze_of(LINES[0], "a line").answer in cloze_of(LINES[0], "a line").candidates


def test_what_cannot_be_learned_from_is_left_out_and_counted(tmp_path: Path):
    long = {"context": "Ida " + "ran " * 2000, "question": "XXXXX .", "answer": "Ida", "candidates": ["Ida"]}
    many = {"context": " ".join(f"N{n}" for n in range(41)), "question": "XXXXX .", "answer": "N1"}
    many["candidates"] = many["context"].split()
    absent = {"context": "Ida ran .", "question": "XXXXX .", "answer": "Ben", "candidates": ["Ida", "Ben"]}
    (tmp_path / "a.jsonl").write_text("\n".join([*LINES, *map(json.dumps, (long, many, absent))]))
    said = clozes(tmp_path / "a.jsonl").describe
    assert "left out: 1 of the train questions (no answer in the story)" in said
    assert "2 of the train questions (over 2,000 words or 40 names)" in said


@pytest.mark.parametrize(("line", "said"), [
    ("{", 'a.jsonl, line 2: expected {"context": "...", "question"'),
    ('{"context": "Ida ran ."}', "line 2: expected {"),
    ('["Ida ran ."]', "line 2: expected {"),
    ('{"context": "Ida ran .", "question": 3}', "line 2: expected {"),
    ('{"context": "Ida ran .", "question": "she ran ."}', "expected XXXXX once, as a word of the question, but"),
    ('{"context": "she ran .", "question": "XXXXX ran ."}', "expected a name among the words of the story, but"),
    ('{"context": "Ida ran .", "question": "XXXXX ran .", "answer": "Ida", "candidates": 5}', "line 2: expected {"),
])  # fmt: skip
def test_bad_lines_are_named(tmp_path: Path, line: str, said: str):
    (tmp_path / "a.jsonl").write_text(f"{LINES[0]}\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        clozes(tmp_path / "a.jsonl")


def test_bad_files_are_named(tmp_path: Path):
    (tmp_path / "few.jsonl").write_text("\n".join(LINES[:5]))
    with pytest.raises(ValueError, match="expected at least 10 questions to hold a tenth out of, but has 5"):
        clozes(tmp_path / "few.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"context": "caf\xe9"}')
    with pytest.raises(ValueError, match="line 1: expected text in UTF-8, but got the byte 0xe9"):
        clozes(tmp_path / "latin.jsonl")
    for name in ("a.txt", ""):
        with pytest.raises(
            ValueError, match=r"expected to be a file \.jsonl or .*, or a folder with such a file train"
        ):
            clozes(tmp_path / name)
    (tmp_path / "train.jsonl").write_text("\n".join(LINES))
    (tmp_path / "train.jsonl.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="expected one file train, but has 2"):
        clozes(tmp_path)


@pytest.mark.unchecked
def test_a_text_without_a_blank_is_refused():
    with pytest.raises(ValueError, match=r"a text to read expected XXXXX in the place of a name, but got 'Ida ran\.'"):
        cloze_in("Ida ran.")
    with pytest.raises(ValueError, match="expected a story with a name left out, but got None"):
        cloze_in(None)
