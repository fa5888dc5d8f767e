import os
import re
import signal
import socket
from pathlib import Path

import pytest
import tiny_recipe
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import contents, send_at, start

from regard.app.data.splits import Splits
from regard.app.training import loop, monitor, progress
from regard.app.training.batches import evaluation_batches, training_batches
from regard.app.training.checkpoints import read_checkpoint, write_checkpoint
from regard.app.training.errors import Failure, Interrupted
from regard.app.training.evaluation import averages, evaluate, results
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.run import best_row, open_run, read_metrics
from regard.recipes.base import Metric

CONFIG = tiny_recipe.Config()  # three epochs of six steps
QUIET = Fit(accelerator="cpu", progress="none")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that was never interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_recipe, CONFIG, run, QUIET)
    return run


def interrupt(patch: pytest.MonkeyPatch, run: Path, *steps: int, send: int = signal.SIGINT, fit: Fit = QUIET) -> str:
    """Trains, and has a real signal arrive in the middle of each of these steps, counted over all epochs from 0."""
    message = ""
    for step in steps:
        send_at(patch, step, lambda: os.kill(os.getpid(), send))
        with pytest.raises(Interrupted) as caught:
            train(tiny_recipe, CONFIG, run, fit)
        message = str(caught.value)
    return message


@pytest.mark.parametrize("steps", [(0,), (2,), (4,), (5,), (6,), (9,), (11,), (16,), (1, 3, 5, 8, 12)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch, steps):
    interrupt(monkeypatch, tmp_path / "run", *steps)
    train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_and_saves(tmp_path, monkeypatch, send):
    message = interrupt(monkeypatch, tmp_path / "run", 8, send=send)
    checkpoint = tmp_path / "run" / "last.ckpt"
    assert message == f"stopped at step 9 of 18 (epoch 2 of 3), as asked: the same command goes on from {checkpoint}."
    assert read_checkpoint(checkpoint)["model"]["model.steps"] == 9
    assert Interrupted.status == 130


def test_a_second_signal_stops_at_once_and_nothing_is_lost(whole, tmp_path, monkeypatch):
    send_at(monkeypatch, 8, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(Interrupted, match=r"stopped at once: the last good checkpoint is .*last.ckpt \(step 6\)\."):
        train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
    train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
    assert contents(tmp_path / "run") == contents(whole)


def test_what_a_recipe_finds_wrong_is_said_once(tmp_path, monkeypatch, capsys):
    late = lambda row: "it is late" if row["epoch"] >= 2 else ""  # noqa: E731
    monkeypatch.setattr(tiny_recipe, "warning", late, raising=False)
    train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
    assert capsys.readouterr().err.count("warning:") == 1, "of three epochs"


def test_signals_mean_afterwards_what_they_meant_before(whole, tmp_path, monkeypatch):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    interrupt(monkeypatch, tmp_path / "run", 2)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


class TestTheComparisonSees:
    """Negative controls: whatever a resume could forget makes the runs differ."""

    @pytest.fixture(autouse=True)
    def interrupted(self, whole, tmp_path, monkeypatch):
        interrupt(monkeypatch, tmp_path / "run", 8)
        yield
        train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
        assert contents(tmp_path / "run") != contents(whole)

    def test_the_seed_of_a_step(self, monkeypatch):
        monkeypatch.setattr(loop, "seed_all", lambda seed, device: None)

    def test_the_place_in_the_epoch(self, tmp_path):
        self.change(tmp_path, lambda checkpoint: checkpoint.update(place=4))

    @pytest.mark.parametrize("name", ["model.average", "model.linear.bias"])
    def test_weights_and_buffers(self, tmp_path, name):
        self.change(tmp_path, lambda checkpoint: checkpoint["model"][name].add_(1e-6))

    def test_the_optimizer(self, tmp_path):
        self.change(
            tmp_path, lambda checkpoint: checkpoint["optimizer"]["state"]["model.linear.weight"]["exp_avg"].add_(1e-6)
        )

    def test_the_scheduler(self, tmp_path):
        self.change(tmp_path, lambda checkpoint: checkpoint["scheduler"].update(last_epoch=7))

    def test_the_averages_of_the_epoch(self, tmp_path):
        self.change(tmp_path, lambda checkpoint: checkpoint["sums"].update(loss=0.0))

    def change(self, tmp_path, edit):
        checkpoint = read_checkpoint(tmp_path / "run" / "last.ckpt")
        edit(checkpoint)
        write_checkpoint(tmp_path / "run", checkpoint)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[str]]:
    """Two processes that torchrun could have started: a run without a stop, one that is stopped, and resumed; what
    the two said."""
    runs = tmp_path_factory.mktemp("two")
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    world |= {"TORCHELASTIC_RUN_ID": "tests", "GROUP_RANK": "0"}
    todo = [runs / "whole", f"{runs / 'stopped'}:8:SIGTERM", runs / "stopped"]
    processes = [start(2, *todo, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return runs, said


def test_two_processes_stop_together_and_the_first_speaks(pair):
    runs, said = pair
    place = "stopped at step 9 of 18 (epoch 2 of 3), as asked"
    assert said == [f"{place}: the same command goes on from {runs / 'stopped' / 'last.ckpt'}.\n", ""]


def test_two_processes_end_as_if_they_had_not_been_interrupted(pair):
    runs, _ = pair
    assert contents(runs / "stopped") == contents(runs / "whole")


def test_two_processes_evaluate_as_one_does(pair):
    run = pair[0] / "whole"
    best = best_row(read_metrics(run), tiny_recipe.METRIC)
    found = evaluate(run, "valid", QUIET, tiny_recipe)
    assert best and found == {name: best[name] for name in ("valid_error", "valid_loss", "valid_chance")}


def test_two_processes_that_lightning_starts_do_the_same(pair):
    runs, _ = pair
    stopped = start(2, f"{runs / 'started'}:8:SIGINT")
    assert "stopped at step 9 of 18 (epoch 2 of 3), as asked: the same" in stopped.communicate(timeout=100)[1]
    assert stopped.returncode == 130
    resumed = start(2, runs / "started")
    assert resumed.communicate(timeout=100)[1] == ""
    assert resumed.returncode == 0
    assert contents(runs / "started") == contents(runs / "whole")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class TestBatches:
    @pytest.mark.parametrize("world", [1, 2, 4])
    def test_processes_share_the_same_batches(self, world):
        alone = [sorted(indices.tolist()) for indices, _ in training_batches(51, 8, seed=0, epoch=0)]
        shares = zip(*(training_batches(51, 8, 0, 0, None, rank, world) for rank in range(world)), strict=True)
        together = [torch.cat([indices for indices, _ in step]).sort().values.tolist() for step in shares]
        assert together == alone
        assert len({index for batch in alone for index in batch}) == 48

    def test_every_epoch_seed_and_process_has_random_numbers_of_its_own(self):
        cases = [(seed, epoch, rank) for seed in (0, 1) for epoch in range(3) for rank in (0, 1)]
        batches = [training_batches(51, 8, seed, epoch, None, rank, 2) for seed, epoch, rank in cases]
        seeds = [seed for each in batches for _, seed in each]
        assert len(set(seeds)) == len(seeds) == 3 * 4 * 6

    def test_epochs_differ_and_repeat(self):
        first, again, other = (
            torch.cat([indices for indices, _ in training_batches(51, 8, seed=0, epoch=epoch)]) for epoch in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_evaluation_sees_every_example_once(self):
        batches = evaluation_batches(21, 8, seed=0)
        assert torch.equal(torch.cat([indices for indices, _ in batches]), torch.arange(21))
        assert len({seed for _, seed in batches}) == 3
        assert [seed for _, seed in batches] != [seed for _, seed in evaluation_batches(21, 8, seed=1)]

    def test_a_batch_larger_than_the_split_is_the_split(self):
        assert [len(indices) for indices, _ in training_batches(5, 8, seed=0, epoch=0)] == [5]
        assert [len(indices) for indices, _ in evaluation_batches(5, 8, seed=0)] == [5]

    def test_a_batch_is_of_examples_about_as_long_as_each_other(self):
        lengths = torch.randint(1, 100, (501,))
        batches, again, other, plain = (
            [indices for indices, _ in training_batches(501, 8, 0, epoch, each)]
            for epoch, each in ((0, lengths), (0, lengths), (1, lengths), (0, None))
        )
        assert len(batches) == len(plain) == 62
        assert all(map(torch.equal, batches, again))
        assert torch.cat(batches).unique().tolist() == torch.cat(plain).unique().tolist()

        def padded(batches) -> float:
            return sum(8 * int(lengths[indices].max()) for indices in batches) / int(lengths[torch.cat(batches)].sum())

        assert padded(batches) < 1.2 < 1.5 < padded(plain)
        means = torch.tensor([lengths[indices].double().mean() for indices in batches])
        assert (means.diff() > 0).sum() < 45, "and short batches do not come before long ones"
        together = {frozenset(indices.tolist()) for indices in batches}
        assert not together & {frozenset(indices.tolist()) for indices in other}

    def test_evaluation_goes_by_length(self):
        batches = evaluation_batches(5, 2, seed=0, lengths=torch.tensor([3, 1, 2, 1, 9]))
        assert [indices.tolist() for indices, _ in batches] == [[1, 3], [2, 0], [4]]

    @pytest.mark.parametrize(("count", "batch"), [(51, 7), (1, 8)])
    def test_a_batch_that_cannot_be_shared_is_refused(self, count, batch):
        with pytest.raises(Failure, match=r"2 processes cannot share batches of \d examples equally"):
            training_batches(count, batch, seed=0, epoch=0, world=2)


def test_metrics_are_one_tidy_row_an_epoch(whole):
    rows = read_metrics(whole)
    train_names, valid_names = (
        ["train_loss", "train_error", "train_average"],
        ["valid_error", "valid_loss", "valid_chance"],
    )
    assert [list(row) for row in rows] == [["epoch", "step", "learning_rate", *train_names, *valid_names]] * 3
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 6), (2, 12), (3, 18)]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_training_learns_and_from_shuffled_labels_it_does_not(tmp_path, monkeypatch):
    config = tiny_recipe.Config(epochs=4, dropout=0.0)
    train_split, valid_split, test_split = tiny_recipe.Split(400, 1), tiny_recipe.Split(200, 2), tiny_recipe.Split(9, 3)
    splits = Splits(train_split, valid_split, test_split, "more points")
    monkeypatch.setattr(tiny_recipe, "data", lambda config: splits)
    assert train(tiny_recipe, config, tmp_path / "true", QUIET)["valid_loss"] < 0.6
    train_split.labels = train_split.labels[torch.randperm(400)]
    assert train(tiny_recipe, config, tmp_path / "shuffled", QUIET)["valid_loss"] > 1


def test_the_best_weights_are_kept_and_evaluated(tmp_path, monkeypatch):
    metric = Metric("train_average", "min", "an average")  # which grows: the first epoch is the best
    monkeypatch.setattr(tiny_recipe, "METRIC", metric)
    best = train(tiny_recipe, CONFIG, tmp_path, QUIET)
    rows = read_metrics(tmp_path)
    assert best == rows[0] != rows[-1]
    assert evaluate(tmp_path, "valid", QUIET, tiny_recipe) == {
        name: best[name] for name in ("valid_error", "valid_loss", "valid_chance")
    }
    recipe, config, _, model = open_run(tmp_path, recipe=tiny_recipe)
    assert (recipe.name, config, model.training) == ("tiny_recipe", CONFIG, False)
    assert model.steps == 6  # a buffer of the first epoch
    assert read_checkpoint(tmp_path / "last.ckpt")["model"]["model.steps"] == 18


def test_evaluation_is_of_the_test_split_unless_said_otherwise(whole):
    assert set(evaluate(whole, fit=QUIET, recipe=tiny_recipe)) == {"test_error", "test_loss", "test_chance"}
    assert set(evaluate(whole, "train", QUIET, tiny_recipe)) == {"train_error", "train_loss", "train_chance"}


def test_there_is_one_evaluator(whole):
    """Whoever asks, and of whichever data, chance is the same: the random numbers are the batch's."""
    found = evaluate(whole, fit=QUIET, recipe=tiny_recipe)
    torch.manual_seed(7)
    assert evaluate(whole, fit=QUIET, recipe=tiny_recipe, data="embedded") == found
    opened = open_run(whole, recipe=tiny_recipe)
    assert {f"test_{name}": value for name, value in averages(opened, opened.splits.test).items()} == found
    parts = [values["chance"] for _, values in results(opened, opened.splits.test)]
    assert torch.cat(parts).double().mean().item() == pytest.approx(found["test_chance"])
    assert found["test_chance"] != evaluate(whole, "valid", QUIET, tiny_recipe)["valid_chance"]


def test_an_evaluation_leaves_the_random_numbers_of_others_alone(whole):
    opened = open_run(whole, recipe=tiny_recipe)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    averages(opened, opened.splits.test)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_batches_can_be_prepared_by_other_processes(whole, tmp_path, monkeypatch):
    fit = Fit(accelerator="cpu", progress="none", workers=1)
    interrupt(monkeypatch, tmp_path / "run", 8, fit=fit)
    train(tiny_recipe, CONFIG, tmp_path / "run", fit)
    assert contents(tmp_path / "run") == contents(whole)


def test_an_accelerator_is_looked_at_less_often(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.PATIENCE, "cpu", 4)
    assert "stopped at step 10 of 18" in interrupt(monkeypatch, tmp_path / "run", 7)
    train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM])
