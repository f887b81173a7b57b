"""Checks and conversion of a user's arrays. ``own_data`` describes their layout."""

import collections
import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.runtime.progress import log

MASK = "__present"
RESERVED = ("labels", "split")
_LARGEST = np.float32(1e38)  # of real numbers, so that differences of two still fit into float32
_LARGEST_COUNT = 2**31 - 1
_FEWEST_LEVELS = 64  # of integer images, over the whole data set
_CHANNELS = (1, 2, 3, 4)  # that an image can have
ROUNDING = 1e-3  # tolerance of the range 0 to 1 of real pixels
_LARGEST_TOKEN = 999_999  # a network has parameters for every id
_LARGEST_OF_KIND = {"tokens": _LARGEST_TOKEN, "counts": _LARGEST_COUNT, "binary": 1}
_OF_SINGLE_ENTRIES = {
    "NaN": "; single entries may be missing in vectors, counts, binary arrays and tables, if some are missing in "
    "training, or with config.data.missing_entries=True"
}
# Names in metrics of the joint representation, the mean over modalities, and sets of modalities.
_OF_METRICS = ("joint", "mean", "all", "others")
_OTHERS = "others_"
_OF_OUTPUTS = ("__mean", "__log_variance", "__std", "__samples")  # endings of the names of outputs
_OF_IDS = re.compile(r"(^|_)(ids?|idx|ind(ex|ices)|barcodes?|names?|rows?)$", re.IGNORECASE)
_LINKS = ("_", "_to_")  # between the names of two modalities


def seen(array) -> str:
    """Type and shape of an array, or of what an .npz file says of one."""
    return f"{array.dtype} {list(array.shape)}"


