"""The recipe language: streams whose state is carried, every way to look back, and texts that go on."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.data.running import Streams
from regard.app.report.looking import shown
from regard.app.training.errors import Interrupted
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.recipes import language
from regard.recipes.base import open_recipe
from regard.recipes.language import Config

SMALL = Config(size=24, window=5, samples=50, steps=20, before=10, epochs=1, batch=40)
QUIET = Fit(accelerator="cpu", threads=1, progress="none")


def made(**settings) -> tuple[language.Model, dict[str, torch.Tensor]]:
    config = replace(SMALL, **settings)
    splits = language.data(config)
    return language.Model(config, splits), splits.train.batch(torch.arange(config.batch))


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("attention", language.KINDS)
def test_every_kind_tells(attention: str, parts: bool):
    model, batch = made(attention=attention, parts=parts, soft=0.0)
    total, _ = language.loss(model, batch)
    total.backward()
    assert total.isfinite() and all(each.grad is not None for each in model.parameters())
    language.after_step(model)
    valid = language.data(model.config).valid.batch(torch.arange(3))
    values = language.evaluate(model.eval(), valid)
    assert all(len(value) == 60 for value in values.values())
    assert ("back" in values) == (attention != "none")
    if attention != "none":
        assert (values["back"] >= 1).all() and (values["back"] <= 5).all()
    assert len(language.look(model, valid)) == 3


@torch.no_grad()
def test_what_is_known_is_carried_from_step_to_step():
    model, _ = made(dropout=0.0)
    splits = language.data(model.config)
    found = []
    for n in range(3):
        batch = splits.train.batch(torch.arange(40) + 40 * n)
        found.append(model(batch["words"], model.stream(40).kept(batch["first"])).known)
        language.loss(model, batch)
        language.after_step(model)
    whole = Streams(splits.train.numbers, 40, 20)
    whole = torch.cat([whole.batch(torch.arange(40) + 40 * n)["words"] for n in range(3)], 1)
    assert_close(torch.cat(found, 1), model(whole, model.nothing(40)).known)
    first = splits.train.batch(torch.arange(40))
    again = model(first["words"], model.stream(40).kept(first["first"])).known
    assert_close(again, found[0])


def test_the_loss_changes_nothing():
    model, batch = made()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    language.loss(model, batch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_gradient_of_the_words_reaches_the_draws_scores_but_by_the_policy():
    model, batch = made(attention="hard", soft=0.0, entropy=0.0, dropout=0.0)
    output = model(batch["words"], model.nothing(40))
    model.guesses.cost(output.known[0].flatten(0, 1), batch["target"].flatten()).sum().backward()
    (sharpness,) = model.back.attention.score.parameters()
    assert sharpness.grad is None
    total, _ = language.loss(model, batch)
    total.backward()
    assert sharpness.grad is not None


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path):
    config, asked = replace(SMALL, epochs=2), []

    def stop(fraction: float, logs: dict[str, int | float]) -> None:
        if fraction > 0.6 and not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))

    train(language, config, tmp_path / "whole", QUIET)
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of \d+ \(epoch 2 of 2\)"):
        train(language, config, tmp_path / "parts", replace(QUIET, progress=stop))
    train(language, config, tmp_path / "parts", QUIET)
    whole, parts = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=False)["model"] for name in ("whole", "parts")
    )
    assert whole["model.stream_past"].any() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_it_learns(tmp_path: Path):
    config = replace(SMALL, size=64, epochs=3, batch=20, samples=300, learning_rate=1e-2)
    rows = train(language, config, tmp_path / "run", QUIET)
    assert rows["valid_perplexity"] < 130  # by how often words are there 190


@torch.no_grad()
def test_a_text_is_told_word_by_word_as_in_a_passage():
    """What goes on with a text says what is told of the same words as a passage, words that come again among it."""
    model, _ = made(attention="cosine")
    model.eval()
    passage = language.example(model, "the queen said to the king that the queen said to the cat")
    batch = passage.batch(torch.arange(1))
    words = batch["words"][0]
    asked = torch.arange(len(words)) == len(words) - 1
    whole = model.says(model(words.unsqueeze(0), model.nothing(1)).known[0], words, asked)
    state, known = model.nothing(1), []
    for word in words:
        output = model(word.view(1, 1), state)
        state = output.state
        known.append(output.known[0])
    assert_close(model.says(torch.cat(known), words, asked), whole)
    alone = model.guesses(output.known[0]).log_softmax(-1)
    assert not torch.allclose(whole, alone)


def test_a_model_that_does_not_look_has_no_part_in_a_report():
    looks = {}
    for attention in ("none", "cosine"):
        model, _ = made(attention=attention, cache=0.0)
        looks[attention] = language.look(model.eval(), language.data(model.config).valid.batch(torch.arange(2)))
    assert list(shown(open_recipe("language"), looks, {})["pictures"]) == ["Where cosine looked"]


@pytest.mark.parametrize(("settings", "said"), [
    ({"window": 0}, "--window expected at least 1, but got 0"),
    ({"dropout": 1.5}, "--dropout expected"),
    ({"attention": "hard", "draws": 1}, "--draws expected at least 2, as draws are compared, but got 1"),
])  # fmt: skip
def test_bad_settings(settings: dict, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(SMALL, **settings)


@pytest.mark.unchecked
def test_texts_go_on(tmp_path: Path, capsys: pytest.CaptureFixture):
    train(language, SMALL, tmp_path / "run", QUIET)
    run = str(tmp_path / "run")
    assert cli.main(["predict", run, "The Queen said", "  ", "--words", "5"]) == 1
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    assert line.startswith("the queen said ") and len(line.split()) == 8
    assert "expected a text with a word in it" in err
    trained = rg.load(run)
    once, again = (trained.predict(["alice"], temperature=0.0, words=4) for _ in range(2))
    assert once == again
    assert cli.main(["look", run, "--text", "alice was beginning to get very tired"]) == 0
    assert cli.main(["evaluate", run]) == 0
    assert "test_perplexity" in capsys.readouterr().out
