"""Reading and writing the files of a run: whole or not at all, and nothing that a link in its folder points to."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from regard.app.training.errors import Failure

LARGEST_TEXT = 2**16
"""Bytes of a configuration; what is larger is none."""


def write(path: Path, data: bytes | memoryview, before: Path | None = None) -> None:
    """Writes a file whole or not at all: a draft beside it is brought to the disk, then takes its name. The file that
    it replaces is kept as `before`, if that is given.

    Links are not followed: one that has the name of the file or of its draft is replaced. Raises Failure if the folder
    is a link, or the file cannot be written (a full disk, a folder that may not be written); it is then as it was.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write(folder / "config.yaml", b"seed: 0")
    >>> [(file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir()]
    [('config.yaml', 'seed: 0')]
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        _refuse_link(path.parent)
        _write_draft(draft, data)
        if before is not None and path.exists():
            _keep(path, before)
        os.replace(draft, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise Failure(f"{path} could not be written ({error.strerror}); what was saved before is intact.") from error


def _write_draft(draft: Path, data: bytes | memoryview) -> None:
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path, before: Path) -> None:
    """Gives a file a second name, or where the disk has no such thing, another one."""
    before.unlink(missing_ok=True)
    try:
        os.link(path, before, follow_symlinks=False)
    except OSError:
        os.replace(path, before)


def _sync(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> Path:
    """The folder, which is made if it is not there. Raises Failure if that cannot be, or if a link stands for it."""
    try:
        _refuse_link(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"{folder} cannot be used as a folder ({error.strerror}).") from error
    return folder


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise Failure(f"{folder} is a link, which nothing is written through: name the folder that it points to.")


def open_to_append(path: Path) -> int:
    """A file descriptor for reading and appending. Raises OSError if a link, a pipe, or a device stands there."""
    return _regular(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))


def read(path: Path, most: int | None = None) -> bytes:
    """The contents of a file. Raises OSError if there is none, a link, a pipe or a device stands there, or it has more
    than `most` bytes."""
    with open(_regular(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)), "rb") as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most} bytes")
        return file.read()


def _regular(handle: int) -> int:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no ordinary file")
    return handle
