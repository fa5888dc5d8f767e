"""Translators as commands: runs at work, what is decoded, evaluated and looked at, and what is refused."""

import html
import io
import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import contents
from tiny_translate import QUIET, SMALL, attentions, made, made_of, trained
from torch import Tensor

from regard.app import cli
from regard.app.data.generators.dates import dates
from regard.app.prediction import load
from regard.app.report import looking
from regard.app.report.glances import read_learning
from regard.app.text import networks as seq2seq
from regard.app.text.translating import translated
from regard.app.training import loop as training
from regard.app.training import workers
from regard.app.training.errors import Failure, Interrupted
from regard.app.training.evaluation import averages, batches_of, evaluate, results
from regard.app.training.metrics import read_metrics
from regard.app.training.run import open_run
from regard.app.training.weights import read_weights
from regard.recipes import translate
from regard.recipes.translate import Config, Model


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and few dates to train on."""
    monkeypatch.setattr("regard.app.data.pairs.COUNTS", (64, 16, 16))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interrupted(patch: pytest.MonkeyPatch, run: Path, config: Config, step: int) -> None:
    """Trains until a real signal arrives in the middle of a step."""
    loss, steps = translate.loss, []

    def loss_and_send(model, pairs):
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(model, pairs)

    patch.setattr(translate, "loss", loss_and_send)
    with pytest.raises(Interrupted):
        trained(run, config)
    patch.setattr(translate, "loss", loss)


@pytest.mark.unchecked
@pytest.mark.parametrize("attention", ["hard", "self"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(attention: str, few: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(SMALL, attention=attention)
    whole = trained(few / "whole", config)
    interrupted(monkeypatch, few / "run", config, step=6)  # of eight
    assert contents(trained(few / "run", config)) == contents(whole)


@pytest.mark.unchecked
def test_training_stops_when_patience_ends_and_keeps_the_best(few: Path, monkeypatch: pytest.MonkeyPatch):
    scores = iter([10.0, 30.0, 20.0, 25.0, 40.0])
    monkeypatch.setattr(translate, "conclude", lambda sums: {"bleu": next(scores)})
    best = training.train(translate, replace(SMALL, epochs=9, patience=2), few / "run", QUIET)
    assert best["epoch"] == 2 and len(read_metrics(few / "run")) == 4
    before = contents(few / "run")
    assert training.train(translate, replace(SMALL, epochs=9, patience=2), few / "run", QUIET) == best
    assert contents(few / "run") == before, "and is over"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sentences: dates as words."""
    folder = tmp_path_factory.mktemp("sentences")
    for part, count in (("train", 64), ("val", 8), ("test", 8)):
        for language, texts in zip(("de", "en"), dates(count, seed=count), strict=True):
            (folder / f"{part}.{language}").write_text("\n".join(texts) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on these sentences, of a few steps."""
    return trained(tmp_path_factory.mktemp("runs") / "additive", replace(SMALL, data=str(files), subwords=80))


def spoken(monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], text: bytes) -> tuple[int, str, str]:
    """The status, standard output and standard error of a command that is told this on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    status = cli.main(words)
    return status, *capsys.readouterr()


LINES = ["1 April 2038", "", "Thursday, 日本 1", "on " * 100, "   ", "2nd"]


@pytest.mark.unchecked
@pytest.mark.parametrize("beam", ["1", "3"])
def test_lines_are_translated_in_their_order_without_the_data(beam: str, run: Path, monkeypatch, capsys):
    monkeypatch.setattr(translate, "data", lambda config: pytest.fail("it needs no data"))
    words = ["predict", str(run), "--beam", beam]
    status, out, _ = spoken(monkeypatch, capsys, words, "\n".join(LINES).encode())
    found = out.removesuffix("\n").split("\n")
    assert status == 0 and len(found) == len(LINES)
    assert found[1] == found[4] == "" and all(found[n] for n in (0, 2, 3, 5))
    for line, wanted in zip(LINES, found, strict=True):
        assert spoken(monkeypatch, capsys, words, line.encode())[1].removesuffix("\n") == wanted


@pytest.mark.unchecked
def test_nothing_is_translated_as_nothing(run: Path, monkeypatch, capsys):
    assert spoken(monkeypatch, capsys, ["predict", str(run)], b"") == (0, "", "")


@pytest.mark.unchecked
def test_a_run_is_evaluated_and_looked_at(run: Path, few: Path, monkeypatch, capsys):
    status, out, _ = spoken(monkeypatch, capsys, ["evaluate", str(run), "--json"], b"")
    assert status == 0 and {"test_bleu", "test_perplexity", "test_error"} <= set(json.loads(out))
    (few / "run").mkdir()
    for name in ("config.yaml", "model.safetensors", "metrics.csv"):
        (few / "run" / name).write_bytes((run / name).read_bytes())
    status, out, _ = spoken(monkeypatch, capsys, ["look", "run"], b"")
    assert status == 0 and out.split()[-1] == "run/report.html" and len(out.split()) == 1 + 8


@attentions
def test_any_sentence_is_translated_by_any_attention(attention: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seq2seq, "PLACES", 40)
    model = made(attention).eval()
    found = translated(model, ["x" * 50, "", "日", "1 April 2038"], beam=1)
    assert found[1] == "" and len(found) == 4
    assert translated(model, ["1 April 2038"], beam=1) == found[3:]


def refused(monkeypatch, capsys, words: list[str], sentence: str, status: int = 1, text: bytes = b"") -> None:
    found, out, error = spoken(monkeypatch, capsys, words, text)
    assert (found, out, error) == (status, "", f"regard: {sentence}\n")


@pytest.mark.unchecked
class TestRefused:
    def test_text_in_another_encoding(self, run: Path, monkeypatch, capsys):
        status, out, error = spoken(monkeypatch, capsys, ["predict", str(run)], "ja\nfür".encode("latin-1"))
        assert error == "regard: standard input, line 2: expected text in UTF-8, but got the byte 0xfc\n"
        assert status == 1 and out.count("\n") == 1  # the line before is answered

    def test_a_beam_of_none(self, run: Path, monkeypatch, capsys):
        refused(monkeypatch, capsys, ["predict", str(run), "--beam", "0"], "--beam expected at least 1, but got 0", 2)

    def test_a_run_that_is_not_there(self, few: Path, monkeypatch, capsys):
        found, _, error = spoken(monkeypatch, capsys, ["predict", "nowhere"], b"")
        assert found == 2 and error.startswith("regard: unknown run 'nowhere'")

    def test_a_run_of_another_recipe(self, run: Path, monkeypatch, capsys):
        sentence = f"{run} is a run of the recipe 'translate', not of parse."
        refused(monkeypatch, capsys, ["predict", str(run), "--recipe", "parse"], sentence)

    def test_a_run_without_weights(self, few: Path, monkeypatch, capsys):
        (few / "run").mkdir()
        (few / "run" / "config.yaml").write_text("recipe: translate\n")
        sentence = "run has no model.safetensors yet: its first epoch has not ended."
        refused(monkeypatch, capsys, ["predict", "run"], sentence)

    def damaged(self, run: Path, folder: Path, **changes: Tensor | None) -> None:
        from safetensors.torch import save_file

        weights = read_weights(run) | changes
        (folder / "run").mkdir()
        (folder / "run" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
        save_file(
            {name: value for name, value in weights.items() if value is not None}, folder / "run/model.safetensors"
        )

    def test_weights_without_a_vocabulary(self, run: Path, few: Path, monkeypatch, capsys):
        self.damaged(run, few, spelling=None)
        sentence = "the weights have no vocabulary, which those of a translator come with."
        refused(monkeypatch, capsys, ["predict", "run"], sentence)

    def test_a_damaged_vocabulary(self, run: Path, few: Path, monkeypatch, capsys):
        self.damaged(run, few, spelling=torch.tensor([255, 0], dtype=torch.uint8))
        found, _, error = spoken(monkeypatch, capsys, ["predict", "run"], b"")
        assert found == 1 and error.startswith("regard: the vocabulary of the run is damaged: ")
        assert error.count("\n") == 1

    def test_weights_of_another_size(self, run: Path, few: Path, monkeypatch, capsys):
        self.damaged(run, few, bias=torch.zeros(3))
        found, _, error = spoken(monkeypatch, capsys, ["predict", "run"], b"")
        assert found == 1 and error.startswith("regard: run/model.safetensors cannot be loaded: ")
        assert error.count("\n") == 1

    def test_a_run_trained_with_another_attention(self, run: Path, files: Path, few: Path, monkeypatch, capsys):
        shutil.copytree(run, few / "runs" / "translate" / "mine")
        before = contents(run)
        words = ["train", "translate", "--config", str(run / "config.yaml"), "--attention", "dot", "--name", "mine"]
        sentence = (
            "runs/translate/mine exists already, and with another configuration (attention is additive there and dot "
            "here): give another name."
        )
        refused(monkeypatch, capsys, words, sentence)
        assert contents(few / "runs" / "translate" / "mine") == before

    @pytest.mark.parametrize(
        ("flags", "sentence", "status"),
        [
            (["--target", "fr"], "the language 'fr' is not in {files}: there are de, en", 1),
            (["--data", "nowhere"], "data folder nowhere does not exist; expected 'generated' or a folder of sentence "
             "pairs", 1),
            (["--hidden", "15"], "--hidden expected a multiple of 2 and of --heads 4, but got 15", 2),
            (["--draws", "1"], "--draws expected at least 2, as draws are compared, but got 1", 2),
            (["--dropout", "1"], "--dropout expected a share from 0 up to 1, but got 1.0", 2),
            (["--learning_rate", ".nan"], "--learning_rate expected a number above zero, but got nan", 2),
            (["--learning_rate", "0"], "--learning_rate expected a number above zero, but got 0.0", 2),
            (["--patience", "0"], "--patience expected at least 1, but got 0", 2),
            (["--subwords", "4"], "--subwords expected at least 5, but got 4", 2),
        ],
    )  # fmt: skip
    def test_flags(self, flags: list[str], sentence: str, status: int, files: Path, few: Path, monkeypatch, capsys):
        words = ["train", "translate", "--data", str(files), "--progress", "none", *flags]
        refused(monkeypatch, capsys, words, sentence.format(files=files), status)


@pytest.mark.unchecked
def test_a_run_goes_on_in_its_own_vocabulary_where_the_sentences_have_changed(files: Path, few: Path):
    (few / "data").mkdir()
    for file in files.iterdir():
        (few / "data" / file.name).write_bytes(file.read_bytes())
    config = replace(SMALL, data=str(few / "data"), subwords=80, epochs=1)
    before = read_weights(trained(few / "run", config))
    (few / "data" / "train.de").write_text("anders\n" * 64)
    after = read_weights(trained(few / "run", replace(config, epochs=3)))
    assert len(read_metrics(few / "run")) == 3 and torch.equal(before["spelling"], after["spelling"])


def test_weights_of_a_foreign_vocabulary_are_refused(run: Path):
    with pytest.raises(Failure, match="the vocabulary of the data is not that of the run, which was trained on other"):
        made("additive").load_state_dict(read_weights(run))


def test_other_sentences_are_evaluated_in_the_vocabulary_of_the_run(files: Path, run: Path, tmp_path: Path):
    for file in files.iterdir():
        text = file.read_text() if file.name.startswith("test") else "ganz andere Worte\n" * 9
        (tmp_path / file.name).write_text(text)
    ours, same = (evaluate(run, data=str(folder)) for folder in (tmp_path, files))
    assert ours == pytest.approx(same)


def test_bleu_of_a_split_is_that_of_its_greedy_translations(run: Path, monkeypatch: pytest.MonkeyPatch):
    from sacrebleu.metrics.bleu import BLEU

    opened = open_run(run)
    _, _, splits, model = opened
    nearly = [numbers[1:-1] if n % 3 else numbers[:-1] for n, numbers in enumerate(splits.train.target)]
    order = torch.cat([batch.indices for batch in batches_of(opened, splits.train)]).tolist()
    assert order != sorted(order) == list(range(64)), "a split is evaluated by length"
    words = iter(2 * [nearly[n] for n in order])
    monkeypatch.setattr(Model, "greedy", lambda model, source: [next(words) for _ in source])
    means = averages(opened, splits.train)
    found = [model.vocabulary.decode(numbers.tolist()) for numbers in nearly]
    theirs = BLEU(tokenize="13a").corpus_score(found, [splits.train.targets])
    assert means["bleu"] == pytest.approx(theirs.score, abs=1e-9) and 0 < theirs.score < 100
    assert means["error"] == sum(n % 3 > 0 for n in range(64)) / 64
    assert means["perplexity"] == pytest.approx(torch.tensor(means["loss"]).exp().item())
    for indices, values in results(opened, splits.train):
        assert values["error"].tolist() == [float(n % 3 > 0) for n in indices.tolist()]


def test_what_bleu_counts(run: Path):
    model = load(run).network
    assert translate.spaced(model, "a dog, it's.") == ["a", "dog", ",", "it's", "."]
    model.tokenised = True
    assert translate.spaced(model, "a dog , it 's .") == ["a", "dog", ",", "it", "'s", "."]
    assert translate.spaced(made("dot"), "1-2") == ["1", "-", "2"]


@pytest.mark.unchecked
def test_a_run_shows_how_it_learned_where_to_look(run: Path, few: Path, capsys):
    found = read_learning(run)
    assert list(found) == [1, 2] and "".join(found[1].source).startswith(dates(8, seed=8)[0][0].split()[0])
    assert not torch.equal(found[1].weights, found[2].weights)
    assert len(looking.show(run, few)) == 8 + 2 and (few / "pictures" / "learning.png").exists()
    assert "How it learned where to look" in (few / "report.html").read_text()


class TestTextOfTheCommandLine:
    """`regard look RUN --text SENTENCE`."""

    def test_it_is_translated_and_drawn_without_the_data(self, run: Path, monkeypatch, capsys):
        monkeypatch.setattr(translate, "data", lambda config: pytest.fail("it needs no data"))
        assert cli.main(["look", str(run), "--text", "the 5th of May 日"]) == 0
        drawn, page = map(Path, capsys.readouterr().out.splitlines())
        assert drawn.read_bytes()[1:4] == b"PNG" and {drawn.parent, page.parent} == {run / "text"}
        text = page.read_text()
        (found,) = translated(load(run).network, ["the 5th of May 日"], beam=1)
        assert f"Translated as “{found}”." in html.unescape(text) and "the data have" not in text
        headings = re.findall(r'<th scope="col"><label><input [^>]*><span>(.*?)</span>', text)
        assert headings == ["the", "5th", "of", "May", "&lt;unknown&gt;", "&lt;end&gt;"]

    @pytest.mark.unchecked
    @pytest.mark.parametrize("words", [["--text", " "], ["--text", ""], ["--text", "rot", "--data", "generated"]])
    def test_it_must_be_a_sentence_alone(self, words: list[str], run: Path, capsys):
        assert cli.main(["look", str(run), *words]) == 2
        sentence = f"regard: --text expected a sentence and no --data beside it, but got {words[1]!r}\n"
        assert capsys.readouterr().err == sentence


class TestComparison:
    """`regard compare translate --attentions ...`."""

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        """An empty current directory; what is trained is trained in this process, and what is timed, briefly."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(translate, "data", lambda config: made_of(24))
        monkeypatch.setattr(looking, "SHOWN", 2)
        monkeypatch.setattr(looking, "WORST", 2)

        def train_here(runs, processes, log, recipe):
            for run in runs:
                workers._train(recipe, run, lambda fraction, logs: None)

        monkeypatch.setattr(workers, "train_all", train_here)

    @pytest.mark.unchecked
    def test_one_table_and_one_report(self, capsys):
        words = ["--attentions", "hard,none,hard", "--hidden", "16", "--epochs", "1", "--batch", "12", "--json"]
        assert cli.main(["compare", "translate", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [row["model"] for row in found["rows"]] == ["hard", "none"]
        assert all(row["test_bleu"] >= 0 and row["test_perplexity"] > 1 for row in found["rows"])
        page = Path(found["report"]).read_text()
        for heading in (
            "Where hard looked",
            "Where none looked",
            "Where hard failed most",
            "How it learned where to look",
            "sentences/s",
            "for each sentence",
        ):
            assert heading in page
        figures = page.count('<figure class="matrix"')
        assert figures == 9, "two sentences that are seen, two that are wrong, of two, and where hard learned to look"

    @pytest.mark.unchecked
    def test_there_must_be_such_an_attention(self, capsys):
        assert cli.main(["compare", "translate", "--attentions", "none,entmaxx"]) == 2
        assert capsys.readouterr().err == "regard: unknown attention 'entmaxx': did you mean 'entmax'?\n"
