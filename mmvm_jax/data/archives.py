"""Reading of zip and tar archives, also nested ones, without unpacking, as publishers and browsers leave them."""

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

# Errors of the standard library and NumPy for damaged files; RuntimeError is raised for encrypted ones.
DAMAGED = (
    OSError, EOFError, LookupError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RuntimeError,
    struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_COMPRESSED: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_MAX_DEPTH = 3  # of nested archives
HEAD = 512  # bytes at the start of a file from which it is recognised

Reader = Callable[[], bytes]


def members(path: pathlib.Path, opened: contextlib.ExitStack) -> dict[str, Reader] | None:
    """Return readers of an archive's files by their path, including the files of nested archives.

    Args:
      path: of the archive.
      opened: the stack that will close the archive.

    Returns:
      {path: reader}, or None if the name is not that of an archive.

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
    """Yield names and readers of an open archive; errors call it ``path``."""
    head = stream.read(HEAD)
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
        if depth < _MAX_DEPTH and name.lower().endswith(_ENDINGS):
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
    """Return names, readers and streams of an archive's files, by its content: browsers may have decompressed a .gz."""
    stream.seek(0)
    decompress = next((open_ for magic, open_ in _COMPRESSED.items() if head.startswith(magic)), None)
    if decompress:
        # A compressed archive can only be read from its start; an uncompressed copy allows random access.
        stream = _copy(path, functools.partial(decompress, stream), opened)
        head = b""
    if head.startswith(b"PK") or (not decompress and path.lower().endswith(".zip")):
        return _list_zip(opened.enter_context(zipfile.ZipFile(stream)))
    return _list_tar(stream)


def _list_zip(archive: zipfile.ZipFile) -> Iterator[tuple[str, Reader, Callable]]:
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")  # the separator of some programs on Windows
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
    """Copy a stream to a temporary file; errors call it ``path``."""
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
    """Return whether a file was added by a file manager."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


def recognise(head: bytes) -> str:
    """Return what a file is instead of the expected one, from its first bytes, and what to do; "" if not recognised."""
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
        return "it begins with zeros, like an interrupted download; fetch it again"
    return ""


def explain(head: bytes, error: Exception | str) -> str:
    """Return why a file cannot be read, and what to do, from its first bytes or else from a library's error."""
    if reason := recognise(head):
        return reason
    reason = first_line(error) if isinstance(error, Exception) else error
    if head.startswith(b"PK") and isinstance(error, zipfile.BadZipFile):
        reason = "its end is missing, as in an interrupted download"
    return f"{reason}; fetch it again"
