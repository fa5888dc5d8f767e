"""Questions about stories: what is read from bAbI's files, what is generated, and what a batch holds."""

import io
import tarfile
from pathlib import Path

import pytest
import torch

from regard.app.data import Question, Stories, babi, questions, questions_to_test
from regard.app.data.generators.stories import generated

LINES = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary took the milk there.
5 Where is the milk?\tbathroom\t4 1
1 Ann slept.
2 Who slept? \tnobody,ann\t1
"""


def fill(folder: Path, count: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        (folder / f"qa2_two-supporting-facts_{part}.txt").write_text(LINES * count)
    return folder


def test_a_question_knows_the_facts_before_it_and_how_long_ago_each_is():
    first, second, third = babi.read(LINES.splitlines(), "the lines")
    assert first.text == "Where is Mary?" and first.answer == "bathroom"
    assert first.facts == ("Mary moved to the bathroom.", "John went to the hallway.")
    assert first.supporting == (1,), "one fact came after it"
    assert second.supporting == (0, 2), "in the order of the reasoning; questions are no facts"
    assert third == Question(("Ann slept.",), "Who slept?", "nobody,ann", (0,))


def test_a_batch_has_the_latest_fact_last():
    words = ("ann", "bathroom", "john", "mary", "moved", "slept", "the", "to", "went", "where", "is", "who")
    split = Stories(babi.read(LINES.splitlines(), "the lines"), words, ("bathroom",))
    assert len(split) == 3 and split.words == words
    batch = split.batch(torch.tensor([0, 1, 2]))
    assert batch["facts"].shape == (3, 3, 5)
    assert batch["facts"][0].tolist() == [[0] * 5, [4, 5, 8, 7, 2], [3, 9, 8, 7, 0]], "hallway is unknown"
    assert batch["facts"][2].tolist() == [[0] * 5, [0] * 5, [1, 6, 0, 0, 0]]
    assert batch["question"].tolist() == [[10, 11, 4, 0], [10, 11, 7, 0], [12, 6, 0, 0]]
    assert batch["label"].tolist() == [0, 0, -1], "an answer that training has not"
    assert batch["supporting"].tolist() == [[1, -1], [0, 2], [0, -1]]
    alone = split.batch(torch.tensor([2]))
    assert alone["facts"].shape == (1, 1, 5), "no longer than the longest story of the batch"
    assert torch.equal(alone["facts"], batch["facts"][2:, -1:])


@pytest.mark.parametrize("below", [".", "en"])
def test_a_folder_of_files(below: str, tmp_path: Path):
    fill(tmp_path / below)
    splits = questions(tmp_path, task=2)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (27, 3, 30)
    assert splits.describe == f"bAbI, task 2 of {tmp_path}: 27 training, 3 validation and 30 test questions"
    assert splits.classes == ("bathroom", "nobody,ann")
    assert {"nobody,ann", "bathroom", "mary"} < set(splits.train.words), "answers have vectors too"
    assert splits.train.words == splits.valid.words == splits.test.words


def test_the_archive_is_read_without_being_unpacked(tmp_path: Path):
    with tarfile.open(tmp_path / "tasks.tar.xz", "w:xz") as files:
        for folder, text in (("hn", "2 nothing"), ("en", LINES * 4)):
            for part in ("train", "test"):
                member = tarfile.TarInfo(f"./{folder}/qa2_two-supporting-facts_{part}.txt")
                member.size = len(text)
                files.addfile(member, io.BytesIO(text.encode()))
    splits = questions(tmp_path, task=2)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (11, 1, 12)


def test_fewer_than_ten_questions(tmp_path: Path):
    with pytest.raises(ValueError, match="has 9 training questions; expected ten, as a tenth is for validation"):
        questions(fill(tmp_path, 3), task=2)


def same(text: str) -> bytes:
    """The text as it looks, otherwise written."""
    return ("\ufeff" + text.replace(" the ", "\u00a0 the\u2003").replace("Ann ", "A\u200bnn ")).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_stories_are_the_same_however_their_text_is_written(end: str, tmp_path: Path):
    for folder, text in (("one", LINES.encode()), ("other", same(LINES).replace(b"\n", end.encode()))):
        for part in ("train", "test"):
            (fill(tmp_path / folder) / f"qa2_two-supporting-facts_{part}.txt").write_bytes((text + b"\n") * 10)
    one, other = (questions(tmp_path / folder, task=2) for folder in ("one", "other"))
    assert one.train.words == other.train.words and one.classes == other.classes
    assert torch.equal(one.test.facts, other.test.facts) and torch.equal(one.test.questions, other.test.questions)


def test_what_is_too_long_is_left_out_and_said(tmp_path: Path):
    fill(tmp_path)
    facts = "".join(f"{n} Ann slept.\n" for n in range(1, 30_000))
    wide = f"1 Ann slept{' and slept' * 20_000}.\n2 Who slept?\tann\t1\n"
    for part, text in (("train", f"{facts}30000 Who slept?\tann\t1\n"), ("test", wide)):
        with open(tmp_path / f"qa2_two-supporting-facts_{part}.txt", "a") as file:
            file.write(text)
    splits = questions(tmp_path, task=2)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (27, 3, 30)
    remark = "; left out: 1 of the training questions (over 500 facts), 1 of the test questions (over 100 words)"
    assert splits.describe.endswith(f": 27 training, 3 validation and 30 test questions{remark}")
    (tmp_path / "qa2_two-supporting-facts_test.txt").write_text(wide)
    with pytest.raises(
        ValueError, match=r"test\.txt holds no question about at most 500 facts of at most 100 words each$"
    ):
        questions(tmp_path, task=2)


def test_the_test_part_alone_needs_no_other(tmp_path: Path):
    whole = questions(fill(tmp_path), task=2)
    (tmp_path / "qa2_two-supporting-facts_train.txt").unlink()
    alone = questions_to_test(tmp_path, 2, whole.train.words, whole.classes)
    assert alone.describe == f"bAbI, task 2 of {tmp_path}: 30 test questions" and alone.classes == whole.classes
    assert (len(alone.train), len(alone.valid)) == (0, 0)
    one, other = (splits.test.batch(torch.arange(30)) for splits in (whole, alone))
    assert all(torch.equal(one[key], other[key]) for key in one)
    words = ("anna", "went", "kitchen")
    alone = questions_to_test("generated", 1, words, words)
    assert torch.equal(alone.test.facts, Stories(generated(1, 1000, seed=1), words, words).facts)


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08", b"\xfd7zXZ\0\0"])
def test_a_damaged_archive_is_named(data: bytes, tmp_path: Path):
    (tmp_path / "tasks.tar.gz").write_bytes(data)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/tasks\.tar\.gz is not a whole tar archive: "):
        questions(tmp_path, task=2)


def test_another_encoding_is_named_with_its_line(tmp_path: Path):
    file = fill(tmp_path) / "qa2_two-supporting-facts_train.txt"
    file.write_bytes("1 Ann slept.\n2 Zoë slept.".encode("latin-1"))
    with pytest.raises(ValueError, match=rf"^{file}, line 2: expected text in UTF-8, but got the byte 0xeb$"):
        questions(tmp_path, task=2)


@pytest.mark.parametrize("folder", [".", "absent"])
def test_a_folder_without_the_task(folder: str, tmp_path: Path):
    fill(tmp_path)
    with pytest.raises(ValueError, match=r"bAbI file qa1_\*_train.txt is not in .*, nor in its subfolder en"):
        questions(tmp_path / folder, task=1)


@pytest.mark.parametrize(
    "line", ["hello", "x Mary slept.", "2 Who?\tMary", "2 Who?\tMary\t7", "2 Who?\tMary\tx", "2 Who?\tMary\t"]
)
def test_a_line_that_is_not_babi_s(line: str):
    with pytest.raises(ValueError, match=r"^f\.txt is not a file of bAbI: line 2 is "):
        babi.read(["1 Mary slept.", line], "f.txt")


def test_a_file_without_questions():
    with pytest.raises(ValueError, match=r"^f\.txt holds no questions$"):
        babi.read(["1 Mary slept."], "f.txt")


def answer(question: Question, task: int) -> str:
    """Where it is, by the supporting facts alone."""
    facts = [question.facts[-1 - ago] for ago in question.supporting]
    return babi.split(facts[-1])[-1]


@pytest.mark.parametrize(("task", "needed"), [(1, 1), (2, 2)])
def test_generated_questions_follow_from_their_supporting_facts(task: int, needed: int):
    for question in generated(task, 200, seed=3):
        assert len(question.supporting) == needed
        assert answer(question, task) == question.answer
        about = babi.split(question.text)[-1]
        first = babi.split(question.facts[-1 - question.supporting[0]])
        assert about in first, "the first fact is about what is asked"
        if task == 2:
            assert first[0] == babi.split(question.facts[-1 - question.supporting[1]])[0], (
                "and the second about who had it"
            )


def test_generated_supporting_facts_are_the_latest_that_matter():
    for question in generated(2, 200, seed=4):
        handled, walked = (len(question.facts) - 1 - ago for ago in question.supporting)
        thing, person = babi.split(question.text)[-1], babi.split(question.facts[handled])[0]
        later = [babi.split(fact) for fact in question.facts[handled + 1 :]]
        assert not any(fact[-1] == thing for fact in later), "nobody has touched it since"
        end = len(question.facts) if "took" in question.facts[handled] else handled
        between = [babi.split(fact) for fact in question.facts[walked + 1 : end]]
        assert not any(fact[0] == person and "to" in fact for fact in between)


def test_generated_stories_are_repeated_by_their_seed_alone():
    one, same, other = (generated(2, 20, seed) for seed in (0, 0, 1))
    assert one == same != other
    splits = questions("generated", task=2)
    assert splits.describe.startswith("stories generated in the manner of bAbI's task 2: 900 training, 100 validation")
    assert not {tuple(row.flatten().tolist()) for row in splits.train.facts} & {
        tuple(row.flatten().tolist()) for row in splits.test.facts
    }


def test_other_tasks_are_not_generated():
    with pytest.raises(ValueError, match=r"^--task expected 1 or 2 for generated stories, but got 3; --data DIR names"):
        questions("generated", task=3)


@pytest.mark.unchecked
@pytest.mark.parametrize(("task", "needed", "answers"), [(1, 1, 6), (3, 3, 6), (16, 3, 4), (19, 2, 12)])
def test_the_real_tasks(task: int, needed: int, answers: int, data_dir: Path):
    splits = questions(data_dir / "babi", task)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (900, 100, 1000)
    assert splits.train.supporting.shape[-1] == needed and len(splits.classes) == answers
    for split in splits[:3]:
        assert (split.labels >= 0).all() and (split.supporting >= 0).all()
        present = (split.facts > 0).any(-1).sum(-1)
        assert (split.supporting < present[:, None]).all()


def test_questions_are_streamed_with_or_without_the_numbers_and_answers_of_babi():
    lines = iter(["Mary moved to the\u00a0 bathroom.", "Where is Mary?", *LINES.splitlines()[:3], "", "unread"])
    stream = babi.stream_stories(lines)
    first, second = next(stream), next(stream)
    assert first == Question(("Mary moved to the bathroom.",), "Where is Mary?", "", ())
    assert second.facts == ("Mary moved to the bathroom.", "John went to the hallway."), "1 begins another story"
    assert list(lines) == ["", "unread"]
    batch = Stories([first], ("mary", "where"), ("bathroom",)).batch(torch.tensor([0]))
    assert batch["label"].tolist() == [-1] and batch["supporting"].shape == (1, 0)


def test_a_story_ends_with_an_empty_line():
    (second,) = babi.stream_stories(["Mary slept.", " ", "Ann ran.", "Who?"])
    assert isinstance(second, Question) and second.facts == ("Ann ran.",)


def test_a_question_about_nothing_is_refused_and_the_next_story_is_read():
    error, question = babi.stream_stories(["Mary slept.", "", "Who?", "", "Ann ran.", "Who?"], "x")
    assert isinstance(error, ValueError) and isinstance(question, Question) and question.facts == ("Ann ran.",)
    assert str(error) == "x, line 3: expected a fact of the story before the question 'Who?'"