def test_an_evaluation_can_be_interrupted(whole, monkeypatch, send):
    def interrupted(model, batch):
        os.kill(os.getpid(), send)
        return evaluate_batch(model, batch)

    evaluate_batch = tiny_recipe.evaluate
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    monkeypatch.setattr(tiny_recipe, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(whole, fit=QUIET, recipe=tiny_recipe)
    assert signal.signal(signal.SIGTERM, before) == signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_bfloat16_on_the_cpu(tmp_path, monkeypatch):
    seen = set()
    forward = tiny_recipe.Model.forward

    def look(self, points):
        logits = forward(self, points)
        seen.add(logits.dtype)
        return logits

    monkeypatch.setattr(tiny_recipe.Model, "forward", look)
    fit = Fit(accelerator="cpu", progress="none", precision="bf16-mixed")
    best = train(tiny_recipe, tiny_recipe.Config(epochs=8), tmp_path, fit)
    assert seen == {torch.bfloat16}
    assert best["valid_loss"] < 0.8
    assert open_run(tmp_path, recipe=tiny_recipe).model.linear.weight.dtype == torch.float32


def test_nothing_global_changes(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), dict(os.environ)
    train(tiny_recipe, CONFIG, tmp_path, Fit(accelerator="cpu", progress="none", threads=2))
    evaluate(tmp_path, fit=QUIET, recipe=tiny_recipe)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), dict(os.environ)) == before[1:]


