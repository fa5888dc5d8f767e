"""What is measured, as text: where it was measured, numbers with their spread, and how they are printed and written.

The scripts in benchmarks/ and experiments/ have this in common.
"""

import argparse
import io
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.app.training.run import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parser(name: str, about: str, figure: bool = False) -> argparse.ArgumentParser:
    """The flags of every such script: --json, --out and, if it draws, --figure.

    >>> parser("speed", "How fast.").parse_args(["--json"])
    Namespace(json=True, out=None)
    """
    flags = argparse.ArgumentParser(name, allow_abbrev=False, description=about)
    flags.add_argument("--json", action="store_true", help="print JSON")
    flags.add_argument("--out", type=Path, metavar="FILE", help="write the JSON to a file, too")
    if figure:
        flags.add_argument("--figure", type=Path, metavar="FILE", help="draw it, as PNG, such as docs/NAME.png")
    return flags


def add_rounds(flags: argparse.ArgumentParser, usual: int, least: int = 1) -> None:
    """The flag --rounds of a script that measures again and again."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, but got {text}.")
        return int(text)

    flags.add_argument("--rounds", type=number, default=usual, help="how often everything is measured")


def give(found: dict[str, Any], options: argparse.Namespace, show: Callable[[], None]) -> None:
    """Prints what was found, as JSON or as `show` does, and writes the JSON if asked to."""
    print(as_json(found)) if options.json else show()
    if options.out:
        save_json(found, options.out)


def as_json(found: dict[str, Any]) -> str:
    """Results as text that a person can read, too."""
    return json.dumps(found, indent=2)


def save_json(found: dict[str, Any], file: Path) -> None:
    """Writes results into a file whose folder need not be there yet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, as_json(found).encode() + b"\n")


def save_figure(figure: "Figure", file: Path) -> None:
    """Writes a figure as a small PNG."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=130)
    Image.open(drawn).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, small.getvalue())


def save_stacked(pictures: Sequence[bytes], file: Path) -> None:
    """Writes pictures, PNG each, below each other into one small PNG."""
    from PIL import Image

    rows, small = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures], io.BytesIO()
    whole = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    for n, row in enumerate(rows):
        whole.paste(row, (0, sum(each.height for each in rows[:n])))
    whole.quantize(128).save(small, format="png", optimize=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, small.getvalue())


def machine() -> str:
    """The processor, the number of threads and the versions that were measured."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    python, threads = platform.python_version(), torch.get_num_threads()
    return f"{processor}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}, Python {python}"


def rounded(value: Any) -> Any:
    """The floats in lists and dictionaries, to four digits.

    >>> rounded({"ms": [0.123456, 1234.5678], "rounds": 12345})
    {'ms': [0.1235, 1235.0], 'rounds': 12345}
    """
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def printed(value: str | float | int | None) -> str:
    """A number in a table for people, to three digits, or whole from 100 on; a dash where there is none.

    >>> printed(0.12345), printed(1728.0), printed(None)
    ('0.123', '1,728', '-')
    """
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def mean_and_spread(values: Sequence[float] | None, digits: int = 2) -> str:
    """The mean of some seeds and, of more than one, its standard deviation; nothing of none.

    >>> mean_and_spread([1.0, 2.0]), mean_and_spread([1.0], digits=1), mean_and_spread([])
    ('1.50 ± 0.71', '1.0', '')
    """
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
