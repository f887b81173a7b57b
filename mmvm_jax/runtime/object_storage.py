"""Folders in object storage (gs://, s3://): worked on in a copy on this machine, which is kept up to date there.

A run therefore never waits for the network, and one that is cut off from it loses nothing: the copy stays.
"""

import contextlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator

import fsspec

from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.files import UNFINISHED
from mmvm_jax.runtime.progress import log

_EVERY_SECONDS = 30
_ATTEMPTS = 4  # of bringing the last files there, each after twice the pause of the one before
_FIRST_PAUSE = 2.0
_IN_THE_MAKING = ("orbax-checkpoint-tmp", UNFINISHED, "incomplete.")  # parts of names of what is not complete yet
_WRITTEN_LAST = "dataset_info.json"  # of the files of prepared data: with it they are complete
# A bucket that is away is given up after about a minute.
_OPTIONS = {"s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 3}}}}


def is_remote(path: str) -> bool:
    """Whether a path names object storage."""
    return "://" in path


@contextlib.contextmanager
def local_copy(path: str | os.PathLike, field: str) -> Iterator[str]:
    """The folder itself where it is on this machine, else a copy of it that is brought back every half a minute.

    Args:
      path: of a folder, which need not exist.
      field: the flag that it comes from, for messages.

    Raises:
      UserError: the storage cannot be read, or the last files could not be brought there.
    """
    path = os.fspath(path)
    if re.match(r"[a-z0-9]+:/[^/]", path):
        raise UserError(
            f"{field} is '{path}', of which pathlib took a slash; allowed: the text '{path.replace(':/', '://')}'"
        )
    if not is_remote(path):
        yield os.path.expanduser(path)
        return
    folder = tempfile.mkdtemp(prefix="mmvm_jax_")
    copy = _Copy(path, folder, field)
    copy.fetch()
    log.info("%s: working on a copy, in %s", copy.name, folder)
    stop = threading.Event()
    thread = threading.Thread(target=copy.keep, args=(stop,), daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        stop.set()
        thread.join()
        copy.bring_all()
        shutil.rmtree(folder)


@contextlib.contextmanager
def shared_data(url: str, folder: str, name: str, raw_name: str) -> Iterator[None]:
    """Prepared data in object storage: what is there need not be prepared here, and what is prepared here comes there.

    Args:
      url: of the directory shared by all data sets; nothing is done where it is a local one.
      folder: its copy on this machine, which stays.
      name: of the folder of prepared data.
      raw_name: of the folder of raw files, fetched only where no data are prepared.

    Raises:
      UserError: the storage cannot be read, or the data could not be brought there.
    """
    if not is_remote(url):
        yield
        return
    prepared = _Copy(f"{url.rstrip('/')}/{name}", os.path.join(folder, name), "config.data.dir")
    for variant in prepared.complete() - _folders(os.path.join(folder, name)):
        prepared.fetch_as_a_whole(variant)
    if not os.path.isdir(os.path.join(folder, name)):
        raw = f"downloads/manual/{raw_name}"
        _Copy(f"{url.rstrip('/')}/{raw}", os.path.join(folder, raw), "config.data.dir").fetch()
    yield
    prepared.bring_all_but(prepared.complete())


def _folders(path: str) -> set[str]:
    return {entry.name for entry in os.scandir(path) if entry.is_dir()} if os.path.isdir(path) else set()


class _Copy:
    """A folder on this machine, and the one in object storage whose copy it is."""

    def __init__(self, url: str, folder: str, field: str):
        self._url, self._folder, self.name = url.rstrip("/"), folder, f"--{field}={url}"
        self._there = {}  # {relative path: (size, time of change)} as last brought there
        try:
            protocol = url.partition("://")[0]
            self._storage, self._root = fsspec.core.url_to_fs(self._url, **_OPTIONS.get(protocol, {}))
        except (ImportError, ValueError) as error:
            raise UserError(f"{self.name}: {error}; allowed: a local folder, gs:// or s3://") from error

    def fetch(self) -> None:
        """Copies all that is there to this machine."""
        try:
            self._storage.invalidate_cache()
            if self._storage.exists(self._root):
                self._storage.get(self._root + "/", self._folder + "/", recursive=True)
        except Exception as error:  # every kind of storage has its own
            raise UserError(f"{self.name} cannot be read ({first_line(error)})", exit_code=1) from error
        self._there = self._here()

    def complete(self) -> set[str]:
        """The folders there that hold complete prepared data."""
        try:
            self._storage.invalidate_cache()
            found = self._storage.find(self._root) if self._storage.exists(self._root) else []
        except Exception as error:
            raise UserError(f"{self.name} cannot be read ({first_line(error)})", exit_code=1) from error
        return {path[len(self._root) + 1 :].split("/")[0] for path in found if path.endswith(_WRITTEN_LAST)}

    def fetch_as_a_whole(self, name: str) -> None:
        """Copies one folder to this machine; if it is cut off, nothing is left that looks complete."""
        log.info("%s: fetching %s", self.name, name)
        os.makedirs(self._folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="incomplete.") as temporary:
            self._storage.get(f"{self._root}/{name}/", temporary + "/whole/", recursive=True)
            os.replace(temporary + "/whole", os.path.join(self._folder, name))

    def keep(self, stop: threading.Event) -> None:
        """Brings changes there from time to time; what fails is tried again the next time."""
        while not stop.wait(_EVERY_SECONDS):
            try:
                self._bring()
            except Exception as error:
                log.warning("%s cannot be written, will try again (%s)", self.name, first_line(error))

    def bring_all(self) -> None:
        """Brings the last changes there.

        Raises:
          UserError: it failed several times; says where the files are.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._bring()
            except Exception as error:
                reason = first_line(error)
                log.warning("%s cannot be written (%s)", self.name, reason)
                time.sleep(_FIRST_PAUSE * 2**attempt)
        message = f"{self.name} cannot be written ({reason}); all is in {self._folder}, copy it from there"
        raise UserError(message, exit_code=1)

    def bring_all_but(self, folders: set[str]) -> None:
        """As ``bring_all``, without the folders that are there already."""
        here = self._here()
        self._there = {path: stamp for path, stamp in here.items() if path.split(os.sep)[0] in folders}
        self.bring_all()

    def _bring(self) -> None:
        here = self._here()
        changed = [path for path, stamp in here.items() if self._there.get(path) != stamp]
        for path in sorted(changed, key=lambda path: (os.path.basename(path) == _WRITTEN_LAST, path)):
            local = os.path.join(self._folder, path)
            try:
                self._storage.put_file(local, f"{self._root}/{path}")
                self._there[path] = here[path]
            except FileNotFoundError:
                if os.path.exists(local):  # then it is the bucket that does not exist
                    raise
        for path in sorted(set(self._there) - set(here)):
            with contextlib.suppress(FileNotFoundError):
                self._storage.rm_file(f"{self._root}/{path}")
            del self._there[path]

    def _here(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, _, files in os.walk(self._folder):
            for file in files:
                path = os.path.join(folder, file)
                relative = os.path.relpath(path, self._folder)
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)
                    if not any(part in relative for part in _IN_THE_MAKING):
                        found[relative] = (status.st_size, status.st_mtime_ns)
        return found