def test_threads_are_those_asked_for(tmp_path, monkeypatch):
    seen = []
    send_at(monkeypatch, 2, lambda: seen.append(torch.get_num_threads()))
    train(tiny_recipe, CONFIG, tmp_path, Fit(accelerator="cpu", progress="none", threads=2))
    assert seen == [2]


class TestProgress:
    def test_none_is_silent(self, tmp_path, capfd):
        train(tiny_recipe, CONFIG, tmp_path, QUIET)
        assert capfd.readouterr() == ("", "")

    def test_the_bar_says_the_data_and_the_numbers_and_lightning_nothing(self, tmp_path, capfd):
        train(tiny_recipe, CONFIG, tmp_path / "first", Fit(accelerator="cpu"))
        out, err = capfd.readouterr()
        first, *bars, last = err.splitlines()
        assert (out, first) == ("", "82 points of three classes")
        assert all("tiny_recipe first" in bar for bar in bars)
        assert "100%" in bars[-1]
        assert re.fullmatch(
            r"evaluate and predict use the weights of epoch \d, the best \(valid_error 0\.\d+\)\.", last
        )

    def test_the_bar_says_that_a_run_goes_on(self, tmp_path, capfd, monkeypatch):
        interrupt(monkeypatch, tmp_path / "run", 8)
        train(tiny_recipe, CONFIG, tmp_path / "run", Fit(accelerator="cpu"))
        assert capfd.readouterr().err.splitlines()[1] == f"going on from {tmp_path / 'run' / 'last.ckpt'}"

    def test_off_a_terminal_a_line_is_said_now_and_then(self, tmp_path, capfd, monkeypatch):
        clock = iter(range(0, 10**6, 2))
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
        train(tiny_recipe, CONFIG, tmp_path / "run", Fit(accelerator="cpu"))
        _, *lines, _ = capfd.readouterr().err.splitlines()
        shares = [int(re.search(r"tiny_recipe run +(\d+)%", line)[1]) for line in lines]
        assert 3 < len(shares) < 12 and shares == sorted(shares) and shares[-1] == 100

    def test_in_a_terminal_it_is_a_bar(self, tmp_path, capfd, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        train(tiny_recipe, CONFIG, tmp_path / "[/nope]", Fit(accelerator="cpu"))
        assert "━" in capfd.readouterr().err

    def test_a_function_is_told(self, tmp_path):
        told = []
        train(tiny_recipe, CONFIG, tmp_path, Fit(accelerator="cpu", progress=lambda *news: told.append(news)))
        fractions = [fraction for fraction, _ in told]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
        assert list(told[-1][1]) == ["epoch", "train_loss", "valid_error"]


class TestTensorBoard:
    def test_it_is_written_where_it_is_installed(self, tmp_path):
        train(tiny_recipe, CONFIG, tmp_path, QUIET)
        log = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [event.step for event in log.Scalars("valid_error")] == [6, 12, 18]

    def test_it_is_not_missed_elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.setattr(monitor, "find_spec", lambda name: None)
        train(tiny_recipe, CONFIG, tmp_path, QUIET)
        assert not (tmp_path / "tensorboard").exists()