def modality_names(arrays: Mapping, wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of the modalities among arrays, of which only type and shape are read.

    Arrays that name samples or features (text, dates, and integers called ids) are left out, with a line in the log.

    Args:
      arrays: by name.
      wanted: if given, the other arrays are ignored.

    Raises:
      UserError: there is no modality, a name is invalid, a mask has no modality, an array does not hold numbers,
        lengths differ, or there are no examples.
    """
    _check_names(arrays)
    offered = [name for name in arrays if name not in RESERVED and not name.endswith(MASK)]
    wanted = {part for name in wanted for part in ([name] if name in arrays else name.split(","))}
    if unknown := sorted(wanted - set(offered)):
        raise unknown_name("config.modalities", unknown[0], offered)
    if wanted:
        offered = [name for name in offered if name in wanted]
    names = [name for name in offered if not _left_out(name, arrays)]
    if not names:
        raise UserError("the data hold no modality; allowed: one array [N, ...] or more, under any name")
    for name in arrays:
        if name.endswith(MASK) and name.removesuffix(MASK) not in arrays:
            raise UserError(f"array '{name}' belongs to no modality; allowed: {', '.join(n + MASK for n in names)}")
    for name in names:
        if name in _OF_METRICS or name.startswith(_OTHERS):
            raise UserError(f"array '{name}' has a name that metrics give to several modalities; allowed: any other")
        if name.endswith(_OF_OUTPUTS):
            raise UserError(f"array '{name}' has the name of an output; allowed: no end in {', '.join(_OF_OUTPUTS)}")
        if advice := _no_numbers(name, arrays[name]):
            raise UserError(f"array '{name}' is {seen(arrays[name])}; allowed: numbers [N, ...]{advice}")
    for link in _LINKS:
        pairs = [link.join(pair) for pair in itertools.permutations(names, 2)]
        for name, count in collections.Counter(names + pairs).most_common(1):
            if count > 1:
                raise UserError(f"of the arrays {names} metrics call {count} things '{name}'; allowed: other names")
    common_length(arrays, names)
    return names


def _check_names(arrays: Mapping) -> None:
    for name in arrays:
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or set(name) & set("/\\"):
            raise UserError(f"an array has the name {name!r}; allowed: printable characters without slashes")
    if {"data", "shape", "format"} <= set(arrays):
        raise UserError("the arrays are those of a sparse matrix (data, shape, format); allowed: matrix.toarray()")


def _left_out(name: str, arrays: Mapping) -> bool:
    """Return whether an array holds names of samples or features instead of measurements, and log it if so."""
    array = arrays[name]
    numbered = array.dtype.kind in "iu" and is_name_of_ids(name)
    if len(array.shape) > 1 or len(arrays) == 1 or not (array.dtype.kind in "USOM" or numbered):
        return False
    log.warning("array '%s' is %s and left out: it holds names, not measurements", name, seen(array))
    return True


def is_name_of_ids(name: str) -> bool:
    """Return whether a name is usual for names of samples or features, such as "patient_id" or "barcode"."""
    return bool(_OF_IDS.search(name))


def _no_numbers(name: str, array) -> str:
    """Return advice for an array that does not hold numbers [N, ...]; empty for one that does."""
    kind, shape = array.dtype.kind, array.shape
    if array.dtype.fields:
        return f", such as numpy.lib.recfunctions.structured_to_unstructured({name})"
    if kind not in "iubf":
        other = {
            "c": f", such as numpy.concatenate([{name}.real, {name}.imag], 1)",
            "U": f", such as {name}.astype(float), or no such array",
            "S": f", such as {name}.astype(float), or no such array",
            "M": f", such as {name}.astype('M8[s]').astype(float)",
            "O": f", such as {name}.astype(float); Python objects are not read from a file",
        }
        return other.get(kind, ", of one of NumPy's own types")
    if len(shape) < 2:
        return (
            f", where one number per example is [N, 1], as {name}[:, None]; leave out arrays that are not modalities "
            "(ids, dates), or list the modalities in config.modalities"
        )
    return ", with one number per example or more" if 0 in shape[1:] else ""


def common_length(arrays: Mapping, names: Sequence[str]) -> int:
    """Return N, the common length of the named arrays, their masks, the labels and the split.

    Raises:
      UserError: the lengths differ, or are 0.
    """
    counted = [name for name in arrays if name in RESERVED or name.removesuffix(MASK) in names]
    lengths = {name: arrays[name].shape[0] if arrays[name].shape else 0 for name in counted}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"the arrays differ in length: {listed}; allowed: the same number of examples in each")
    length = next(iter(lengths.values()))
    if not length:
        raise UserError(f"the arrays have no examples: {', '.join(lengths)}; allowed: one or more")
    return length


def read_mask(mask: np.ndarray, name: str, length: int) -> np.ndarray:
    """Return which examples have the modality ``name``, [N] bool.

    Raises:
      UserError: the mask has another shape, or values other than 0 and 1.
    """
    if mask.shape != (length,) or mask.dtype.kind not in "iubf" or not np.isin(mask, (0, 1)).all():
        raise UserError(f"array '{name}{MASK}' is {seen(mask)}; allowed: 0 or 1, [{length}]")
    return mask.astype(bool)


def read_presence(rows, name: str, length: int) -> np.ndarray:
    """Return which examples have a modality, [N] bool: from its mask, or else those whose entries are not all NaN.

    Args:
      rows: the arrays, ``MemoryRows`` or ``NpzRows``.
      name: of the modality.
      length: N.

    Raises:
      UserError: the mask is invalid.
    """
    if name + MASK in rows.headers:
        return read_mask(rows.read(name + MASK), name, length)
    present = np.ones(length, bool)
    if rows.headers[name].dtype.kind == "f":
        for start, block in rows.array_blocks(name):
            present[start : start + len(block)] = ~np.isnan(block).reshape(len(block), -1).all(axis=1)
    if not present.all():
        log.info("array '%s' has only NaN in %d examples, which are taken as absent", name, (~present).sum())
    return present


def check_finite(name: str, array: np.ndarray, present: np.ndarray, start: int = 0, missing: bool = False) -> None:
    """Raise UserError if a present example is not finite, or too large for float32.

    Args:
      name: of the modality.
      array: [n, ...] numbers.
      present: [n] bool.
      start: the number of the array's first example.
      missing: whether NaN is allowed, as a missing entry.
    """
    if array.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        wrong = {"infinity": np.isinf(array), f"numbers beyond {_LARGEST:g}": np.abs(array) > _LARGEST}
        if not missing:
            wrong = {"NaN": np.isnan(array)} | wrong
    for what, where in wrong.items():
        broken = where.reshape(len(array), -1).any(axis=1) & present
        if broken.any():
            raise UserError(
                f"array '{name}' has {what} in {broken.sum()} examples, the first is {start + broken.argmax()}; "
                f"allowed: only where '{name}{MASK}' is 0, or NaN in all entries of an example, which is then absent"
                + _OF_SINGLE_ENTRIES.get(what, "")
            )


def as_kind(name: str, array: np.ndarray, kind: str, present: np.ndarray) -> np.ndarray:
    """Return a copy with the axes and type of its kind, zeros where absent. Vectors and tables keep their type.

    Missing entries stay NaN; counts with missing entries are float32.

    Raises:
      UserError: the axes or values do not fit the kind.
    """
    check_axes(name, array.shape, kind)
    array = array.copy()
    array[~present] = 0
    if kind in ("vector", "table"):
        return array
    if kind == "image":
        return _as_image(name, array)
    largest = _LARGEST_OF_KIND[kind]
    missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    wrong = ((array < 0) | (array > np.float64(largest)) | (array != np.round(array))) & ~missing
    if wrong.any():
        raise UserError(
            f"array '{name}' has the kind {kind} but values such as {array[wrong][0]}; "
            f"allowed: integers from 0 to {largest}"
        )
    return array.astype(np.float32 if kind == "binary" or missing.any() else np.int32)


def check_levels(name: str, dtype: np.dtype, highest: float) -> None:
    """Raise UserError for integer images of few levels, such as masks or counts, which would be almost black."""
    if dtype.kind in "iu" and 0 < highest < _FEWEST_LEVELS:
        raise UserError(
            f"array '{name}' is an integer image with values up to {highest:g} only; allowed: white as 255, real "
            f"numbers with white as 1, the type bool, or another kind by config.data.kinds={name}=counts"
        )


def check_axes(name: str, shape: tuple[int, ...], kind: str) -> None:
    """Raise UserError if an array of this shape [N, ...] cannot be of its kind."""
    if kind in ("tokens", "table") and len(shape) != 2:
        axis = "T" if kind == "tokens" else "C"
        raise UserError(f"array '{name}' has the kind {kind} but shape {list(shape)}; allowed: [N, {axis}]")
    if kind != "image":
        return
    if len(shape) not in (3, 4):
        raise UserError(
            f"array '{name}' has the kind image but shape {list(shape)}; allowed: [N, H, W] or [N, H, W, C]"
        )
    check_channels(name, shape)


def check_channels(name: str, shape: tuple[int, ...]) -> None:
    """Raise UserError for images [N, C, H, W], with the channels where height is expected."""
    if len(shape) == 4 and shape[1] in _CHANNELS and shape[3] > max(_CHANNELS) < shape[2]:
        raise UserError(
            f"array '{name}' is {list(shape)}, an image with its {shape[1]} channels before height and width; "
            f"allowed: channels last, as by numpy.moveaxis({name}, 1, -1), or config.data.kinds={name}=vector"
        )


def _as_image(name: str, array: np.ndarray) -> np.ndarray:
    limit, dtype = (1, np.float32) if array.dtype.kind in "fb" else (255, np.uint8)
    margin = ROUNDING if limit == 1 else 0
    if array.min() < -margin or array.max() > limit + margin:
        what = "a real" if limit == 1 else "an integer"
        raise UserError(
            f"array '{name}' is {what} image with values from {array.min()} to {array.max()}; "
            f"allowed: 0 to {limit}{_rescaling(name, array.min(), array.max())}, or another kind by "
            f"config.data.kinds={name}=vector"
        )
    return (array[..., None] if array.ndim == 3 else array).clip(0, limit).astype(dtype)


def _rescaling(name: str, lowest: float, highest: float) -> str:
    """Return the advice that rescales an image of a known range to 0 to 1; empty for other ranges."""
    if lowest >= -1 and highest <= 1:
        return f", as by ({name} + 1) / 2"
    white = next((white for white in (255, 1023, 4095, 65535) if highest <= white), None)
    return f", as by {name} / {white}.0" if lowest >= 0 and white else ""
