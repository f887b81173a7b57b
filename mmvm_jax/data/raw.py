"""Raw files as their publishers ship them: in folders, zip or tar archives, all read alike, none unpacked."""

import collections
import concurrent.futures
import contextlib
import functools
import gzip
import io
import lzma
import os
import pathlib
import re
import shutil
import struct
import tarfile
import tempfile
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmvm_jax.errors import UserError, first_line, printable

# What the standard library and NumPy make of a file that is not what it should be; RuntimeError: it is encrypted.
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RuntimeError,
    struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
# Larger pictures, which may be made to fill the memory, are refused instead of warned of.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
_AHEAD = 16  # results that a core may be ahead of the one who takes them


class Origin(NamedTuple):
    """What a person must know to fetch the raw files of a data set."""

    files: str  # what to put into the folder
    source: str  # who publishes them, and as what
    licence: str


class RawFiles:
    """All files below ``downloads/manual/<name>``, those inside archives included, by their relative path.

    Args:
      name: of the data set.
      data_dir: the directory shared by all data sets.
      origin: quoted where a file is missing.

    Raises:
      UserError: an archive is damaged, or holds a path that leads out of it.
    """

    def __init__(self, name: str, data_dir, origin: Origin):
        self._name, self._origin = name, origin
        self.directory = pathlib.Path(data_dir) / "downloads" / "manual" / name
        self._readers: dict[str, Callable[[], bytes]] = {}
        self._archives = contextlib.ExitStack()
        weakref.finalize(self, self._archives.close)
        for folder, _, files in os.walk(self.directory, followlinks=True):
            for file in sorted(files):
                self._add(pathlib.Path(folder, file))
        self.paths = sorted(self._readers, key=natural_key)
        self._by_file = collections.defaultdict(list)
        for path in self.paths:
            self._by_file[path.rpartition("/")[2].casefold()].append(path)

    def _add(self, path: pathlib.Path) -> None:
        relative = path.relative_to(self.directory)
        members = _members(path, self._archives)
        if members is None:
            self._readers[relative.as_posix()] = path.read_bytes
            return
        for name, reader in members.items():
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(
                    f"{path} holds '{printable(name)}', a path that leads out of it; fetch the archive again"
                )
            # What is also there unpacked is read from the folder, whichever comes first.
            self._readers.setdefault((relative.parent / name).as_posix(), reader)

    def find(self, *endings: str) -> str:
        """The path that has the first possible of these endings, whatever folders are around it.

        Raises:
          UserError: there is none; five lines say what is missing, and where it comes from.
        """
        path = self.find_optional(*endings)
        if path is None:
            raise self.missing(endings[0])
        return path

    def find_optional(self, *endings: str) -> str | None:
        """As ``find``, but None where there is none."""
        for ending in endings:
            whole = "/" + ending.casefold()
            candidates = self._by_file.get(whole.rpartition("/")[2], ())
            found = [path for path in candidates if ("/" + path.casefold()).endswith(whole)]
            if found:
                return min(found, key=len)
        return None

    def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            return self._readers[path]()
        except DAMAGED as error:
            raise self.damaged(path, error) from error

    def text(self, path: str) -> str:
        """The content of a text file, decompressed where its name ends in .gz."""
        content = self.read(path)
        try:
            content = gzip.decompress(content) if path.endswith(".gz") else content
        except DAMAGED as error:
            raise self.damaged(path, error) from error
        return content.decode("utf-8-sig", errors="replace")

    def array(self, path: str) -> np.ndarray:
        """The array of numbers in an .npy file; objects are refused, not unpickled."""
        try:
            array = np.load(io.BytesIO(self.read(path)), allow_pickle=False)
        except DAMAGED as error:
            raise self.damaged(path, error) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iubf":
            raise self.damaged(path, "no array of numbers")
        return array

    def image(self, path: str, mode: str, at_least: tuple[int, int] | None = None) -> Image.Image:
        """A decoded picture of PIL's ``mode``; a JPEG much larger than ``at_least`` is decoded smaller."""
        try:
            picture = Image.open(io.BytesIO(self.read(path)))
            if at_least:
                picture.draft(mode, at_least)
            if picture.mode.startswith(("I", "F")):  # what is above 255 would be cut off
                raise ValueError("more than 8 bits a pixel; allowed: 8")
            return picture.convert(mode)
        except (*DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise self.damaged(path, error) from error

    def missing(self, file: str) -> UserError:
        """The error for a file that is not there."""
        return UserError(
            f"{self._name}: {file} is missing.\n"
            f"Looked in: {self.directory} (folders, zip and tar archives)\n"
            f"Comes from: {self._origin.source}\n"
            f"Licence: {self._origin.licence}\n"
            f"Put there, packed or unpacked: {self._origin.files}"
        )

    def damaged(self, path: str, reason) -> UserError:
        """The error for a file that is there but cannot be what was published."""
        reason = first_line(reason) if isinstance(reason, Exception) else reason
        return UserError(f"{self.directory}/{printable(path)} cannot be read: {reason}; fetch it again")


def data_root(builder) -> pathlib.Path:
    """The directory shared by all data sets, of a builder that has a config."""
    return pathlib.Path(builder.data_dir).parents[2]


def check_not_empty(name: str, members: dict) -> None:
    """Makes sure that ``{split: examples}`` has some in every split.

    Raises:
      UserError: a split is empty.
    """
    for split, examples in members.items():
        if not examples:
            raise UserError(f"{name}: the raw files hold no example of the split '{split}'; fetch all of them")


def natural_key(name: str) -> list:
    """Sorts names by the numbers in them: 2.png before 10.png."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def parallel(function: Callable, items: Iterable) -> Iterator:
    """Yields ``function(item)`` in the order of the items, computed a little ahead by one thread per core."""
    workers = os.cpu_count() or 1
    pending = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(workers)  # decoders release the interpreter's lock
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_mnist(files: RawFiles, split: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's digits and classes of "train" or "test": [N, 28, 28] uint8, [N] int32."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(files, f"{prefix}-images-idx3-ubyte")
    labels = read_idx(files, f"{prefix}-labels-idx1-ubyte")
    if images.shape != (len(labels), 28, 28):
        raise files.damaged(f"{prefix}-images-idx3-ubyte", f"shape {images.shape} beside {len(labels)} labels")
    return images, labels.astype(np.int32)


def read_idx(files: RawFiles, name: str) -> np.ndarray:
    """The bytes of an idx file, compressed (.gz) or not, in the shape that its head states."""
    path = files.find(f"{name}.gz", name)
    try:
        content = files.read(path)
        content = gzip.decompress(content) if path.endswith(".gz") else content
        if content[:3] != b"\0\0\x08":
            raise ValueError("no idx file of bytes")
        end = 4 + 4 * content[3]
        shape = np.frombuffer(content[4:end], ">u4")
        return np.frombuffer(content[end:], np.uint8).reshape(shape)
    except DAMAGED as error:
        raise files.damaged(path, error) from error


def _members(path: pathlib.Path, opened: contextlib.ExitStack) -> dict[str, Callable[[], bytes]] | None:
    """Readers of an archive's files by their name; None for what is no archive.

    Args:
      path: of the archive.
      opened: closes the archive in the end.
    """
    for endings, reader in _ARCHIVES.items():
        if path.name.lower().endswith(endings):
            try:
                return {name: read for name, read in reader(path, opened) if not _is_clutter(name)}
            except DAMAGED as error:
                raise UserError(f"{path} cannot be read: {first_line(error)}; fetch it again") from error
    return None


def _is_clutter(name: str) -> bool:
    """What file managers add to archives."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


def _zip_members(path, opened):
    archive = opened.enter_context(zipfile.ZipFile(path))
    files = [info for info in archive.infolist() if not info.is_dir()]
    return [(info.filename, functools.partial(archive.read, info.filename)) for info in files]


def _tar_members(path, opened):
    stream = opened.enter_context(path.open("rb"))
    if not path.name.lower().endswith(".tar"):
        # A compressed archive can only be read from its start; a plain copy can be read anywhere.
        compressed, stream = gzip.GzipFile(fileobj=stream), opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(compressed, stream)
        stream.seek(0)
    with tarfile.TarFile(fileobj=stream) as archive:
        members = [member for member in archive if member.isfile()]
    return [
        (
            member.name.removeprefix("./"),
            functools.partial(os.pread, stream.fileno(), member.size, member.offset_data),
        )
        for member in members
    ]


_ARCHIVES = {(".zip",): _zip_members, (".tar", ".tar.gz", ".tgz"): _tar_members}
