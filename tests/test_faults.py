"""What can go wrong with a run: each fault is one sentence, and nothing that was saved is lost."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import tiny_recipe
import torch
import yaml
from tiny_run import ENVIRONMENT, contents, send_at

from regard.app.training import loop
from regard.app.training.checkpoints import read_checkpoint, write_checkpoint
from regard.app.training.config import claim
from regard.app.training.errors import Failure
from regard.app.training.evaluation import evaluate
from regard.app.training.fabric import Fit
from regard.app.training.loop import train
from regard.app.training.metrics import Row
from regard.app.training.run import best_row, locked, open_run, read_config, read_metrics, write, write_metrics
from regard.app.training.weights import digest, read_weights
from regard.recipes.base import Metric

CONFIG = tiny_recipe.Config()
QUIET = Fit(accelerator="cpu", progress="none")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without a fault."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_recipe, CONFIG, run, QUIET)
    return run


def fails(run: Path, config: tiny_recipe.Config = CONFIG, fit: Fit = QUIET, recipe: ModuleType = tiny_recipe) -> str:
    """The sentence with which training fails."""
    with pytest.raises(Failure) as caught:
        train(recipe, config, run, fit)
    assert caught.value.status == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def used(best: Row) -> str:
    """What is said of the best epoch."""
    chosen = f"epoch {best['epoch']}, the best (valid_error {best['valid_error']:.4g})"
    return f"evaluate and predict use the weights of {chosen}.\n"


def after_fsyncs(monkeypatch: pytest.MonkeyPatch, count: int, happen) -> None:
    """Has something happen when a file is to be brought to the disk, after it has been `count` times."""
    sync = os.fsync
    done = iter(range(1000))
    monkeypatch.setattr(os, "fsync", lambda file: happen() if next(done) == count else sync(file))


class TestLossThatIsNotFinite:
    def test_training_stops_and_the_last_good_checkpoint_stays(self, tmp_path):
        said = fails(tmp_path, replace(CONFIG, poison=14))
        last = tmp_path / "last.ckpt"
        assert (
            said
            == f"the loss became nan at step 15 of 18 (epoch 3 of 3): the last good checkpoint is {last} (step 12)."
        )
        checkpoint = read_checkpoint(last)
        assert checkpoint["model"]["model.steps"] == 12
        assert all(value.isfinite().all() for value in checkpoint["model"].values())
        assert len(read_metrics(tmp_path)) == 2

    def test_an_accelerator_is_looked_at_less_often_and_the_step_is_named_all_the_same(self, tmp_path, monkeypatch):
        monkeypatch.setitem(loop.PATIENCE, "cpu", 4)
        said = fails(tmp_path, replace(CONFIG, poison=13))
        assert said.startswith("the loss became nan at step 14 of 18 (epoch 3 of 3): the last good")
        assert read_checkpoint(tmp_path / "last.ckpt")["model"]["model.steps"] == 12

    def test_before_the_first_checkpoint(self, tmp_path):
        said = fails(tmp_path, replace(CONFIG, poison=0))
        assert said == "the loss became nan at step 1 of 18 (epoch 1 of 3): no checkpoint had been saved yet."
        assert not (tmp_path / "last.ckpt").exists()

    def test_an_infinite_loss(self, tmp_path, monkeypatch):
        loss = tiny_recipe.loss
        monkeypatch.setattr(tiny_recipe, "loss", lambda model, batch: (loss(model, batch)[0] * torch.inf, {}))
        assert "the loss became inf at step 1" in fails(tmp_path)

    def test_weights_that_the_last_step_of_an_epoch_has_spoilt(self, tmp_path, monkeypatch):
        def spoil(model, batch):
            total, logs = loss(model, batch)
            if model.steps == 12:  # a finite loss, whose gradient is not
                total = total + 0 * (model.linear.bias - model.linear.bias.detach()).square().sum().sqrt()
            return total, logs

        loss = tiny_recipe.loss
        monkeypatch.setattr(tiny_recipe, "loss", spoil)
        said = fails(tmp_path)
        assert said.startswith("a weight became infinite or nan by step 12 of 18 (epoch 2 of 3): the last good")
        assert read_checkpoint(tmp_path / "last.ckpt")["model"]["model.steps"] == 6
        assert open_run(tmp_path, recipe=tiny_recipe).model.linear.bias.isfinite().all()

    def test_a_metric_that_is_never_a_number(self, tmp_path, monkeypatch):
        nowhere = {"error": torch.tensor([torch.nan])}
        monkeypatch.setattr(tiny_recipe, "evaluate", lambda model, batch: nowhere)
        assert fails(tmp_path) == f"{tmp_path} has no best epoch: valid_error was never a number."

    def test_a_metric_that_is_not_there(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tiny_recipe, "METRIC", Metric("valid_bleu", "max", "BLEU", 100.0))
        assert fails(tmp_path).startswith(
            "the recipe's METRIC is valid_bleu, but the metrics are epoch, step, learning_rate,"
        )


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


class TestFullDisk:
    def test_a_file_is_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        path = tmp_path / "last.ckpt"
        write(path, b"old")
        after_fsyncs(monkeypatch, 0, full)
        with pytest.raises(Failure) as caught:
            write(path, b"new" * 10_000)
        assert str(caught.value) == (
            f"{path} could not be written (No space left on device); what was saved before is intact."
        )
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["last.ckpt"]

    @pytest.mark.parametrize("count", [9, 11, 13])  # the weights, the checkpoint, the metrics of the second epoch
    def test_training_stops_and_goes_on_once_there_is_space(self, whole, tmp_path, monkeypatch, count):
        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            after_fsyncs(patch, count, full)
            said = fails(run)
        assert "could not be written (No space left on device); what was saved before is intact." in said
        assert not list(run.glob(".*.draft"))
        train(tiny_recipe, CONFIG, run, QUIET)
        assert contents(run) == contents(whole)

    def test_a_limit_on_the_size_of_files(self, whole, tmp_path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # the weights fit, the checkpoint does not
        try:
            said = fails(tmp_path / "run")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert said.startswith(f"{tmp_path / 'run' / 'last.ckpt'} could not be written (File too large)")
        train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
        assert contents(tmp_path / "run") == contents(whole)


def test_kill_9_in_the_middle_of_a_save_loses_no_more_than_that_epoch(whole, tmp_path):
    program = f"""if True:
        import os, signal, tiny_recipe
        from regard.app.training.fabric import Fit
        from regard.app.training.loop import train
        replace = os.replace
        def die(draft, path):
            if path.name == "last.ckpt" and path.exists():
                draft.write_bytes(draft.read_bytes()[:1000])
                os.kill(os.getpid(), signal.SIGKILL)
            replace(draft, path)
        os.replace = die
        train(tiny_recipe, tiny_recipe.Config(), {str(tmp_path / "run")!r}, Fit(accelerator="cpu", progress="none"))
    """
    killed = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / ".last.ckpt.draft").stat().st_size == 1000
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["step"] == 6
    train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
    assert contents(tmp_path / "run") == contents(whole)
    assert not list((tmp_path / "run").glob(".*.draft"))


class TestExistingRun:
    def test_a_finished_run_stays_as_it_is(self, whole, capfd):
        before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
        del before[whole / ".lock"]
        best = train(tiny_recipe, CONFIG, whole, Fit(accelerator="cpu"))
        assert capfd.readouterr().err == f"{whole} is already finished.\n" + used(best)
        assert best == best_row(read_metrics(whole), tiny_recipe.METRIC)
        assert before == {path: path.stat().st_mtime_ns for path in whole.iterdir() if path.name != ".lock"}

    def test_another_configuration_is_refused(self, whole):
        before = contents(whole)
        said = fails(whole, replace(CONFIG, learning_rate=0.1, epochs=9))
        assert said == (
            f"{whole} exists already, and with another configuration (epochs is 3 there and 9 here, learning_rate is "
            "0.05 there and 0.1 here): give another name."
        )
        assert contents(whole) == before

    def test_another_recipe_is_refused(self, whole):
        other = ModuleType("glimpse")
        vars(other).update(vars(tiny_recipe) | {"__name__": "regard.recipes.glimpse"})
        assert "(recipe is tiny_recipe there and glimpse here)" in fails(whole, recipe=other)

    def test_a_checkpoint_of_who_knows_what_is_not_overwritten(self, tmp_path):
        (tmp_path / "last.ckpt").write_bytes(b"precious")
        assert fails(tmp_path) == f"{tmp_path} is not a run: it has no config.yaml."
        assert (tmp_path / "last.ckpt").read_bytes() == b"precious"

    def test_another_configuration_is_welcome_as_long_as_there_is_nothing_to_lose(self, whole, tmp_path):
        fails(tmp_path, replace(CONFIG, poison=0))
        train(tiny_recipe, CONFIG, tmp_path, QUIET)
        assert contents(tmp_path) == contents(whole)

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "run").write_text("")
        assert fails(tmp_path / "run") == f"{tmp_path / 'run'} cannot be used as a folder (File exists)."

    def test_metrics_that_lag_behind_the_checkpoint_are_made_good(self, whole, tmp_path, monkeypatch):
        run = tmp_path / "run"
        send_at(monkeypatch, 14, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Failure):
            train(tiny_recipe, CONFIG, run, QUIET)
        write_metrics(run, read_metrics(run)[:1])
        train(tiny_recipe, CONFIG, run, QUIET)
        assert contents(run) == contents(whole)


class TestLock:
    def test_a_run_in_use_is_refused(self, tmp_path):
        with locked(tmp_path):
            said = fails(tmp_path)
        assert said == f"{tmp_path} is being trained by another process ({os.getpid()})."
        train(tiny_recipe, CONFIG, tmp_path, QUIET)

    def test_the_lock_of_a_process_that_died_is_taken_over(self, tmp_path):
        hold = "import fcntl, sys, time; file = open(sys.argv[1], 'a+'); fcntl.flock(file, fcntl.LOCK_EX);"
        hold += "file.write('0'); file.flush(); print(flush=True); time.sleep(60)"
        holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
        assert fails(tmp_path) == f"{tmp_path} is being trained by another process (0)."
        holder.kill()
        holder.communicate()
        train(tiny_recipe, CONFIG, tmp_path, QUIET)
        assert (tmp_path / ".lock").read_text() == str(os.getpid())

    def test_it_is_given_back_after_a_failure(self, tmp_path):
        fails(tmp_path, replace(CONFIG, poison=0))
        with open(tmp_path / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Bomb:
    """An object whose unpickling runs code."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class TestDamagedRun:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch) -> Path:
        send_at(monkeypatch, 8, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Failure):
            train(tiny_recipe, CONFIG, tmp_path / "run", QUIET)
        return tmp_path / "run"

    def test_a_checkpoint_cannot_run_code(self, run, tmp_path):
        for path in (run / "last.ckpt", run / "previous.ckpt"):  # the second would be gone on from, without its digest
            torch.save({"run": {}, "model": Bomb(tmp_path / "hit")}, path)
        assert fails(run).startswith(f"{run / 'last.ckpt'} is damaged, or holds what could run code (ValueError)")
        for _ in range(2):
            write_checkpoint(run, {"run": {}, "model": Bomb(tmp_path / "hit")})
        assert fails(run).startswith(f"{run / 'last.ckpt'} is damaged, or holds what could run code (UnpicklingError)")
        assert not (tmp_path / "hit").exists()
        torch.load(run / "last.ckpt", weights_only=False)["model"].close()
        assert (tmp_path / "hit").exists()  # it would have gone off

    @pytest.mark.parametrize("size", [0, 20, 1000])
    def test_after_a_truncated_checkpoint_the_one_before_goes_on(self, whole, run, size, capfd):
        os.truncate(run / "last.ckpt", size)
        train(tiny_recipe, CONFIG, run, QUIET)
        assert contents(run) == contents(whole)
        damaged = (
            f"{run / 'last.ckpt'} is damaged, or holds what could run code (ValueError): nothing was loaded from it."
        )
        assert capfd.readouterr().err == (
            f"warning: {damaged} Training goes on from previous.ckpt, which was saved before it.\n"
        )

    @pytest.mark.parametrize("size", [0, 1000])
    def test_two_truncated_checkpoints(self, run, size):
        for name in ("last.ckpt", "previous.ckpt"):
            os.truncate(run / name, size)
        assert fails(run).startswith(f"{run / 'last.ckpt'} is damaged, or holds what could run code (")

    def test_no_bit_of_a_checkpoint_can_rot_unseen(self, run):
        path = run / "last.ckpt"
        data = path.read_bytes()
        for place in range(0, len(data), len(data) // 97):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
            with pytest.raises(Failure, match="is damaged"):
                read_checkpoint(path)
        path.write_bytes(data)
        assert read_checkpoint(path)["step"] == 9

    def test_no_bit_of_the_weights_can_rot_unseen(self, run):
        path = run / "model.safetensors"
        data, true, refused = path.read_bytes(), digest(read_weights(run)), 0
        for place in range(0, len(data), 3):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
            try:
                assert digest(read_weights(run)) == true, "a bit of what says the digest"
            except Failure as failure:
                refused += 1
                assert f"{path} cannot be loaded: " in str(failure)  # noqa: PT017
        assert refused > len(data) // 3 - 20

    @pytest.mark.parametrize(
        "text",
        [
            "epoch,step,valid_error\n2,6,0.5\n",
            "epoch,step,valid_error\n1,6,half\n",
            "epoch,step,valid_error\n1,6\n",
            "epoch,step,valid_error\n1,6,0.5,0.5\n",
            "epoch,step,valid_error\n1,6,0.5\n2,12\n",
            'epoch,step,valid_error\n1,6,"0.5\n',
            "precious\n",
            "\n\n1,2\n",
            "epoch,step,valid_error\n1,6,0.5\x00\n",
            "epoch,step,valid_error\n1,6,0.\xff5\n",
        ],
    )
    def test_damaged_metrics(self, whole, run, text, capfd):
        path = run / "metrics.csv"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(Failure, match=r"metrics\.csv is damaged: "):
            read_metrics(run)
        train(tiny_recipe, CONFIG, run, QUIET)
        said = capfd.readouterr().err
        assert said.startswith(f"warning: {path} is damaged: ") and said.endswith("as last.ckpt has its rows.\n")
        assert contents(run) == contents(whole)
        path.write_bytes(text.encode("latin-1"))
        for name in ("last.ckpt", "previous.ckpt"):
            (run / name).unlink()
        assert fails(run).startswith(f"{path} is damaged: ")

    @pytest.mark.parametrize("name", ["os", "regard.app.cli", "../glimpse", 7])
    def test_a_configuration_cannot_choose_what_is_imported(self, run, name):
        (run / "config.yaml").write_text(yaml.safe_dump({"recipe": name, "seed": 0}))
        with pytest.raises(Failure, match=r"names the recipe .*, which regard does not have|is of a recipe in a file"):
            open_run(run)

    def test_a_configuration_cannot_run_code(self, run, tmp_path):
        hit = tmp_path / "hit"
        (run / "config.yaml").write_text(f"recipe: !!python/object/apply:pathlib.Path.touch [{hit}]")
        with pytest.raises(Failure, match=r"config.yaml cannot be read: could not determine a constructor"):
            open_run(run, recipe=tiny_recipe)
        assert not hit.exists()

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("recipe: tiny_recipe\nseed: many", 'does not fit its recipe: .*"seed".* Got value: many'),
            ("recipe: tiny_recipe\nsede: 1", "does not fit its recipe: .*'sede'"),
            ("seed: 1", "should name a recipe and the fields of its configuration, but does not"),
            ("recipe: [", "cannot be read: while parsing"),
        ],
    )
    def test_a_configuration_that_does_not_fit(self, run, text, why):
        (run / "config.yaml").write_text(text)
        with pytest.raises(Failure, match=f"config.yaml {why}"):
            open_run(run, recipe=tiny_recipe)

    def test_weights_of_another_model(self, run):
        tiny = ModuleType("tiny_recipe")
        vars(tiny).update(vars(tiny_recipe) | {"Model": lambda config, splits: torch.nn.Linear(2, 3)})
        with pytest.raises(Failure, match=r"model.safetensors cannot be loaded: .*Unexpected key"):
            evaluate(run, fit=QUIET, recipe=tiny)

    def test_damaged_weights(self, run):
        os.truncate(run / "model.safetensors", 100)
        with pytest.raises(Failure, match=r"model.safetensors cannot be loaded: "):
            evaluate(run, fit=QUIET, recipe=tiny_recipe)

    def test_lost_weights(self, run):
        (run / "model.safetensors").unlink()
        with pytest.raises(Failure, match=r"has lost model.safetensors: the command that trained it makes it anew\."):
            open_run(run, recipe=tiny_recipe)

    def test_no_weights_yet(self, run):
        (run / "model.safetensors").unlink()
        (run / "metrics.csv").unlink()
        with pytest.raises(Failure, match=r"has no model.safetensors yet: its first epoch has not ended\."):
            open_run(run, recipe=tiny_recipe)

    def test_a_run_of_another_recipe(self, run):
        other = ModuleType("other")
        vars(other).update(vars(tiny_recipe) | {"__name__": "other"})
        with pytest.raises(Failure, match=r"is a run of the recipe 'tiny_recipe', not of other\."):
            open_run(run, recipe=other)

    def test_no_run(self, tmp_path):
        with pytest.raises(Failure, match=r"nowhere is not a run: it has no config.yaml\."):
            evaluate(tmp_path / "nowhere")


