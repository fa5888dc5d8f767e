"""The tag recipe: what its parts compute, what it measures, and that it learns what there is to learn."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import regard as rg
from regard.app import data as datasets
from regard.app.data.tagged import Labels, Tagged
from regard.app.report import looking
from regard.app.training import loop as training
from regard.app.training.evaluation import averages, evaluate
from regard.app.training.fabric import Fit
from regard.app.training.run import OpenedRun
from regard.recipes import tag
from regard.recipes.base import open_recipe
from regard.recipes.tag import Config

OVERS = ("chain", "softmax")
SMALL = Config(words=16, letters=8, filters=16, hidden=32, dropout=0.1)
overs = pytest.mark.parametrize("over", OVERS)


@pytest.fixture(scope="module")
def splits() -> datasets.Splits:
    return datasets.tagged()


def made(splits: datasets.Splits, over: str = "chain", **settings) -> tag.Model:
    torch.manual_seed(0)
    return tag.Model(replace(SMALL, over=over, **settings), splits)


def batch(splits: datasets.Splits, count: int = 8) -> dict[str, torch.Tensor]:
    return splits.test.batch(torch.arange(count))


@overs
def test_the_loss_is_that_of_the_labels(over: str, splits: datasets.Splits):
    model, gold = made(splits, over, word_dropout=0.0).eval(), batch(splits)
    torch.nn.init.normal_(model.score.weight)
    total, _ = tag.loss(model, gold)
    positions, present = model(gold), gold["words"] >= 0
    if over == "softmax":
        chances = positions.mean[present].gather(-1, gold["labels"][present].unsqueeze(-1))
        assert_close(total, -chances.log().sum() / 8)
    else:
        assert_close(total, -positions.log_prob(gold["labels"]).mean())
        z = gold["labels"].clone()
        z[0, 0] = splits.classes.index("I-PER")
        assert positions.log_prob(z)[0] == -torch.inf, "no span goes on at the first word"


@overs
def test_padding_changes_nothing(over: str, splits: datasets.Splits):
    model = made(splits, over).eval()
    together = model(batch(splits)).mean
    for n, length in enumerate(splits.test.lengths[:8].tolist()):
        alone = model(splits.test.batch(torch.tensor([n]))).mean
        assert_close(together[n, :length], alone[0], rtol=1e-4, atol=1e-5)
        assert (together[n, length:] == 0).all()


def test_a_chain_is_always_well_formed_and_a_softmax_is_not(splits: datasets.Splits):
    wrong = {}
    for over in OVERS:
        model = made(splits, over)
        torch.nn.init.normal_(model.score.weight, std=9.0)
        names = [["O"] + [splits.classes[label] for label in row if label >= 0] for row in model(batch(splits)).mode]
        pairs = [pair for row in names for pair in itertools.pairwise(row)]
        wrong[over] = sum(
            after.startswith("I-") and before not in (after, after.replace("I-", "B-")) for before, after in pairs
        )
    assert wrong["chain"] == 0 < wrong["softmax"]


class Answers(torch.nn.Module):
    """A model that answers with these labels, and counts as the recipe's does."""

    spans, count = tag.Model.spans, tag.Model.count

    def __init__(self, classes: tuple[str, ...], labels: list[list[int]], chunked: bool = True):
        super().__init__()
        self.classes, self.labels, self.chunked = classes, labels, chunked

    def forward(self, batch: dict[str, torch.Tensor]) -> rg.Positions:
        weights = torch.nn.functional.one_hot(torch.tensor(self.labels), len(self.classes)).float()
        return rg.positions.OneHot(weights * (batch["words"] >= 0).unsqueeze(-1))


CLASSES = ("B-A", "B-B", "I-A", "I-B", "O")


def test_spans_count_and_not_words():
    gold = [Labels(("a", "b", "c", "d"), ("",) * 4, ("B-A", "I-A", "O", "B-B")), Labels(("a",), ("",), ("O",))]
    model = Answers(CLASSES, [[0, 2, 4, 0], [4, 0, 0, 0]])
    values = tag.evaluate(model, Tagged(gold, CLASSES).batch(torch.arange(2)))
    found = {name: value.tolist() for name, value in values.items()}
    assert found == {"accuracy": [1, 1, 1, 0, 1], "error": [1, 0], "found": [2, 0], "wanted": [2, 0], "right": [1, 0]}
    means = tag.conclude({name: (float(sum(value)), float(len(value))) for name, value in found.items()})
    assert means == {"accuracy": 0.8, "error": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5}


def test_labels_of_no_spans_count_word_by_word():
    gold = [Labels(("a", "b"), ("", ""), ("DET", "NOUN"))]
    model = Answers(("DET", "NOUN"), [[0, 0]], chunked=False)
    values = tag.evaluate(model, Tagged(gold, model.classes).batch(torch.arange(1)))
    assert [values[name].item() for name in ("found", "wanted", "right")] == [2, 2, 1]


