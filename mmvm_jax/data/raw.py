"""Raw files as published, in folders, zip or tar archives, which are read without unpacking."""

import collections
import concurrent.futures
import contextlib
import functools
import gzip
import io
import os
import pathlib
import re
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmvm_jax.data import archives
from mmvm_jax.data.archives import DAMAGED
from mmvm_jax.errors import UserError, printable

# Very large pictures, which may be malicious, raise an error instead of a warning.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
_NAMED = 3  # missing or damaged files named in a message
_UNSUPPORTED = (".7z", ".rar", ".7z.001")
_AHEAD = 16  # results per core that are computed ahead


class Origin(NamedTuple):
    """Information for the user about the raw files of a data set."""

    files: str  # to put into the folder
    source: str  # title, authors and identifier of the publication
    licence: str


class RawFiles:
    """All files below ``downloads/manual/<name>``, including those in archives, by their relative path.

    Args:
      name: of the data set.
      data_dir: the directory shared by all data sets.
      origin: shown if a file is missing.

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
        self._by_name = collections.defaultdict(list)
        for path in self.paths:
            self._by_name[_normalised(path.rpartition("/")[2])].append(path)

    def _add(self, path: pathlib.Path) -> None:
        relative = path.relative_to(self.directory)
        members = archives.members(path, self._archives)
        if members is None:
            self._readers[relative.as_posix()] = path.read_bytes
            return
        for name, reader in members.items():
            # An unpacked file takes precedence over the same file in an archive.
            self._readers.setdefault((relative.parent / name).as_posix(), reader)

    def find(self, *endings: str) -> str:
        """Return the path that ends with the first matching of these endings, in any folder.

        Raises:
          UserError: there is none. The message says what is missing and where it comes from.
        """
        path = self.find_optional(*endings)
        if path is None:
            raise self.missing(f"{endings[0]} is")
        return path

    def find_optional(self, *endings: str) -> str | None:
        """Return the path like ``find``, or None if there is none.

        Upper case, and the separators of words (dots, dashes, underscores, spaces), are ignored unless several files
        differ only in them.
        """
        found = (self.find_every(ending) for ending in endings)
        return next((min(paths, key=len) for paths in found if paths), None)

    def find_every(self, ending: str) -> list[str]:
        """Return all paths with an ending: exact matches, or else those that differ in case or separators."""
        candidates = self._by_name.get(_normalised(ending.rpartition("/")[2]), ())
        for same in (str, str.casefold, _normalised):
            found = [path for path in candidates if ("/" + same(path)).endswith("/" + same(ending))]
            if found:
                return found
        return []

    def find_all(self, names: Iterable[str], find: Callable[[str], str | None] | None = None) -> dict[str, str]:
        """Return the path of each file, so that missing files are reported before any file is read.

        Args:
          names: endings of paths.
          find: maps a name to a path, or None; the default is ``find_optional``.

        Raises:
          UserError: files are missing. The message says how many, and names the first few.
        """
        find = find or self.find_optional
        found = {name: find(name) for name in names}
        lacking = [name for name, path in found.items() if path is None]
        if lacking:
            shown = ", ".join(lacking[:_NAMED])
            several = f"{len(lacking)} of {len(found)} files, such as {shown}, are"
            raise self.missing(f"{shown} is" if len(lacking) == 1 else several)
        return {name: path for name, path in found.items() if path is not None}

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            return self._readers[path]()
        except DAMAGED as error:
            raise self.damaged(path, error) from error

    def decompressed(self, path: str) -> bytes:
        """Return the content of a file, decompressed if it is a gzip file."""
        content = self.read(path)
        try:
            return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        except DAMAGED as error:
            raise self.damaged(path, error) from error

    def text(self, path: str) -> str:
        """Return the content of a text file, decompressed if it is a gzip file."""
        content = self.decompressed(path)
        if archives.recognise(content[: archives.HEAD]):
            raise self.damaged(path, "not a text file", content)
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")

    def array(self, path: str) -> np.ndarray:
        """Return the array of numbers in an .npy file. Pickled objects raise an error."""
        try:
            array = np.load(io.BytesIO(self.read(path)), allow_pickle=False)
        except DAMAGED as error:
            raise self.damaged(path, error) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iubf":
            raise self.damaged(path, "not an array of numbers")
        return array

    def arrays(self, path: str) -> dict[str, np.ndarray]:
        """Return the arrays of an .npz file by name. Pickled objects raise an error."""
        try:
            with np.load(io.BytesIO(self.read(path)), allow_pickle=False) as archive:
                return dict(archive)
        except (*DAMAGED, AttributeError) as error:
            raise self.damaged(path, error) from error

    def image(self, path: str, mode: str, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Decode a picture to PIL's ``mode``. A JPEG much larger than ``at_least`` is decoded at a smaller size."""
        try:
            picture = Image.open(io.BytesIO(self.read(path)))
            if at_least:
                picture.draft(mode, at_least)
            if picture.mode.startswith(("I", "F")):  # conversion would clip values above 255
                raise ValueError("more than 8 bits per pixel; allowed: 8")
            return picture.convert(mode)
        except (*DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise self.damaged(path, error) from error

    def missing(self, what: str) -> UserError:
        """Return the error for missing files; ``what`` ends in "is" or "are"."""
        return UserError(
            f"{self._name}: {what} missing.\n"
            f"Looked in: {self.directory} (folders, zip and tar archives), {self._contents()}\n"
            f"Comes from: {self._origin.source}\n"
            f"Licence: {self._origin.licence}\n"
            f"Put there, packed or unpacked: {self._origin.files}"
        )

    def _contents(self) -> str:
        if not self.paths:
            return "where there is no file"
        foreign = [path for path in self.paths if path.lower().endswith(_UNSUPPORTED)]
        unpack = f"; {printable(foreign[0])} must be unpacked by hand" if foreign else ""
        return f"where there are {len(self.paths)} files, such as {printable(self.paths[0])}{unpack}"

    def damaged(self, path: str, reason: Exception | str, content: bytes | None = None) -> UserError:
        """Return the error for a damaged file; ``content`` avoids reading it again."""
        if content is None:
            with contextlib.suppress(*DAMAGED):
                content = self._readers[path]()
        reason = archives.explain((content if content is not None else b"?")[: archives.HEAD], reason)
        return UserError(f"{self.directory}/{printable(path)} cannot be read: {reason}")


def data_root(builder) -> pathlib.Path:
    """Return the directory shared by all data sets, given a builder with a config."""
    return pathlib.Path(builder.data_dir).parents[2]


def check_not_empty(name: str, members: dict) -> None:
    """Raise UserError if a split of ``{split: examples}`` is empty."""
    for split, examples in members.items():
        if not examples:
            raise UserError(f"{name}: the raw files hold no example of the split '{split}'; fetch all of them")


def _normalised(name: str) -> str:
    """Return a name in lower case, with dashes between words, and without the number of a repeated download."""
    return re.sub(r"[-._ ]+", "-", re.sub(r" ?\(\d+\)", "", name).casefold())


def natural_key(name: str) -> list:
    """Return a key that sorts names by the numbers in them: 2.png before 10.png."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def parallel(function: Callable, items: Iterable) -> Iterator:
    """Yield ``function(item)`` in the order of the items, computed a little ahead by one thread per core.

    Raises:
      UserError: ``function`` raised it. All other items are tried first, so that the message names all damaged files.
    """
    workers, items = os.cpu_count() or 1, iter(items)
    pending = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(workers)  # decoders release the interpreter's lock
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > _AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except UserError as error:
        others = [future.exception() for future in pending] + list(
            pool.map(functools.partial(_attempt, function), items)
        )
        raise _combined([error, *(other for other in others if isinstance(other, UserError))]) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(function: Callable, item) -> UserError | None:
    try:
        function(item)
    except UserError as error:
        return error
    return None


def _combined(errors: list[UserError]) -> UserError:
    """Return one error for several files."""
    if len(errors) == 1:
        return errors[0]
    return UserError(f"{len(errors)} files cannot be used, such as: " + "; ".join(map(str, errors[:_NAMED])))