def test_a_configuration_is_read_as_it_was_written(tmp_path):
    config = tiny_recipe.Config(seed=3, data="bücher", learning_rate=1e-5, dropout=0.0)
    claim(tmp_path, tiny_recipe, config)
    assert read_config(tmp_path, tiny_recipe)[1] == config


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (Fit(accelerator="cuba"), "accelerator"),
        (Fit(accelerator="cpu", precision="13-bit"), "13-bit"),
        (Fit(accelerator="cpu", devices=0), "devices"),
    ],
)
def test_a_machine_that_cannot_do_what_is_asked(tmp_path, fit, reason):
    said = fails(tmp_path, fit=replace(fit, progress="none"))
    assert said.startswith("training cannot be set up as asked: ")
    assert reason in said


def test_a_torchvision_that_does_not_load(tmp_path):
    """As it is beside a CPU build of torch: installed, as far as anyone can tell, but its import fails."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    (tmp_path / "torchvision-0.28.0.dist-info").mkdir()
    (tmp_path / "torchvision-0.28.0.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 0.28.0\n")
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])}
    program = [sys.executable, "-c", "import regard.app.training.loop"]
    said = subprocess.run(program, env=environment, stderr=subprocess.PIPE, text=True, timeout=100).stderr
    assert said.splitlines()[-1] == (
        "regard.app.training.errors.Failure: torchvision is installed but does not fit this torch "
        "(operator torchvision::nms does not exist): `python -m pip uninstall torchvision` repairs it, or installing "
        "the two together from one index."
    )
