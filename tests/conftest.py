"""What every test runs under: one thread, a fixed seed, and no network; the real data; a browser that opens reports."""

import gzip
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

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
    """The folder of real data sets: $REGARD_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("REGARD_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets, and there is no folder {folder}; set REGARD_DATA to where they are")
    return folder


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of idx files with the first 1,000 training and 200 test images of the embedded sample of MNIST."""
    folder = tmp_path_factory.mktemp("digits")
    for file in (ROOT / "src/regard/app/data/sample").glob("*.gz"):
        content, count = gzip.decompress(file.read_bytes()), 1000 if file.name.startswith("train") else 200
        header, each = (16, 28 * 28) if "images" in file.name else (8, 1)
        (folder / file.stem).write_bytes(content[:4] + count.to_bytes(4, "big") + content[8 : header + count * each])
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; tests that ask for it are skipped where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a browser: no chromium on the path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, tmp_path: Path):
    """Opens a report without a network; fails the test if the page complained or asked for anything else."""
    from regard.app.report.layout import write_report  # not above, or jaxtyping would come too late to check it

    complaints, requests, contexts = [], [], []

    def opened(content, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        path = write_report(tmp_path / "report.html", content)
        size = ViewportSize(width=width, height=900)
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, offline=True))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
