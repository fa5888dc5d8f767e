"""The recipe classify: what each head reads, that hard heads learn in seconds to read the words that tell, own data
from the command line, and bad input by name."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.compare import costs
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.recipes import classify
from regard.recipes.base import open_recipe
from regard.recipes.classify import Config

KINDS = list(classify.KINDS)
SMALL = Config(hidden=6, size=8, scoring=8, heads=2, epochs=1, soft=0.0)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")


def made(**settings) -> tuple[classify.Model, dict[str, Tensor]]:
    """A model and a batch of eight."""
    config = replace(SMALL, **settings)
    splits = classify.data(config)
    return classify.Model(config, splits), splits.train.batch(torch.arange(8))


@pytest.fixture(scope="module")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of nine words of no meaning, one of which tells the label."""
    chance, rows = random.Random(0), ["text,label"]
    for n in range(600):
        words = [chance.choice("abcdefgh") for _ in range(9)]
        words[chance.randrange(9)] = chance.choice(("awful", "boring") if n % 2 else ("lovely", "moving"))
        rows.append(f"{' '.join(words)},{'against' if n % 2 else 'for'}")
    file = tmp_path_factory.mktemp("moods") / "moods.csv"
    file.write_text("\n".join(rows))
    return file


@pytest.fixture(scope="module")
def hard(moods: Path) -> Path:
    """A run of two hard heads that know nothing but the words that they read."""
    run = moods.parent / "hard"
    config = replace(
        SMALL, data=str(moods), attention="hard", encoder="none", soft=0.4, epochs=12, learning_rate=0.02, batch=32
    )
    train(classify, config, run, QUIET)
    return run


@pytest.mark.parametrize("encoder", ["gru", "transformer", "none"])
@pytest.mark.parametrize("attention", KINDS)
def test_every_weight_learns(attention: str, encoder: str):
    model, batch = made(attention=attention, encoder=encoder)
    total, _ = classify.loss(model, batch)
    total.backward()
    assert all(weights.grad is not None for weights in model.parameters()) and total.isfinite()
    values = classify.evaluate(model.eval(), batch)
    assert all(value.shape == (8,) for value in values.values())


@pytest.mark.parametrize("encoder", ["gru", "transformer", "none"])
@pytest.mark.parametrize("attention", KINDS)
def test_padding_changes_nothing(attention: str, encoder: str):
    model, batch = made(attention=attention, encoder=encoder)
    model.eval()
    wider = batch | {"words": torch.cat((batch["words"], torch.zeros(8, 3, dtype=torch.long)), 1)}
    assert_close(model(wider).logits, model(batch).logits)


@pytest.mark.parametrize("attention", KINDS)
def test_what_an_answer_costs_is_counted(attention: str):
    model, batch = made(attention=attention)
    step = costs.inference(open_recipe("classify"), model, batch)
    assert costs.multiply_adds(step) > batch["words"].numel() * 6 * 6


def test_a_hard_head_without_encoder_has_read_one_word_and_nothing_else():
    model, batch = made(attention="hard", encoder="none")
    output = model.eval()(batch)
    assert (output.weights.sum(-1) == 1).all() and (output.look.z >= 0).all()
    words = model.vectors(batch["words"])
    read = words.take_along_dim(output.look.z.unsqueeze(-1), 1).flatten(1)
    assert torch.equal(output.logits, model.answer(read))
    found = classify.evaluate(model, batch)["words_read"]
    assert found.max() <= 2 and found.min() >= 1


def test_soft_heads_read_all_words():
    model, batch = made(attention="soft")
    assert_close(classify.evaluate(model.eval(), batch)["words_read"], (batch["words"] > 0).sum(-1).float())


def test_self_is_the_equations():
    """M = softmax(W2 tanh(W1 H)) H, and the penalty (Lin et al. 2017, equations 5 to 8)."""
    model, batch = made(attention="self", encoder="none")
    output = model.eval()(batch)
    words, score = model.vectors(batch["words"]), model.attention.score
    energies = model.queries @ (words @ score.key.weight.mT).tanh().mT
    weights = energies.masked_fill(batch["words"].unsqueeze(1) == 0, -torch.inf).softmax(-1)
    assert_close(output.weights, weights)
    assert_close(output.logits, model.answer((weights @ words).flatten(1)))
    total, logs = classify.loss(model, batch)
    apart = (weights @ weights.mT - torch.eye(2)).square().sum((1, 2)).mean()
    assert_close(total, logs["cost"] + model.config.penalty * apart)


