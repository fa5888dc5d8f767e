"""Answers about many files by a pool of processes of Ray Data, each of which has loaded the model once.

    pip install 'ray[data]'
    python docs/predict_with_ray.py runs/sampling/sampled-seed0 slides.txt answers --actors 8

It is `regard predict RUN --list slides.txt --out answers`, on one machine or on a cluster whose machines have the same
folders: the same files of JSON in `answers`, of which those that are there are not made again. Of a file that cannot be
read it says why, and goes on.
"""

import argparse
from pathlib import Path
from typing import Any

import ray.data  # pyright: ignore[reportMissingImports]

import regard as rg
from regard.app.prediction import as_json, keep, pending


class Answers:
    """A trained model in a process of the pool, and the folder of its answers."""

    def __init__(self, run: str, folder: Path):
        self.trained, self.folder = rg.load(run), folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Answers a batch of paths: for each the file with the answer, or why there is none."""
        return {"said": [self.said(str(path)) for path in batch["path"]]}

    def said(self, path: str) -> str:
        """The same for one path."""
        try:
            (answer,) = self.trained.predict([path])
        except ValueError as error:
            return str(error)
        return str(keep(as_json(1, path, answer), self.folder))


def main() -> None:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", help="what regard predict takes: the folder of a run, or a file of weights")
    flags.add_argument("list", type=Path, help="a file of paths, one a line")
    flags.add_argument("out", type=Path, help="the folder of the answers")
    flags.add_argument("--actors", type=int, default=2, help="processes that answer")
    options = flags.parse_args()
    left = pending(options.list.read_text().splitlines(), part=(1, 1), folder=options.out)
    rows = [{"path": path} for path in left]
    if rows:
        pool = ray.data.ActorPoolStrategy(size=options.actors)
        found = ray.data.from_items(rows).map_batches(
            Answers, fn_constructor_args=(options.run, options.out.resolve()), compute=pool, batch_size=16
        )
        for row in found.iter_rows():
            print(row["said"], flush=True)


if __name__ == "__main__":
    main()
