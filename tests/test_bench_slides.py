"""The benchmark of patches from files, on small ones: that all read the same, and what is counted and drawn."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import regard as rg

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def slides(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    module = importlib.import_module("slides")
    for name, value in {"SIDES": (1024, 2048), "PATCHES": 3, "TEXTURES": 2, "COUNTED": 3}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.harness, "interleave", partial(module.harness.interleave, round_ms=0))
    return module


def test_rows_say_what_was_read_and_are_drawn(slides, monkeypatch, capsys, tmp_path: Path):
    figure = tmp_path / "slides.png"
    monkeypatch.setattr("sys.argv", ["slides.py", "--rounds", "1", "--json", "--figure", str(figure)])
    slides.harness.main("slides", slides.measure, slides.draw)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["case"] for row in rows] == [
        *["3 patches of a TIFF, 1,024 pixels a side"] * 2,
        *["3 patches of a TIFF, 2,048 pixels a side"] * 2,
        "3 patches of a TIFF, 1,024 pixels a side",
        "3 patches of a zarr store, 1,024 pixels a side",
    ]
    for row in rows:
        assert 2 < row["patch_tiles"] <= 4
        assert row["ours_peak_mb"] > 3 * 3 * 256 * 256 * 4 / 1e6
    assert rows[0]["patch_bytes"] < rows[0]["image_bytes"] < rows[2]["image_bytes"] / 3
    with Image.open(figure) as drawn:
        assert drawn.size[0] > 400


def test_the_check_notices_another_patch(slides, tmp_path: Path):
    path = slides.write(tmp_path / "image.tif", 1024, slides.textures())
    sensor = rg.Glimpses([rg.open_image(path)], 256)
    for through in (slides.through_tifffile, slides.through_openslide, slides.whole):
        slides.check(sensor, 1024, path, through)

    @contextmanager
    def turned(path: Path) -> Iterator:
        with slides.whole(path) as read:
            yield lambda at: read([(column, row) for row, column in at])

    with pytest.raises(AssertionError):
        slides.check(sensor, 1024, path, turned)
