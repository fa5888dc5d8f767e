"""Training on two machines that torchrun starts: here each in a network of its own, where that is allowed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny_recipe
from tiny_run import ENVIRONMENT, contents

from regard.app.training.run import read_metrics

pytestmark = pytest.mark.unchecked
SCRIPT = Path(__file__).with_name("tiny_run.py")


class Machines(NamedTuple):
    """What each machine's commands begin with, its environment, and the address of the first."""

    prefixes: tuple[list[str], list[str]]
    environments: tuple[dict[str, str], dict[str, str]]
    address: str


NAMES, LINKS = ([f"{kind}{os.getpid()}-{n}" for n in range(2)] for kind in ("regard", "rg"))
"""Of this process alone, as another may test on the same machine; a link's name has 15 letters at most."""
ADDRESSES = ("10.77.13.1", "10.77.13.2")


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Two networks with a cable between them, or, where none may be made, one machine twice."""
    remove = [["ip", "netns", "del", name] for name in NAMES]
    lay = [["ip", "netns", "add", name] for name in NAMES]
    lay.append(["ip", "link", "add", LINKS[0], "type", "veth", "peer", "name", LINKS[1]])
    for name, link, address in zip(NAMES, LINKS, ADDRESSES, strict=True):
        lay.append(["ip", "link", "set", link, "netns", name])
        inside = ["ip", "-n", name]
        lay.append([*inside, "addr", "add", f"{address}/24", "dev", link])
        lay += [[*inside, "link", "set", each, "up"] for each in (link, "lo")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        apart = bool(shutil.which("ip")) and all(subprocess.call(command, **quiet) == 0 for command in lay)
        if apart:
            prefixes = tuple(["ip", "netns", "exec", name] for name in NAMES)
            yield Machines(prefixes, tuple({"GLOO_SOCKET_IFNAME": link} for link in LINKS), ADDRESSES[0])
        else:
            yield Machines(([], []), ({}, {}), "127.0.0.1")
    finally:
        if shutil.which("ip"):
            for command in remove:
                subprocess.call(command, **quiet)


def started(machines: Machines, folder: Path, *todo: object, **environment: str) -> list[int]:
    """Has both machines do the same, and gives the statuses of their launchers; what they print is kept in the folder,
    and shown where they hang."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    processes, logs = [], [folder / f"machine{node}.log" for node in range(2)]
    for node in range(2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        launch += ["--node-rank", str(node), "--master-addr", machines.address, "--master-port", str(port)]
        command = [*machines.prefixes[node], *launch, str(SCRIPT), "1", *map(str, todo)]
        its_own = ENVIRONMENT | machines.environments[node] | environment | {"NODES": "2"}
        with logs[node].open("w") as log:
            processes.append(subprocess.Popen(command, env=its_own, stderr=log, start_new_session=True))
    try:
        return [process.wait(timeout=200) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail("the machines hang: " + "\n".join(log.read_text()[-4000:] for log in logs))
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_machine_that_is_lost_loses_nothing(machines: Machines, tmp_path: Path):
    assert started(machines, tmp_path, tmp_path / "whole") == [0, 0]
    lost = started(machines, tmp_path, f"{tmp_path / 'lost'}:8:SIGKILL", SENDER="1")
    assert all(lost), "the second machine is killed in the second epoch, and the first cannot go on"
    assert [row["epoch"] for row in read_metrics(tmp_path / "lost")] == [1]
    assert started(machines, tmp_path, tmp_path / "lost") == [0, 0]
    assert contents(tmp_path / "lost") == contents(tmp_path / "whole")
    assert len(read_metrics(tmp_path / "whole")) == tiny_recipe.Config().epochs
