"""What every test runs under: one thread, a fixed seed, and no network."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random numbers and leaves one thread, whichever tests ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for code under test that draws from NumPy's global generator
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch):
    """Lets sockets connect to this machine alone."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address):
        here = self.family == socket.AF_UNIX or address[0] in ("localhost", "127.0.0.1", "::1")
        if not here:
            raise PermissionError(f"tests have no network, but one connects to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: $SACCADE_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets, and there is no folder {folder}; set SACCADE_DATA to where they are")
    return folder
