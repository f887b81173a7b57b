"""Raw files as their publishers ship them: in folders, zip or tar archives, all read alike, none unpacked."""

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

# Larger pictures, which may be made to fill the memory, are refused instead of warned of.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
_HEAD = 512  # bytes that tell what a file is
_NAMED = 3  # of the files that are missing
_NOT_READ = (".7z", ".rar", ".7z.001")
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
        self._by_name = collections.defaultdict(list)
        for path in self.paths:
            self._by_name[_loosely(path.rpartition("/")[2])].append(path)

    def _add(self, path: pathlib.Path) -> None:
        relative = path.relative_to(self.directory)
        members = archives.members(path, self._archives)
        if members is None:
            self._readers[relative.as_posix()] = path.read_bytes
            return
        for name, reader in members.items():
            # What is also there unpacked is read from the folder, whichever comes first.
            self._readers.setdefault((relative.parent / name).as_posix(), reader)

    def find(self, *endings: str) -> str:
        """The path that has the first possible of these endings, whatever folders are around it.

        Raises:
          UserError: there is none; five lines say what is missing, and where it comes from.
        """
        path = self.find_optional(*endings)
        if path is None:
            raise self.missing(f"{endings[0]} is")
        return path

    def find_optional(self, *endings: str) -> str | None:
        """As ``find``, but None where there is none.

        Upper case, and which of dots, dashes, underscores and spaces separate the words of a name, make a difference
        only between several files.
        """
        found = (self.find_every(ending) for ending in endings)
        return next((min(paths, key=len) for paths in found if paths), None)

    def find_every(self, ending: str) -> list[str]:
        """All paths that have an ending, the nearest to how it is written."""
        candidates = self._by_name.get(_loosely(ending.rpartition("/")[2]), ())
        for same in (str, str.casefold, _loosely):
            found = [path for path in candidates if ("/" + same(path)).endswith("/" + same(ending))]
            if found:
                return found
        return []

    def find_all(self, names: Iterable[str], find: Callable[[str], str | None] | None = None) -> dict[str, str]:
        """Return the path of each file, found before any is read.

        Args:
          names: endings of paths.
          find: from a name to a path, or None; ``find_optional`` if left out.

        Raises:
          UserError: files are missing; says how many, and names the first few.
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
            content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        except DAMAGED as error:
            raise self.damaged(path, error) from error
        if archives.recognise(content[:_HEAD]):
            raise self.damaged(path, "no text", content)
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")

    def array(self, path: str) -> np.ndarray:
        """The array of numbers in an .npy file; objects are refused, not unpickled."""
        try:
            array = np.load(io.BytesIO(self.read(path)), allow_pickle=False)
        except DAMAGED as error:
            raise self.damaged(path, error) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iubf":
            raise self.damaged(path, "no array of numbers")
        return array

    def arrays(self, path: str) -> dict[str, np.ndarray]:
        """The arrays of an .npz file by name; objects are refused, not unpickled."""
        try:
            with np.load(io.BytesIO(self.read(path)), allow_pickle=False) as archive:
                return dict(archive)
        except (*DAMAGED, AttributeError) as error:
            raise self.damaged(path, error) from error

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

    def missing(self, what: str) -> UserError:
        """The error for files that are not there; ``what`` ends in "is" or "are"."""
        return UserError(
            f"{self._name}: {what} missing.\n"
            f"Looked in: {self.directory} (folders, zip and tar archives), {self._what_is_there()}\n"
            f"Comes from: {self._origin.source}\n"
            f"Licence: {self._origin.licence}\n"
            f"Put there, packed or unpacked: {self._origin.files}"
        )

    def _what_is_there(self) -> str:
        if not self.paths:
            return "where there is no file"
        foreign = [path for path in self.paths if path.lower().endswith(_NOT_READ)]
        unpack = f"; {printable(foreign[0])} is to be unpacked by hand" if foreign else ""
        return f"where there are {len(self.paths)} files, such as {printable(self.paths[0])}{unpack}"

    def damaged(self, path: str, reason: Exception | str, content: bytes | None = None) -> UserError:
        """The error for a file that is there but cannot be what was published; ``content`` where it is at hand."""
        if content is None:
            with contextlib.suppress(*DAMAGED):
                content = self._readers[path]()
        reason = archives.explain((content if content is not None else b"?")[:_HEAD], reason)
        return UserError(f"{self.directory}/{printable(path)} cannot be read: {reason}")


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


def _loosely(name: str) -> str:
    """A name in lower case, with dashes between its words, and without the number of a repeated download."""
    return re.sub(r"[-._ ]+", "-", re.sub(r" ?\(\d+\)", "", name).casefold())


def natural_key(name: str) -> list:
    """Sorts names by the numbers in them: 2.png before 10.png."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def parallel(function: Callable, items: Iterable) -> Iterator:
    """Yield ``function(item)`` in the order of the items, computed a little ahead by one thread per core.

    Raises:
      UserError: ``function`` did; all items were tried, so that one attempt names all files that are damaged.
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
        raise _of_all([error, *(other for other in others if isinstance(other, UserError))]) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(function: Callable, item) -> UserError | None:
    try:
        function(item)
    except UserError as error:
        return error
    return None


def _of_all(errors: list[UserError]) -> UserError:
    """One error for several files."""
    if len(errors) == 1:
        return errors[0]
    return UserError(f"{len(errors)} files cannot be used, such as: " + "; ".join(map(str, errors[:_NAMED])))