def test_further_columns_are_read_where_they_are_asked_for():
    rows = [Labels((f"w{n}", "x"), ("P" if n % 2 else "Q", "Q"), ("B-A" if n % 2 else "O", "O")) for n in range(40)]
    train = Tagged(rows, ("B-A", "I-A", "O"))
    splits = datasets.Splits(train, train, train, "", ("B-A", "I-A", "O"))
    model, gold = made(splits, features=4).eval(), train.batch(torch.arange(4))
    other = gold | {"features": gold["features"].flip(0)}
    assert not torch.allclose(model(gold).mean, model(other).mean)
    assert_close(made(splits).eval()(gold).mean, made(splits).eval()(other).mean)
    unknown = model(gold | {"features": torch.zeros_like(gold["features"])})
    assert unknown.mean.isfinite().all()


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"dropout": 1.0}, {"clip": 0.0}, {"column": -1}, {"features": -2}])
def test_settings_that_make_no_sense_are_refused(settings: dict):
    with pytest.raises(ValueError, match=f"--{next(iter(settings))} expected"):
        Config(**settings)


def final(over: str, splits: datasets.Splits, shuffled: bool = False) -> dict[str, float]:
    """The figures on other sentences after training for a few seconds."""
    config = replace(SMALL, over=over, learning_rate=2e-2)
    model = made(splits, over)
    optimiser, schedule = tag.optimiser(model, config, steps=120)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        gold = splits.train.batch(torch.randint(len(splits.train), (32,), generator=generator))
        if shuffled:
            present = gold["words"] >= 0
            gold["words"][present] = gold["words"][present][torch.randperm(int(present.sum()))]
        optimiser.zero_grad()
        tag.loss(model, gold)[0].backward()
        optimiser.step()
        schedule.step()
    return averages(OpenedRun(open_recipe(tag), SMALL, splits, model), splits.valid)


@overs
def test_it_learns(over: str, splits: datasets.Splits):
    means = final(over, splits)
    assert means["f1"] > 0.95 and means["accuracy"] > 0.97


def test_it_does_not_learn_what_is_not_there(splits: datasets.Splits):
    assert final("softmax", splits, shuffled=True)["f1"] < 0.3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one short epoch."""
    run = tmp_path_factory.mktemp("runs") / "tag" / "tiny"
    training.train(tag, replace(SMALL, epochs=1, batch=50, learning_rate=3e-2), run, Fit(progress="none"))
    return run


def test_what_was_trained_is_measured_and_drawn(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looking, "SHOWN", 3)
    found = evaluate(run)
    assert 0.1 < found["test_f1"] <= 1
    assert evaluate(run, data="generated") == found
    looking.show(run, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= looking.SHOWN
    assert "distance to 1 of the F1 of the validation spans" in page


def test_a_run_tags_texts(run: Path):
    tagger = rg.load(run)
    (answer,) = tagger.predict(["It rained in Oslo."])
    assert answer.words == ["It", "rained", "in", "Oslo", "."] and len(answer.labels) == 5
    assert tagger.predict([["It", "rained", "in", "Oslo", "."]]) == [answer]
    assert tag.written("", answer).splitlines()[3] == f"Oslo\t{answer.labels[3]}"
    for nothing in ("", " ", [], ["a", ""]):
        with pytest.raises(ValueError, match="expected a text with a word in it"):
            tag.prepare(tagger, nothing)


def test_a_run_is_tested_on_other_sentences(run: Path, tmp_path: Path):
    rows = datasets.tagged().test.sentences
    text = "\n".join("".join(f"{word} {label}\n" for word, label in zip(*each[::2], strict=True)) for each in rows)
    (tmp_path / "test.txt").write_text(text)
    assert evaluate(run, data=str(tmp_path)) == evaluate(run)
    (tmp_path / "test.txt").write_text("Zed B-PET\n")
    with pytest.raises(Exception, match="has the label 'B-PET', which is not one to learn"):
        evaluate(run, data=str(tmp_path))


def test_a_picture_says_what_was_found_and_what_is_wrong(splits: datasets.Splits):
    gold = batch(splits)
    model = made(splits).eval()
    pictures = tag.look(model, gold)
    assert len(pictures) == 8 and all(each.png.startswith(b"\x89PNG") for each in pictures)
    wanted = model.spans(gold["labels"][0][gold["words"][0] >= 0].tolist())
    text = pictures[0].text
    assert sum(text.count(f"({kind})") for kind in ("PER", "LOC", "ORG")) >= len(wanted)
    (alone,) = tag.look(model, tag.example(model, "It rained in Oslo.").batch(torch.tensor([0])))
    assert "missed" not in alone.text and "wrong" not in alone.text