def test_last_is_where_each_direction_ends():
    model, batch = made(attention="last")
    words = model.encoder(model.vectors(batch["words"]), batch["words"] > 0)
    last = model.encoder.last(words, batch["words"] > 0)
    length = int((batch["words"][3] > 0).sum())
    assert_close(last[3], torch.cat((words[3, length - 1, :6], words[3, 0, 6:])))


def test_hard_attention_is_trained_softly_at_first():
    model, batch = made(attention="hard", soft=0.5)
    steps = int(model.attention.read.left)
    assert steps == round(0.5 * (2000 // 64))
    assert not model.draws and model(batch).logits.shape == (8, 6)
    for _ in range(steps):
        classify.after_step(model)
    assert model.draws and model(batch).logits.shape == (4, 8, 6)
    assert model.eval()(batch).logits.shape == (8, 6)


def test_hard_heads_learn_to_read_the_words_that_tell(hard: Path):
    telling = {"awful", "boring", "lovely", "moving"}
    answers = rg.load(hard).predict(["a b lovely c d e f g h", "boring a a b h", "c d e f awful"])
    assert [answer.answer for answer in answers] == ["for", "against", "against"]
    assert all(telling & set(answer.words) and answer.probability > 0.8 for answer in answers)
    opened = open_run(hard)
    batch = opened.splits.test.batch(torch.arange(len(opened.splits.test)))
    assert classify.evaluate(opened.model, batch)["error"].mean() < 0.05


@pytest.mark.unchecked
def test_a_run_answers_is_evaluated_and_looked_at(hard: Path, moods: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["predict", str(hard), "so lovely it is", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "for" and "lovely" in answer["words"] and 0.5 < answer["probability"] <= 1
    assert cli.main(["predict", str(hard), "boring stuff"]) == 0
    assert capsys.readouterr().out == "against\n"
    assert cli.main(["evaluate", str(hard)]) == 0
    assert cli.main(["evaluate", str(hard), "--data", str(moods)]) == 0
    assert cli.main(["look", str(hard)]) == 0
    assert "most read by head 1" in (hard / "report.html").read_text()
    assert cli.main(["look", str(hard), "--text", "a lovely <b>day</b>"]) == 0
    assert "a lovely &lt; b &gt; day" in (hard / "text" / "report.html").read_text()


@pytest.mark.unchecked
def test_bad_input_is_a_sentence_and_a_status(hard: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["predict", str(hard), " ", "so lovely"]) == 1
    caught = capsys.readouterr()
    assert "expected a text with a word in it, but got ' '" in caught.err and caught.out == "for\n"
    strange = tmp_path / "strange.csv"
    strange.write_text("text,label\nwhat,perhaps\n")
    assert cli.main(["evaluate", str(hard), "--data", str(strange)]) == 1
    assert "has the label 'perhaps', which is not one to learn" in capsys.readouterr().err
    strange.write_bytes(b"text,label\ncaf\xe9,for\n")
    assert cli.main(["train", "classify", "--data", str(strange)]) == 1
    assert "line 2: expected text in UTF-8, but got the byte 0xe9" in capsys.readouterr().err


def test_given_vectors_go_with_the_run(moods: Path, tmp_path: Path):
    """Words that only the vectors know are known to the run, when their file is gone."""
    file = tmp_path / "v.npz"
    names = ["awful", "boring", "lovely", "moving", "dreadful", "wonderful"]
    np.savez(
        file, words=np.array(names), vectors=np.array([[-1, 0], [-1, 1], [1, 0], [1, 1], [-1, 0.5], [1, 0.5]], "f4")
    )
    config = replace(
        SMALL, data=str(moods), attention="hard", encoder="none", soft=0.4, vectors=str(file), learn_vectors="no"
    )
    train(classify, replace(config, epochs=12, learning_rate=0.02, batch=32), tmp_path / "run", QUIET)
    file.unlink()
    answers = rg.load(tmp_path / "run").predict(["a wonderful b", "a dreadful b"])
    assert [answer.answer for answer in answers] == ["for", "against"]


@pytest.mark.parametrize(("settings", "said"), [
    ({"heads": 0}, "--heads expected at least 1, but got 0"),
    ({"draws": 1}, "--draws expected at least 2"),
    ({"dropout": 1.0}, "--dropout expected a share from 0 up to 1"),
    ({"clip": 0.0}, "--clip expected a number above zero"),
    ({"encoder": "transformer", "heads": 5}, "--heads expected a divisor of 12, twice --hidden, but got 5"),
    ({"learn_vectors": "no"}, "--learn_vectors no expected word vectors, but --vectors gives none"),
])  # fmt: skip
def test_bad_settings_are_named(settings: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(SMALL, **settings)
