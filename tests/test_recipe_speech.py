"""The recipe speech: that tones are learned in seconds, that writing online is what a whole sound gives, that a
sound is the same alone and among others; data of one's own, bad sounds by name, and pages that play."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import regard as rg
from regard.app import cli
from regard.app.data import spoken
from regard.app.data.generators.tones import tones
from regard.app.speech import answering, decoding, online, scoring
from regard.app.speech.sounds import wav
from regard.app.speech.strings import FIRST, Strings
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import open_run
from regard.recipes import speech
from regard.recipes.speech import KINDS, Config

QUIET = Fit(accelerator="cpu", threads=1, precision="32-true", progress="none")
SMALL = Config(units=16, longest=3, each=32, epochs=1, batch=4, draws=3, width=11)
LEARNED = Config(
    attention="ctc", units=48, longest=3, start=1, each=960, epochs=2, batch=8, masked=0, learning_rate=8e-3
)


def made(**settings) -> tuple[speech.Model, dict[str, Tensor]]:
    """A model and a batch of four strings of tones."""
    config = replace(SMALL, **settings)
    splits = speech.data(config)
    return speech.Model(config, splits), splits.train.batch(
        torch.tensor([0, 1, 2, 5]), torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on short strings of tones."""
    folder = tmp_path_factory.mktemp("speech") / "run"
    train(speech, LEARNED, folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve strings of tones as files, and what is said in them."""
    folder = tmp_path_factory.mktemp("sounds")
    strings = Strings(tones(4, 5), count=12, shortest=1, longest=2, seed=3)
    rows = ["path\ttext"]
    for n in range(12):
        batch = strings.batch(torch.tensor([n]))
        (folder / f"{n}.wav").write_bytes(wav(batch["sound"][0], 8000))
        rows.append(f"{n}.wav\t{''.join('abcdefgh'[k - FIRST] for k in batch['target'][0].tolist())}")
    (folder / "index.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("attention", KINDS)
def test_every_kind_learns_from_all_its_parts(attention: str):
    model, batch = made(attention=attention)
    loss, logs = speech.loss(model.train(), batch)
    loss.backward()
    assert loss.isfinite() and all(value.isfinite() for value in logs.values())
    without = {name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()}
    assert not {name for name in without if not name.startswith("speller.behind")}, without


@pytest.mark.parametrize("attention", KINDS)
def test_a_sound_is_the_same_alone_and_among_others(attention: str):
    model, batch = made(attention=attention)
    model.eval()
    states, count = model(batch)
    for n, samples in enumerate(batch["samples"].tolist()):
        one = {"sound": batch["sound"][n : n + 1, :samples], "samples": batch["samples"][n : n + 1]}
        alone, _ = model(one)
        assert_close(states[n, : count[n]], alone[0], atol=1e-4, rtol=1e-4)
    assert len(decoding.greedy(model, batch)) == len(decoding.beam(model, batch, 3)) == 4


def sharpened(model: speech.Model) -> speech.Model:
    """With scores that differ much from place to place, as those of a model that has learned."""
    score = model.speller.attention.score
    nn.init.normal_(score.additive.energy.weight, std=4.0)
    nn.init.normal_(score.convolution.weight, std=2.0)
    nn.init.normal_(model.speller.telling.weight, std=1.0)
    model.speller.telling.bias.data[:3] = -20  # neither none nor begin nor end, so that all is read
    return model.eval()


@pytest.mark.parametrize("attention", ["monotonic", "chunkwise"])
def test_writing_online_gives_what_a_whole_sound_gives_and_reads_less(attention: str):
    model, batch = made(attention=attention)
    sharpened(model)
    with torch.no_grad():
        found, whole = online.write(model, batch), decoding.greedy(model, batch)
    assert [row.tolist() for row in found.symbols] == [row.tolist() for row in whole]
    assert max(map(len, found.symbols)) > 2
    for stops in found.stops:
        assert (stops.diff() >= 0).all()
    assert (found.read <= 1).all() and (found.compared <= 1).all()
    if attention == "monotonic":
        assert (found.read <= found.compared).all() and found.read.min() < 1


def test_what_is_written_does_not_depend_on_what_is_said_later():
    """The symbols written before a stop are the same whatever comes after what the stop's place knows of."""
    model, batch = made(attention="chunkwise")
    sharpened(model)
    with torch.no_grad():
        before = online.write(model, batch)
        row = max(range(4), key=lambda n: len(before.symbols[n]))
        stop = int(before.stops[row][1])
        heard = (online.SHRINK * stop + online.AHEAD + 4) * 80
        assert heard < batch["samples"][row], "a stop that leaves something unheard"
        batch["sound"][row, heard:] = torch.randn_like(batch["sound"][row, heard:])
        after = online.write(model, batch)
    assert after.symbols[row][:2].tolist() == before.symbols[row][:2].tolist()
    assert after.stops[row][:2].tolist() == before.stops[row][:2].tolist()


def test_hard_attention_is_rewarded_for_the_places_that_tell():
    model, batch = made(attention="hard")
    model.train()
    cost, policy = speech.by_spelling(model, model.speller.begin(*model(batch)), batch["target"])
    assert abs(float(policy.detach())) < 1e-5 and cost.isfinite()  # its value is zero, its gradient is not
    (grad,) = torch.autograd.grad(policy, model.speller.attention.score.additive.energy.weight)
    assert grad.any()


def test_a_text_too_long_for_its_sound_costs_no_alignment():
    model, batch = made(attention="ctc")
    states, count = model.train()(batch)
    cost = speech.by_ctc(model, states, count, torch.full((4, 200), FIRST))
    cost.backward()
    assert cost == 0 and not any(each.grad.any() for each in model.parameters() if each.grad is not None)
    assert speech.by_ctc(model, states, count, batch["target"]) > 0


def test_a_transducer_costs_what_its_alignments_say():
    model, batch = made(attention="rnnt", ctc=0.0)
    cost, parts = speech.loss(model.train(), batch)
    cost.backward()
    assert cost == parts["cost"] > 0
    for name, each in model.named_parameters():
        assert name.startswith("aligning") or each.grad.any(), name
    states, count = model.eval()(batch)
    alone, target = model.aligning(states), batch["target"]
    each = [
        model.transducer.alignment(*(one[n : n + 1, :k] for one in (states, alone)), count[n : n + 1], row[None]).log_z
        for n, (k, row) in enumerate(zip(count.tolist(), (row[row > 0] for row in target), strict=True))
    ]
    cost = model.transducer.cost(states, alone, count, target)
    assert_close(cost, -sum(each).squeeze() / (target > 0).sum())  # a sound is the same alone and among others
    found = decoding.greedy(model, batch), decoding.beam(model, batch, 2)
    assert all(len(texts) == 4 and all(each.dtype == torch.long for each in texts) for texts in found)


def test_tones_are_learned_in_seconds_and_longer_strings_are_heard(run: Path):
    opened = open_run(run)
    strings = Strings(tones(4, 9), count=24, shortest=2, longest=4, seed=7)
    batch = strings.batch(torch.arange(24))
    with torch.no_grad():
        found = scoring.errors(decoding.greedy(opened.model, batch), batch["target"])
        silent = decoding.greedy(opened.model, batch | {"sound": 0.001 * torch.randn_like(batch["sound"])})
    wrong = scoring.shares({name: (float(each.sum()), float(len(each))) for name, each in found.items()})
    assert wrong["symbol_error"] < 0.35, wrong
    assert scoring.errors(silent, batch["target"])["error"].mean() > 0.9  # it is by what is heard


@pytest.mark.unchecked
def test_files_are_written_down_and_bad_ones_named(run: Path, sounds: Path, tmp_path: Path, capsys):
    good = sounds / "3.wav"
    (tmp_path / "empty.wav").write_bytes(wav(torch.zeros(0), 8000))
    (tmp_path / "noise.wav").write_bytes(b"RIFFnothing")
    (tmp_path / "loud.wav").write_bytes(wav(5 * torch.randn(9000), 16000))
    (tmp_path / "long.wav").write_bytes(wav(torch.zeros(1800 * 8000), 8000))
    names = ["empty.wav", "noise.wav", "long.wav", "missing.wav"]
    assert cli.main(["predict", str(run), str(good), *(str(tmp_path / name) for name in (*names, "loud.wav"))]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2, err
    first, second = out.splitlines()
    assert first and set(first) <= set("abcdefgh") and "clipped" in second
    for name, sentence in zip(names, ("0 samples", "no", "at most 300 seconds, but has 1,800", "No such"), strict=True):
        assert name in err and sentence in err
    assert cli.main(["predict", str(run), str(good), "--beam", "3", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"input", "answer", "note"}


def test_answers_do_not_depend_on_what_is_asked_beside(run: Path, sounds: Path, monkeypatch):
    model = rg.load(run)
    files = [sounds / f"{n}.wav" for n in range(5)]
    together = model.predict(files)
    assert [each.answer for each in together] == [model.predict([file])[0].answer for file in files]
    monkeypatch.setattr(answering, "TOGETHER", 1)
    assert model.predict(files) == together


def test_a_folder_of_ones_own(run: Path, sounds: Path, tmp_path: Path, capsys):
    config = replace(SMALL, data=str(sounds), attention="ctc", batch=2)
    splits = speech.data(config)
    assert [len(part) for part in splits[:3]] == [9, 1, 2] or sum(map(len, splits[:3])) == 12
    assert set(splits.classes) <= set("abcdefgh") and math.isclose(splits.train.rate, 8000)
    train(speech, config, tmp_path / "own", QUIET)
    assert cli.main(["evaluate", str(run), "--data", str(sounds)]) == 0
    assert "symbol_error" in capsys.readouterr().out
    assert set(rg.load(tmp_path / "own").predict([sounds / "1.wav"])[0].answer) <= set(splits.classes)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("", "is empty"),
        ("path\ttext\n", "expected a line of names and one for each sound"),
        ("name\ttext\na.wav\tb\n", "expected a list with the column 'path', but it has name, text"),
        ("path\ttext\na.wav\tb\n", "1 of 1 sounds cannot be used: .*a.wav cannot be read: No such file"),
    ],
)
def test_lists_that_cannot_be_used(listed: str, message: str, tmp_path: Path):
    (tmp_path / "index.tsv").write_text(listed)
    with pytest.raises(ValueError, match=message):
        spoken.spoken(str(tmp_path), 3, 10)
    with pytest.raises(ValueError, match=r"expected a list of sounds, index\.tsv or transcripts\.csv, but has none"):
        spoken.spoken(str(tmp_path / "nowhere"), 3, 10)


def test_words_are_symbols_if_asked_for(sounds: Path, tmp_path: Path):
    for n in range(4):
        (tmp_path / f"{n}.wav").write_bytes((sounds / f"{n}.wav").read_bytes())
    rows = [f"{n}.wav,one two,{part}" for n, part in enumerate(("train", "train", "valid", "test"))]
    (tmp_path / "transcripts.csv").write_text("path,text,split\n" + "\n".join(rows) + "\n")
    splits = spoken.spoken(str(tmp_path), 3, 10, words=True)
    assert splits.classes == ("one", "two") and [len(part) for part in splits[:3]] == [2, 1, 1]
    with pytest.raises(ValueError, match="has the symbol 'one', which the model never learned"):
        spoken.spoken(str(tmp_path), 3, 10, words=True, known=spoken.Known(("two",)))


def test_a_page_shows_where_it_looked_and_plays(run: Path):
    assert cli.main(["look", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") >= 12 and "media-src data:" in page and "data:audio/wav;base64,UklGR" in page
    assert "Heard as" in page


@pytest.mark.parametrize("attention", ["ctc", "rnnt", "none", "hard"])
def test_every_kind_is_looked_at(attention: str):
    model, batch = made(attention=attention)
    pictures = speech.look(model.eval(), batch)
    assert len(pictures) == 4 and all(each.sound[:4] == b"RIFF" and each.png[1:4] == b"PNG" for each in pictures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 1}, "--draws expected at least 2, as draws are compared, but got 1"),
        ({"width": 10}, "expected even --units and an odd --width, but got 128 and 10"),
        ({"ctc": -1.0}, "--ctc expected at least 0"),
    ],
)
def test_configurations_that_cannot_be(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_digits_are_learned_from_judged_by_and_chosen_by_apart(data_dir: Path):
    train, valid, test = spoken.digits(data_dir / "speech_digits")
    assert [len(part.sounds) for part in (train, valid, test)] == [2400, 300, 300]
    assert all(len(part.speakers.unique()) == 6 and len(part.labels.unique()) == 10 for part in (train, valid, test))
    bits = [{sound.numpy().tobytes() for sound in part.sounds} for part in (train, valid, test)]
    assert not bits[0] & bits[2] and not bits[0] & bits[1] and not bits[1] & bits[2]
    train, valid, test = spoken.digits(data_dir / "speech_digits", held_out="theo")
    theo = spoken.SPEAKERS.index("theo")
    assert test.speakers.unique().tolist() == [theo] and len(test.sounds) == 50
    assert theo not in train.speakers and theo not in valid.speakers
