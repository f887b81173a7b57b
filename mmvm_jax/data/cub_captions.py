"""The captions of CUB's photographs, in the layouts in which they are distributed."""

import re

from mmvm_jax.data import raw, text

# Files with all captions of a part, in the order of the photographs in its folder.
_PARTS = {"train": "text_trainvalclasses.txt", "test": "text_testclasses.txt"}


def read_captions(files: raw.RawFiles, images: dict[int, str], count: int) -> dict[int, list[list[str]]]:
    """Return the words of the captions of every photograph.

    Reads one file per photograph, ``<class>/<image>.txt`` in ``text_c10`` or any other folder, or one file for all
    photographs of ``train/<class>/`` and one for those of ``test/<class>/``.

    Args:
      files: the raw files.
      images: {number: ``<class>/<image>.jpg``} of all photographs.
      count: number of captions per photograph.

    Raises:
      UserError: captions are missing, or a photograph has the wrong number of captions.
    """
    if all(files.find_optional(file) for file in _PARTS.values()) and not _find(files, next(iter(images.values()))):
        lines = {name: lines for part in _PARTS for name, lines in _of_part(files, part, count).items()}
        found = files.find_all(images.values(), lambda name: name if name in lines else None)
        return {image: lines[found[name]] for image, name in images.items()}
    paths = files.find_all(
        (f"text_c10/{name.removesuffix('.jpg')}.txt" for name in images.values()),
        lambda name: _find(files, name.removeprefix("text_c10/")),
    )
    return {
        image: _split(files, paths[f"text_c10/{name.removesuffix('.jpg')}.txt"], count)[0]
        for image, name in images.items()
    }


def _find(files: raw.RawFiles, name: str) -> str | None:
    """Return the file of one photograph's captions."""
    name = name.rpartition(".")[0] + ".txt"
    return files.find_optional(f"text_c10/{name}", name)


def _of_part(files: raw.RawFiles, part: str, count: int) -> dict[str, list[list[str]]]:
    """Return {``<class>/<image>.jpg``: captions} of the photographs of a part."""
    pattern = re.compile(rf"(?:^|/){part}/(\d+\.[^/]+/[^/]+\.jpg)$", re.IGNORECASE)
    names = sorted((match[1] for match in map(pattern.search, files.paths) if match), key=lambda name: name.split("/"))
    path = files.find(_PARTS[part])
    captions = _split(files, path, count)
    if len(captions) != len(names):
        found = f"it has captions of {len(captions)} photographs"
        raise files.damaged(path, f"{found}; expected {len(names)}, those in {part}/<class>/")
    return dict(zip(names, captions, strict=True))


def _split(files: raw.RawFiles, path: str, count: int) -> list[list[list[str]]]:
    """Return the words of all captions in a file, in groups of ``count`` captions."""
    lines = [line for line in files.text(path).splitlines() if line.strip()]
    if not lines or len(lines) % count or (len(lines) != count and path.rpartition("/")[2] not in _PARTS.values()):
        raise files.damaged(path, f"{len(lines)} captions; expected {count}")
    words = [text.split_words(line) for line in lines]
    return [words[start : start + count] for start in range(0, len(words), count)]
