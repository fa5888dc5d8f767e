"""What a run tells its user when it cannot go on."""

from collections.abc import Iterator
from contextlib import contextmanager

from regard.app.text.reading import printable


class Failure(Exception):
    """Something the user must hear in one sentence: the command line prints it and exits with `status`.

    What could control a terminal is spelled out, as it may come from a file of someone else's.

    >>> raise Failure("runs/glimpse/first is being trained by another process (17).")
    Traceback (most recent call last):
    regard.app.training.errors.Failure: runs/glimpse/first is being trained by another process (17).
    """

    status = 1

    def __init__(self, sentence: str):
        super().__init__(printable(sentence))


class Interrupted(Failure):
    """Training was asked to stop and did, with everything saved: the same command goes on from there.

    >>> Interrupted("stopped at step 3 of 8.").status
    130
    """

    status = 130


def reason(error: BaseException) -> str:
    """What an error says, on one line.

    >>> reason(ValueError("expected\\n  an int"))
    'expected an int'
    """
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(said.split()).removesuffix(".")


@contextmanager
def blaming_torchvision() -> Iterator[None]:
    """Says what to repair where an import fails because torchvision is installed but was built for another torch.

    Lightning and torchmetrics import torchvision if it is there, although nothing here needs it.

    >>> with blaming_torchvision():
    ...     raise RuntimeError("operator torchvision::nms does not exist")
    Traceback (most recent call last):
    regard.app.training.errors.Failure: torchvision is installed but does not fit this torch (operator \
torchvision::nms does not exist): `python -m pip uninstall torchvision` repairs it, or installing the two together \
from one index.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        if "torchvision" not in str(error):
            raise
        raise Failure(
            f"torchvision is installed but does not fit this torch ({reason(error)}): "
            "`python -m pip uninstall torchvision` repairs it, or installing the two together from one index."
        ) from error
