"""The recipe rationale: that nothing but the chosen words reaches the answer, that the words of opinion are found in
seconds, by each way of choosing; data in every form from the command line, and bad input by name."""

import json
import lzma
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import contents
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.compare import costs
from regard.app.data.generators.reviews import reviews
from regard.app.text import choosing
from regard.app.training.errors import Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.metrics import read_metrics
from regard.recipes import rationale
from regard.recipes.base import open_recipe
from regard.recipes.rationale import Config

LEARNED = [("segments", "hard"), ("segments", "mean"), ("subset", "hard"), ("subset", "mean"), ("sigmoid", "hard"),
           ("sigmoid", "mean"), ("sigmoid", "relaxed")]  # fmt: skip
EVERY = [*LEARNED, ("random", "hard"), ("all", "hard")]
SMALL = Config(size=8, units=6, draws=3, epochs=1, soft=0.0, stay=1.0)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")
every, learned = pytest.mark.parametrize(("over", "read"), EVERY), pytest.mark.parametrize(("over", "read"), LEARNED)


def made(**settings) -> tuple[rationale.Model, dict[str, Tensor]]:
    """A model and a batch of four reviews."""
    config = replace(SMALL, **settings)
    splits = rationale.data(config)
    return rationale.Model(config, splits), splits.train.batch(torch.arange(4))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the generated reviews."""
    folder = tmp_path_factory.mktemp("rationale") / "run"
    train(rationale, Config(size=16, units=16, draws=4, epochs=2, soft=0.5, stay=2.0), folder, QUIET)
    return folder


@pytest.mark.parametrize("over", [over for over, _ in EVERY if over != "all"])
def test_words_that_are_not_read_change_no_bit(over: str):
    """Any word may stand where none is read; where one is read, another word changes the answer."""
    model, batch = made(over=over)
    output = model.eval()(batch)
    read = output.chosen[:, 0] > 0
    assert 0.1 < float(read.sum() / (batch["words"] > 0).sum()) <= 0.15
    others = torch.randint(4, len(model.lexicon.vocabulary.words), read.shape)
    elsewhere, instead = batch["words"].where(read, others), others.where(read, batch["words"])
    again, changed = (model.told(model.vectors(words), output.chosen) for words in (elsewhere, instead))
    assert torch.equal(again, output.logits)
    assert not torch.isclose(changed, output.logits).any()


@learned
def test_a_word_is_scored_by_its_neighbours_alone(over: str, read: str):
    model, batch = made(over=over, read=read, reach=2)
    vectors = model.eval().vectors(batch["words"]).requires_grad_()
    (slope,) = torch.autograd.grad(model.score(vectors)[:, 30].sum(), vectors)
    felt = (slope.abs().sum((0, 2)) > 0).nonzero().flatten().tolist()
    assert felt == [28, 29, 30, 31, 32]


@every
def test_every_kind_has_a_loss_with_gradients(over: str, read: str):
    model, batch = made(over=over, read=read)
    total, logs = rationale.loss(model, batch)
    total.backward()
    assert torch.isfinite(total) and set(logs) == {"cost", "error"}
    moved = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
    assert ("score.energy.weight" in moved) == (over in rationale.LEARNED)
    values = rationale.evaluate(model.eval(), batch)
    assert set(values) >= {"error", "share_read", "precision", "token_f1", "comprehensiveness", "sufficiency"}
    assert all(values["share_read"] == 1) if over == "all" else all(values["share_read"] <= 0.15)
    assert torch.equal(values["error"], values["error_of_all" if over == "all" else "error_of_rationale"])


def test_draws_are_compared_with_each_other():
    model, batch = made(over="subset", draws=5, dropout=0.0, whole=0.0)
    torch.manual_seed(0)
    total, logs = rationale.loss(model, batch)
    torch.manual_seed(0)
    output = model(batch)
    assert output.chosen.shape[:2] == (4, 5) and output.log_prob.shape == (5, 4)
    costs_ = torch.stack([torch.nn.functional.cross_entropy(output.logits[:, s], batch["label"], reduction="none")
                          for s in range(5)])  # fmt: skip
    assert_close(total, costs_.mean())  # the surrogate's value is zero
    wanted = torch.autograd.grad(rg.leave_one_out(output.log_prob, costs_.detach()).mean(), model.score.energy.weight)
    assert_close(torch.autograd.grad(total, model.score.energy.weight), wanted)
    assert_close(logs["cost"], total)


def test_choosing_is_trained_by_the_mean_at_first():
    model, batch = made(soft=0.5)
    steps = int(model.begin.left)
    assert steps == round(0.5 * (1000 // 16)) and not model.draws
    assert model(batch).chosen.shape[1] == 1 and model(batch).log_prob is None
    for _ in range(steps):
        rationale.after_step(model)
    assert model.draws and model(batch).chosen.shape[1] == SMALL.draws
    assert not model.eval().draws and set(model(batch).chosen.unique().tolist()) == {0.0, 1.0}


def test_what_is_told_of_all_words_is_the_sum_of_what_each_contributes():
    model, batch = made(over="all")
    output = model.eval()(batch)
    label = torch.tensor([0, 1, 0, 1])
    each = choosing.contributions(model.answer.weight, output.vectors, label) * (batch["words"] > 0)
    centred = model.told(output.vectors, output.chosen)[:, 0] - model.answer.bias
    centred = centred - centred.mean(-1, keepdim=True)
    assert_close(each.sum(-1) / (batch["words"] > 0).sum(-1), centred[torch.arange(4), label])
    reason = model.rationale(output, batch["words"] > 0)
    assert (reason.sum(-1) == ((batch["words"] > 0).sum(-1) * 0.15).floor()).all()


def test_the_words_of_opinion_are_found(run: Path):
    """In the run's last epoch most of what is read is opinion, of which a review has 8 %, and it tells the label."""
    last = read_metrics(run)[-1]
    assert last["valid_error"] < 0.15 and 0.08 < last["valid_share_read"] <= 0.15
    assert last["valid_precision"] > 3 * last["valid_marked"] and last["valid_token_f1"] > 0.3
    assert rationale.warning(last) == ""
    answers = rg.load(run).predict(
        ["the king sold a map in the city . the cook lost a bread . i found it truly moving ."]
    )
    assert answers[0].answer == "for" and "moving" in " ".join(answers[0].words)


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch, step: int):
    """Also where it was stopped while the choice was trained by the mean."""
    table = tmp_path / "own.csv"
    table.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in reviews(60, 9))]))
    config = replace(SMALL, data=str(table), epochs=2, soft=0.5)
    train(rationale, config, tmp_path / "whole", QUIET)
    loss, seen = rationale.loss, []

    def interrupted(model: rationale.Model, batch: dict[str, Tensor]):
        seen.append(len(seen))
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(model, batch)

    monkeypatch.setattr(rationale, "loss", interrupted)
    with pytest.raises(Interrupted):
        train(rationale, config, tmp_path / "run", QUIET)
    assert len(seen) == step
    train(rationale, config, tmp_path / "run", QUIET)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.unchecked
