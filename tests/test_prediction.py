"""What was trained at work: from a run alone, as inputs come, in every recipe; bad ones among them; from Python."""

import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from select import select

import pytest
from PIL import Image

import regard as rg
from regard.app import cli, prediction
from regard.app.training.errors import Failure
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.recipes.base import open_recipe

SMALL = {
    "glimpse": {"epochs": 1, "batch": 900, "hidden": 8, "glimpses": 2, "draws": 2},
    "answer": {"epochs": 1, "task": 1, "over": "softmax"},
    "parse": {"epochs": 1, "hidden": 8, "arcs": 8, "relations": 4, "over": "softmax", "batch": 300},
    "translate": {"epochs": 1, "hidden": 8, "heads": 2, "batch": 500},
}
DOCS = Path(__file__).parent.parent / "docs"
pytestmark = pytest.mark.unchecked


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each recipe."""
    folder = tmp_path_factory.mktemp("runs")
    for name, fields in SMALL.items():
        recipe = open_recipe(name)
        train(recipe, recipe.Config(**fields), folder / name, Fit(progress="none", accelerator="cpu", threads=1))
    return folder


def said(monkeypatch, capsys, words: list[str], text: str = "") -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    status = cli.main(words)
    return status, *capsys.readouterr()


def test_a_picture_that_does_not_open_is_said_and_the_others_are_answered(runs, tmp_path, monkeypatch, capsys):
    Image.new("L", (40, 30), 200).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    paths = [str(tmp_path / name) for name in ("good.png", "bad.png", "good.png")]
    status, out, error = said(monkeypatch, capsys, ["predict", str(runs / "glimpse"), *paths, "--json"])
    first, second = map(json.loads, out.splitlines())
    assert (status, first) == (1, second)
    assert first["input"] == paths[0] and first["name"] in "0123456789" and 0 < first["probability"] <= 1
    assert error.startswith(f"regard: picture {paths[1]} cannot be read") and error.count("\n") == 1


def test_conllu_keeps_all_but_the_tree(runs, monkeypatch, capsys):
    text = "# text = dont\n1-2\tdont\n1\tdo\tdo\tVERB\n2\tnot\n\n1\tGo\n"
    status, out, _ = said(monkeypatch, capsys, ["predict", str(runs / "parse")], text)
    assert status == 0
    assert [line.split("\t")[:4] for line in out.splitlines()[:3]] == [
        ["# text = dont"], ["1-2", "dont"], ["1", "do", "do", "VERB"],
    ]  # fmt: skip
    assert out.endswith("1\tGo\t_\t_\t_\t_\t0\troot\t_\t_\n\n") or "\t0\t" in out


def test_questions_are_answered_from_the_facts_before_them(runs, monkeypatch, capsys):
    text = "1 Mary went to the kitchen.\n2 Where is Mary?\n3 John went to the attic.\n4 Where is John?\n"
    status, out, _ = said(monkeypatch, capsys, ["predict", str(runs / "answer")], text)
    assert status == 0 and len(out.splitlines()) == 2


def test_a_malformed_sentence_is_said_and_the_others_are_parsed(runs, tmp_path, monkeypatch, capsys):
    text = "1\tGo\n\n1\tTime\n3\tflies\n\n1\tStop\n"
    status, out, error = said(monkeypatch, capsys, ["predict", str(runs / "parse")], text)
    assert status == 1 and [line.split("\t")[1] for line in out.splitlines() if line] == ["Go", "Stop"]
    assert error == "regard: standard input, line 4: expected word 2, but got '3'\n"
    (tmp_path / "good").write_text("1\tGo\n")
    words = ["predict", str(runs / "parse"), str(tmp_path / "absent"), str(tmp_path / "good")]
    status, out, error = said(monkeypatch, capsys, words)
    assert status == 1 and out.startswith("1\tGo\t") and "No such file or directory" in error


def test_a_question_without_a_story_is_said_and_the_others_are_answered(runs, monkeypatch, capsys):
    text = "1 Where is Mary?\n1 Mary went to the kitchen.\n2 Where is Mary?\n"
    status, out, error = said(monkeypatch, capsys, ["predict", str(runs / "answer")], text)
    assert status == 1 and len(out.splitlines()) == 1
    sentence = "expected a fact of the story before the question 'Where is Mary?'"
    assert error == f"regard: standard input, line 1: {sentence}\n"


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_is_the_same_with_the_same_data_named(name: str, runs, monkeypatch, capsys):
    data = "embedded" if name == "glimpse" else "generated"
    one, other = (said(monkeypatch, capsys, ["evaluate", str(runs / name), *more]) for more in ([], ["--data", data]))
    assert one[0] == 0 and one[1] == other[1]


@pytest.mark.parametrize("name", SMALL)
def test_a_model_needs_nothing_of_its_data(name: str, runs, monkeypatch):
    recipe = open_recipe(name)
    monkeypatch.setattr(sys.modules[f"regard.recipes.{name}"], "data", lambda config: pytest.fail("it needs no data"))
    assert prediction.load(runs / name).recipe.name == recipe.name


def test_in_python(runs):
    model = rg.load(runs / "translate")
    assert len(model.predict(["1 April 2038", ""], beam=1)) == 2
    (tree,) = rg.load(runs / "parse").predict([["Time", "flies"]])
    assert len(tree.heads) == 2
    assert rg.load(runs / "parse").predict(["# a comment\n1\tTi\u200bme\n2\tflies\n"]) == [tree]
    answering = rg.load(runs / "answer")
    facts, question = ["Mary went to the kitchen."], "Where is Mary?"
    spaced, plain = answering.predict([([" Mary went\u00a0to the kitchen.\ufeff"], question), (facts, question)])
    assert spaced == plain
    for recipe, given, sentence in (
        ("parse", "Time flies", "the text, line 1: expected word 1, but got 'Time flies'"),
        ("parse", "1\tGo\n\n1\tGo\n", "expected one sentence in CoNLL-U, but got 2"),
        ("parse", [], "expected the words of a sentence, but got []"),
        ("answer", "Where is Mary?", "expected a list of facts and a question, but got 'Where is Mary?'"),
        ("answer", ([], question), "expected a fact at least and a question, but got ([], 'Where is Mary?')"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            rg.load(runs / recipe).predict([given])
    with pytest.raises(ValueError, match="predict expected a list of inputs, but got 'ein Haus'"):
        model.predict("ein Haus")
    with pytest.raises(ValueError, match="--beam expected at least 1, but got 0"):
        model.predict([], beam=0)
    with pytest.raises(ValueError, match=r"cannot be asked so: .*'width'"):
        model.predict([], width=2)


def test_the_first_answers_come_before_all_is_read(runs):
    command = [sys.executable, "-m", "regard", "predict", str(runs / "translate"), "--batch", "2", "--beam", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=os.environ) as process:
        process.stdin.write("1 April 2038\n" * 2)  # a batch, and the pipe stays open
        process.stdin.flush()
        answered, _, _ = select([process.stdout], [], [], 100)
        assert answered and process.stdout.readline().strip()
        process.stdin.write("2 May 2038\n")
        process.stdin.close()
        assert len(process.stdout.readlines()) == 2


def test_a_recipe_without_predictions_says_so():
    import tiny_recipe

    recipe = open_recipe(tiny_recipe)
    asked = {"inputs": lambda: recipe.inputs([], io.BytesIO()), "predict": lambda: recipe.predict(None, [], None)}
    for name, ask in asked.items():
        with pytest.raises(Failure, match=f"^the recipe tiny_recipe makes no predictions: it has no {name}.$"):
            ask()


MINE = """'''Tells nothing.'''
print("it runs")
Config = Model = data = loss = evaluate = METRIC = None
"""


def test_a_folder_cannot_say_what_code_is_run(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "config.yaml").write_text(f"recipe: {tmp_path}/mine.py\nepochs: 1\n")
    with pytest.raises(Failure, match="what a folder says is never run: say yourself which file it is, by --recipe"):
        prediction.load(tmp_path)
    assert capsys.readouterr().out == ""
    assert open_recipe(tmp_path / "mine.py").about == "Tells nothing."
    assert capsys.readouterr().out == "it runs\n"


def test_a_file_that_is_no_recipe_is_told_what_it_lacks(tmp_path):
    (tmp_path / "mine.py").write_text("Config = 1")
    with pytest.raises(ValueError, match=r"mine.py is no recipe, as it lacks Model, METRIC, data, loss, evaluate"):
        open_recipe(tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a\x1b[31m"])
def test_a_name_stays_in_runs(name: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, error = said(monkeypatch, capsys, ["train", "answer", "--name", name])
    assert status == 2 and "--name expected the name of a folder in runs/" in error and "\x1b" not in error
    assert list(tmp_path.iterdir()) == []


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize("text", ["root:x:0:0:secret", "- secret", BOMB, "secret: [3"])
def test_a_file_of_options_that_is_none_is_not_told(text: str, tmp_path, monkeypatch, capsys):
    (tmp_path / "other.yaml").write_text(text)
    status, _, error = said(monkeypatch, capsys, ["train", "answer", "--config", str(tmp_path / "other.yaml")])
    assert status == 2 and "--config expected YAML of names and values" in error and "secret" not in error


def test_weights_that_are_not_there_are_told_where_to_find(monkeypatch, capsys):
    status, _, error = said(monkeypatch, capsys, ["evaluate", "weights/nothing.safetensors"])
    assert status == 2 and error.startswith("regard: there are no weights weights/nothing.safetensors: give the path")


def test_many_files_are_answered_once_each_and_in_parts(runs, tmp_path, monkeypatch, capsys):
    for n in range(5):
        (tmp_path / str(n)).mkdir()
        Image.new("L", (40, 30), 50 * n).save(tmp_path / str(n) / "same name.png")
    (tmp_path / "bad.png").write_text("no picture")
    paths = [str(tmp_path / str(n) / "same name.png") for n in range(5)] + [str(tmp_path / "bad.png")]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    words = ["predict", str(runs / "glimpse"), "--list", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out")]
    status, out, error = said(monkeypatch, capsys, [*words, "--part", "2/3"])
    assert (status, error) == (0, "") and len(out.splitlines()) == 2
    found = [json.loads(Path(line).read_text())["input"] for line in out.splitlines()]
    assert found == [paths[1], paths[4]]
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    status, out, error = said(monkeypatch, capsys, words)
    assert status == 1 and len(out.splitlines()) == 3 and "bad.png cannot be read" in error
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())
    status, out, error = said(monkeypatch, capsys, words)
    assert status == 1 and out == ""


@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed, 80 MB that nothing else needs: pip install ray")
def test_a_pool_of_ray_gives_the_same_answers(runs, tmp_path, monkeypatch, capsys):
    for number in range(3):
        Image.new("L", (60, 60), 80 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    paths = [str(tmp_path / name) for name in ("0.png", "1.png", "torn.png", "2.png")]
    (tmp_path / "list").write_text("\n".join(paths))
    said(monkeypatch, capsys, ["predict", str(runs / "glimpse"), *paths[:2], "--out", str(tmp_path / "wanted")])
    said(monkeypatch, capsys, ["predict", str(runs / "glimpse"), paths[3], "--out", str(tmp_path / "wanted")])

    def pooled() -> list[str]:
        words = [DOCS / "predict_with_ray.py", runs / "glimpse", tmp_path / "list", tmp_path / "found"]
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300, check=True
        )
        return sorted(done.stdout.splitlines())

    first, wanted = pooled(), {file.name: file.read_text() for file in (tmp_path / "wanted").iterdir()}
    assert len(first) == 4 and sum("torn.png" in line for line in first) == 1
    assert {file.name: file.read_text() for file in (tmp_path / "found").iterdir()} == wanted and len(wanted) == 3
    (again,) = pooled()
    assert "torn.png" in again


@pytest.mark.parametrize(("words", "expected"), [
    (["--part", "0/3"], "argument --part: expected I/N with I from 1 to N, such as 2/8, but got '0/3'"),
    (["--part", "4/3"], "expected I/N with I from 1 to N"),
    (["--part", "half"], "expected I/N with I from 1 to N"),
    (["--list", "list.txt", "a.png"], "--list expected no other inputs beside it, but got a.png"),
])  # fmt: skip
def test_bad_lists_and_parts(runs, monkeypatch, capsys, words: list[str], expected: str):
    status, _, error = said(monkeypatch, capsys, ["predict", str(runs / "glimpse"), *words])
    assert status == 2 and expected in error


def test_a_list_that_is_not_there(runs, monkeypatch, capsys):
    status, _, error = said(monkeypatch, capsys, ["predict", str(runs / "glimpse"), "--list", "/nowhere/list.txt"])
    assert status == 1 and "/nowhere/list.txt" in error


def test_what_has_no_name_cannot_be_kept(runs, tmp_path, monkeypatch, capsys):
    words = ["predict", str(runs / "parse"), "--out", str(tmp_path / "out")]
    status, _, error = said(monkeypatch, capsys, words, "1\tGo\n\n")
    assert status == 1 and "--out expected inputs that are paths or lines of text" in error


def test_lines_of_text_are_kept(runs, tmp_path, monkeypatch, capsys):
    words = ["predict", str(runs / "translate"), "--out", str(tmp_path / "out")]
    status, out, _ = said(monkeypatch, capsys, words, "ein Haus\nzwei / drei\n")
    assert status == 0 and [json.loads(Path(line).read_text())["input"] for line in out.splitlines()] == [
        "ein Haus", "zwei / drei",
    ]  # fmt: skip
