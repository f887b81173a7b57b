"""Folders in object storage (gs://, s3://): work uses a local copy, whose changes are uploaded regularly.

A run therefore never waits for the network. If the connection is lost, the local copy is kept.
"""

import contextlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterator

import fsspec

from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.files import UNFINISHED
from mmvm_jax.runtime.progress import log

_EVERY_SECONDS = 30
_ATTEMPTS = 4  # to upload the last files; the pause doubles after each
_FIRST_PAUSE = 2.0  # seconds
_INCOMPLETE = ("orbax-checkpoint-tmp", UNFINISHED, "incomplete.")  # parts of the names of incomplete files
_WRITTEN_LAST = "dataset_info.json"  # the last file of prepared data to be written, so it marks them as complete
# With these limits, an unreachable bucket raises an error after about a minute.
_OPTIONS = {"s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 3}}}}


def is_remote(path: str) -> bool:
    """Return whether a path is in object storage."""
    return "://" in path


@contextlib.contextmanager
def local_copy(path: str | os.PathLike, field: str) -> Iterator[str]:
    """Yield a local folder itself, or a local copy of a remote folder, whose changes are uploaded every 30 seconds.

    Args:
      path: of a folder, which need not exist.
      field: the flag that the path comes from, for messages.

    Raises:
      UserError: the storage cannot be read, or the last files could not be uploaded.
    """
    path = os.fspath(path)
    if re.match(r"[a-z0-9]+:/[^/]", path):
        raise UserError(
            f"{field} is '{path}', from which pathlib removed a slash; allowed: the text '{path.replace(':/', '://')}'"
        )
    if not is_remote(path):
        yield os.path.expanduser(path)
        return
    folder = tempfile.mkdtemp(prefix="mmvm_jax_")
    copy = _Copy(path, folder, field)
    copy.download()
    log.info("%s: working on a local copy in %s", copy.name, folder)
    stop = threading.Event()
    thread = threading.Thread(target=copy.upload_regularly, args=(stop,), daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        stop.set()
        thread.join()
        copy.upload()
        shutil.rmtree(folder)


@contextlib.contextmanager
def shared_data(url: str, folder: str, name: str, raw_name: str) -> Iterator[None]:
    """Download prepared data that exist remotely; on exit, upload data that were prepared locally.

    Args:
      url: of the directory shared by all data sets. If it is local, nothing is done.
      folder: its local copy, which is kept.
      name: of the folder of prepared data.
      raw_name: of the folder of raw files, downloaded only if there are no prepared data.

    Raises:
      UserError: the storage cannot be read, or the data could not be uploaded.
    """
    if not is_remote(url):
        yield
        return
    prepared = _Copy(f"{url.rstrip('/')}/{name}", os.path.join(folder, name), "config.data.dir")
    for variant in prepared.complete() - _folders(os.path.join(folder, name)):
        prepared.download_folder(variant)
    if not os.path.isdir(os.path.join(folder, name)):
        raw = f"downloads/manual/{raw_name}"
        _Copy(f"{url.rstrip('/')}/{raw}", os.path.join(folder, raw), "config.data.dir").download()
    yield
    prepared.upload(except_folders=prepared.complete())


def _folders(path: str) -> set[str]:
    return {entry.name for entry in os.scandir(path) if entry.is_dir()} if os.path.isdir(path) else set()


class _Copy:
    """A local copy of a folder in object storage."""

    def __init__(self, url: str, folder: str, field: str):
        self._url, self._folder, self.name = url.rstrip("/"), folder, f"--{field}={url}"
        self._uploaded = {}  # {relative path: (size, time of change)} of the remote files
        try:
            protocol = url.partition("://")[0]
            self._storage, self._root = fsspec.core.url_to_fs(self._url, **_OPTIONS.get(protocol, {}))
        except (ImportError, ValueError) as error:
            raise UserError(f"{self.name}: {error}; allowed: a local folder, gs:// or s3://") from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[bool]:
        """Yield whether the remote folder exists; raise UserError if it cannot be read."""
        try:
            self._storage.invalidate_cache()
            yield self._storage.exists(self._root)
        except Exception as error:  # each kind of storage has its own errors
            raise UserError(f"{self.name} cannot be read ({first_line(error)})", exit_code=1) from error

    def download(self) -> None:
        """Download all files."""
        with self._reading() as exists:
            if exists:
                self._storage.get(self._root + "/", self._folder + "/", recursive=True)
        self._uploaded = self._local_files()

    def complete(self) -> set[str]:
        """Return the remote folders that hold complete prepared data."""
        with self._reading() as exists:
            found = self._storage.find(self._root) if exists else []
        return {path[len(self._root) + 1 :].split("/")[0] for path in found if path.endswith(_WRITTEN_LAST)}

    def download_folder(self, name: str) -> None:
        """Download one folder. If this is interrupted, nothing is left that looks complete."""
        log.info("%s: downloading %s", self.name, name)
        os.makedirs(self._folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="incomplete.") as temporary:
            self._storage.get(f"{self._root}/{name}/", temporary + "/whole/", recursive=True)
            os.replace(temporary + "/whole", os.path.join(self._folder, name))

    def upload_regularly(self, stop: threading.Event) -> None:
        """Upload changes regularly until ``stop`` is set. A failed upload is tried again the next time."""
        while not stop.wait(_EVERY_SECONDS):
            try:
                self._upload_changes()
            except Exception as error:
                log.warning("%s cannot be written, will try again (%s)", self.name, first_line(error))

    def upload(self, except_folders: Collection[str] = ()) -> None:
        """Upload all changes, except in folders that are complete remotely.

        Raises:
          UserError: it failed several times. The message says where the files are.
        """
        files = self._local_files()
        self._uploaded |= {path: files[path] for path in files if path.split(os.sep)[0] in except_folders}
        for attempt in range(_ATTEMPTS):
            try:
                return self._upload_changes()
            except Exception as error:
                reason = first_line(error)
                log.warning("%s cannot be written (%s)", self.name, reason)
                time.sleep(_FIRST_PAUSE * 2**attempt)
        message = f"{self.name} cannot be written ({reason}); the files are in {self._folder}, copy them from there"
        raise UserError(message, exit_code=1)

    def _upload_changes(self) -> None:
        files = self._local_files()
        changed = [path for path, stamp in files.items() if self._uploaded.get(path) != stamp]
        for path in sorted(changed, key=lambda path: (os.path.basename(path) == _WRITTEN_LAST, path)):
            local = os.path.join(self._folder, path)
            try:
                self._storage.put_file(local, f"{self._root}/{path}")
                self._uploaded[path] = files[path]
            except FileNotFoundError:
                if os.path.exists(local):  # then the bucket does not exist
                    raise
        for path in sorted(set(self._uploaded) - set(files)):
            with contextlib.suppress(FileNotFoundError):
                self._storage.rm_file(f"{self._root}/{path}")
            del self._uploaded[path]

    def _local_files(self) -> dict[str, tuple[int, int]]:
        """Return {relative path: (size, time of change)} of all complete local files."""
        found = {}
        for folder, _, files in os.walk(self._folder):
            for file in files:
                path = os.path.join(folder, file)
                relative = os.path.relpath(path, self._folder)
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)
                    if not any(part in relative for part in _INCOMPLETE):
                        found[relative] = (status.st_size, status.st_mtime_ns)
        return found
