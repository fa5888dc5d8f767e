"""What README.md says of results is what docs/readme.py makes of them."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(ROOT / "docs" / "readme.py"))


def test_the_table_is_that_of_the_results(script: dict):
    text, results = (ROOT / "README.md").read_text(), json.loads(script["RESULTS"].read_text())
    assert results["seeds"] == 3
    assert script["with_table"](text, script["markdown"](results)) == text
    results["rows"][0]["test_error"] += 0.01
    assert script["with_table"](text, script["markdown"](results)) != text


def test_every_picture_is_there(script: dict):
    text = (ROOT / "README.md").read_text()
    for name in script["PICTURES"]:
        assert f"docs/pictures/{name}.png" in text and (ROOT / "docs" / "pictures" / f"{name}.png").is_file()