def test_a_run_answers_is_evaluated_and_looked_at(run: Path, capsys: pytest.CaptureFixture):
    text = "the king lost a map in the city . the sailor sold the boat . on the whole a waste of time ."
    assert cli.main(["predict", str(run), text, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "against" and 0.5 < answer["probability"] <= 1
    assert 0 < sum(len(piece.split()) for piece in answer["words"]) <= 3
    assert all(piece in text for piece in answer["words"])
    assert cli.main(["predict", str(run), text]) == 0
    assert capsys.readouterr().out == "against\n"
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_share_read"] <= 0.15
    assert cli.main(["look", str(run)]) == 0
    assert "marked by people" in (run / "report.html").read_text()
    assert cli.main(["look", str(run), "--text", f"{text} <b>so</b> [[dull]] it is"]) == 0
    page = (run / "text" / "report.html").read_text()
    assert "&lt; b &gt; so &lt; / b &gt; dull it is" in page and "marked by people" in page


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """A folder as ERASER has them, of generated reviews; two of the training texts are in the validation part."""
    folder, parts = tmp_path / "movies", {"train": 40, "val": 12, "test": 12}
    (folder / "docs").mkdir(parents=True)
    listed: dict[str, list[str]] = {}
    for seed, (part, count) in enumerate(parts.items()):
        for n, (text, label) in enumerate(reviews(count, seed)):
            words = text.replace("[[", "[[ ").replace("]]", " ]]").split()
            spans, kept = [], []
            for word in words:
                if word == "[[":
                    spans.append({"docid": f"{part}{n}.txt", "start_token": len(kept), "end_token": len(kept)})
                elif word == "]]":
                    spans[-1]["end_token"] = len(kept)
                else:
                    kept.append(word)
            (folder / "docs" / f"{part}{n}.txt").write_text(" ".join(kept).replace(" . ", " .\n"))
            row = {"annotation_id": f"{part}{n}.txt", "classification": label, "evidences": [[span] for span in spans]}
            listed.setdefault(part, []).append(json.dumps(row))
    listed["train"] += listed["val"][:2]
    for part, lines in listed.items():
        (folder / f"{part}.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))
    return folder


@pytest.mark.unchecked
def test_eraser_and_tables_from_the_command_line(movies: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--epochs", "1", "--draws", "2", "--batch", "8", "--units", "4"]
    assert cli.main(["train", "rationale", "--data", "movies", *quick, "--name", "a"]) == 0
    printed = capsys.readouterr()
    assert (
        "40 training, 12 validation and 12 test texts; left out: 2 of the training texts" in printed.err + printed.out
    )
    table = tmp_path / "own.csv"
    rows = [f'"{text.replace("[[", "").replace("]]", "")}",{label}' for text, label in reviews(60, 9)]
    table.write_text("\n".join(["text,label", *rows]))
    assert cli.main(["train", "rationale", "--data", "own.csv", *quick, "--name", "b", "--over", "subset"]) == 0
    assert "valid_precision" not in read_metrics(tmp_path / "runs" / "rationale" / "b")[-1]
    assert cli.main(["evaluate", "runs/rationale/b", "--data", "movies", "--json"]) == 0
    assert "test_precision" in capsys.readouterr().out


@pytest.mark.unchecked
def test_bad_input_is_a_sentence_and_a_status(run: Path, movies: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["predict", str(run), " ", "i found it truly moving"]) == 1
    caught = capsys.readouterr()
    assert "expected a text with a word in it, but got ' '" in caught.err and caught.out == "for\n"
    test = movies / "test.jsonl.xz"
    test.write_bytes(lzma.compress(b'{"annotation_id": "test0.txt", "classification": "perhaps", "evidences": []}'))
    assert cli.main(["evaluate", str(run), "--data", str(movies)]) == 1
    assert "has the label 'perhaps', which is not one to learn" in capsys.readouterr().err
    assert cli.main(["train", "rationale", "--over", "subset", "--read", "relaxed"]) in (1, 2)
    assert "--read relaxed expected --over sigmoid, but got subset" in capsys.readouterr().err


def test_what_an_answer_costs_can_be_counted():
    model, batch = made()
    assert costs.inference(open_recipe("rationale"), model.eval(), batch) is not None


@pytest.mark.parametrize(("settings", "said"), [
    ({"share": 0.0}, "--share expected a number above zero"),
    ({"share": 1.2}, "--share expected a number above zero and up to 1, but got 1.2"),
    ({"draws": 1}, "--draws expected at least 2"),
    ({"dropout": 1.0}, "--dropout expected a share from 0 up to 1"),
    ({"width": -1.0}, "--width expected a number above zero"),
    ({"over": "segments", "read": "relaxed"}, "--read relaxed expected --over sigmoid, but got segments"),
    ({"learn_vectors": "no"}, "--learn_vectors no expected word vectors, but --vectors gives none"),
])  # fmt: skip
def test_bad_settings_are_named(settings: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(SMALL, **settings)


def test_a_collapse_is_said():
    """What accuracy does not show."""
    row = {"valid_error": 0.1, "valid_share_read": 0.15, "valid_precision": 0.05, "valid_marked": 0.07}
    assert "marked less often than random ones" in rationale.warning(row)
    assert "hardly a word is read" in rationale.warning(row | {"valid_share_read": 0.001})
    assert rationale.warning({"valid_error": 0.1, "valid_share_read": 0.15}) == ""
