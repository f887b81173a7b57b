"""Archives as publishers, browsers and file managers leave them, read where they lie: zip, tar, and one in another."""

import bz2
import contextlib
import functools
import gzip
import lzma
import os
import pathlib
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

from mmvm_jax.errors import UserError, first_line, is_disk_full, printable

# What the standard library and NumPy make of a file that is not what it should be; RuntimeError: it is encrypted.
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RuntimeError,
    struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_COMPRESSED: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DEEPEST = 3  # archives in each other
_HEAD = 512  # bytes that tell what a file is

Reader = Callable[[], bytes]


def members(path: pathlib.Path, opened: contextlib.ExitStack) -> dict[str, Reader] | None:
    """Return readers of an archive's files by their path in it, those of archives inside included.

    Args:
      path: of the archive.
      opened: closes the archive in the end.

    Returns:
      None for what is no archive by its name.

    Raises:
      UserError: the archive is damaged, or holds a path that leads out of it.
    """
    if not path.name.lower().endswith(_ENDINGS):
        return None
    try:
        stream = opened.enter_context(path.open("rb"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    return dict(_read(str(path), stream, opened, 1))


def _read(path: str, stream, opened: contextlib.ExitStack, depth: int) -> Iterator[tuple[str, Reader]]:
    """Names and readers of an open archive; ``path`` is what errors call it."""
    head = stream.read(_HEAD)
    if reason := recognise(head):
        raise UserError(f"{path} cannot be read: {reason}")
    try:
        found = list(_list(path, stream, head, opened))
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read: {explain(head, error)}") from error
    for name, reader, stream_of in found:
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{path} holds '{printable(name)}', a path that leads out of it; fetch the archive again")
        if _is_clutter(name):
            continue
        if depth < _DEEPEST and name.lower().endswith(_ENDINGS):
            inner, around = f"{path}/{printable(name)}", name.rpartition("/")[0]
            try:
                copy = _copy(inner, stream_of, opened)
            except DAMAGED as error:
                raise UserError(f"{inner} cannot be read: {explain(b'?', error)}") from error
            for below, below_reader in _read(inner, copy, opened, depth + 1):
                yield f"{around}/{below}".lstrip("/"), below_reader
        else:
            yield name, reader


def _list(path: str, stream, head: bytes, opened: contextlib.ExitStack) -> Iterator[tuple[str, Reader, Callable]]:
    """Names, readers and streams of an archive's files, whatever its name says: browsers unpack .gz in passing."""
    stream.seek(0)
    decompress = next((open_ for magic, open_ in _COMPRESSED.items() if head.startswith(magic)), None)
    if decompress:
        # A compressed archive can only be read from its start; a plain copy can be read anywhere.
        stream = _copy(path, functools.partial(decompress, stream), opened)
        head = b""
    if head.startswith(b"PK") or (not decompress and path.lower().endswith(".zip")):
        return _list_zip(opened.enter_context(zipfile.ZipFile(stream)))
    return _list_tar(stream)


def _list_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, Reader, Callable]]:
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # as some programs on Windows separate folders
        if not name:
            raise ValueError("it holds a file without a name")
        if not name.endswith("/"):
            yield name, functools.partial(archive.read, info.filename), functools.partial(archive.open, info.filename)


def _list_tar(stream) -> Iterator[tuple[str, Reader, Callable]]:
    archive = tarfile.TarFile(fileobj=stream)
    for member in archive.getmembers():
        if member.isfile():
            reader = functools.partial(os.pread, stream.fileno(), member.size, member.offset_data)
            yield member.name.removeprefix("./"), reader, functools.partial(archive.extractfile, member)


def _copy(path: str, open_stream: Callable, opened: contextlib.ExitStack):
    """A temporary file with what a stream holds; ``path`` is what errors call it."""
    copy = opened.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    try:
        with open_stream() as stream:
            shutil.copyfileobj(stream, copy)
    except DAMAGED as error:
        if is_disk_full(error):
            raise UserError(
                f"{path} needs room for a copy in {tempfile.gettempdir()}, which is full; unpack it, or name a folder "
                "with more room by the environment variable TMPDIR"
            ) from error
        raise
    copy.seek(0)
    return copy


def _is_clutter(name: str) -> bool:
    """Whether file managers have added a file."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


def recognise(head: bytes) -> str:
    """Return what stands in place of a file and what to do, by its first bytes; empty if nothing is known of them."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; fetch it again"
    if text.startswith((b"<!doctype html", b"<html")):
        return (
            "it is a web page (HTML), sent in place of the file; fetch it with a browser, and save what that downloads"
        )
    if text.startswith((b"<?xml", b"<error")):
        return "it is a message in XML, sent in place of the file; fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer in place of the file; fetch the file: git lfs pull"
    if len(head) > 16 and not head.strip(b"\0"):
        return "it begins with zeros, as does a download that was cut off; fetch it again"
    return ""


def explain(head: bytes, error: Exception | str) -> str:
    """Return why a file cannot be read, and what to do: by its first bytes, else by the error of a library."""
    if reason := recognise(head):
        return reason
    reason = first_line(error) if isinstance(error, Exception) else error
    if head.startswith(b"PK") and isinstance(error, zipfile.BadZipFile):
        reason = "its end is missing, as of a download that was cut off"
    return f"{reason}; fetch it again"
