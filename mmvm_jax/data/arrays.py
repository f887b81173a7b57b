"""A user's arrays: what they must look like, and how a model reads them. ``own_data`` describes their layout."""

import collections
import itertools
from collections.abc import Mapping

import numpy as np

from mmvm_jax.errors import UserError

MASK = "__present"
RESERVED = ("labels", "split")
_LARGEST = np.float32(1e38)  # of real numbers: differences of two still fit into float32
_LARGEST_COUNT = 2**31 - 1
_FEWEST_LEVELS = 64  # of a whole data set of integer images
_LARGEST_TOKEN = 999_999  # a network has parameters for every id
# What metrics call the common representation, the mean over modalities, and sets of them.
_OF_METRICS = ("joint", "mean", "all", "others")
_OTHERS = "others_"
_OF_OUTPUTS = ("__mean", "__log_variance", "__std", "__samples")  # what is made of a modality
_LINKS = ("_", "_to_")  # between the names of two modalities


def modality_names(arrays: Mapping) -> list[str]:
    """The names of the modalities among arrays, of which only type and shape are read.

    Raises:
      UserError: there is none, a name cannot be one, a mask has no modality, an array holds no numbers, lengths
        differ, or there is no example.
    """
    for name in arrays:
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or set(name) & set("/\\"):
            raise UserError(f"an array has the name {name!r}; allowed: printable characters without slashes")
    names = [name for name in arrays if name not in RESERVED and not name.endswith(MASK)]
    if not names:
        raise UserError("the data hold no modality; allowed: one array [N, ...] or more, under any name")
    for name in arrays:
        if name.endswith(MASK) and name.removesuffix(MASK) not in names:
            raise UserError(f"array '{name}' belongs to no modality; allowed: {', '.join(n + MASK for n in names)}")
    for name in names:
        shape, dtype = arrays[name].shape, arrays[name].dtype
        if name in _OF_METRICS or name.startswith(_OTHERS):
            raise UserError(f"array '{name}' has a name that metrics give to several modalities; allowed: any other")
        if name.endswith(_OF_OUTPUTS):
            raise UserError(f"array '{name}' has the name of an output; allowed: no end in {', '.join(_OF_OUTPUTS)}")
        if len(shape) < 2 or dtype.kind not in "iubf" or 0 in shape[1:]:
            raise UserError(
                f"array '{name}' is {dtype} {list(shape)}; allowed: numbers [N, ...], where one an example is [N, 1]"
            )
    for link in _LINKS:
        pairs = [link.join(pair) for pair in itertools.permutations(names, 2)]
        for name, count in collections.Counter(names + pairs).most_common(1):
            if count > 1:
                raise UserError(f"of the arrays {names} metrics call {count} things '{name}'; allowed: other names")
    common_length(arrays)
    return names


def common_length(arrays: Mapping) -> int:
    """N, the length of all arrays, 1 or more."""
    lengths = {name: array.shape[0] if array.shape else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"the arrays differ in length: {listed}; allowed: as many examples in each")
    length = next(iter(lengths.values()))
    if not length:
        raise UserError(f"the arrays have no examples: {', '.join(lengths)}; allowed: one or more")
    return length


def read_mask(mask: np.ndarray | None, name: str, length: int) -> np.ndarray:
    """Which examples have the modality ``name``: [N] bool; all of them without a mask."""
    mask = np.ones(length, bool) if mask is None else mask
    if mask.shape != (length,) or mask.dtype.kind not in "iubf" or not np.isin(mask, (0, 1)).all():
        raise UserError(f"array '{name}{MASK}' is {mask.dtype} {list(mask.shape)}; allowed: 0 or 1, [{length}]")
    return mask.astype(bool)


def check_finite(name: str, array: np.ndarray, present: np.ndarray, start: int = 0) -> None:
    """Raises UserError if a present example is not finite, or too large for float32.

    Args:
      name: of the modality.
      array: [n, ...] numbers.
      present: [n] bool.
      start: the number of the array's first example.
    """
    if array.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        wrong = {"NaN or infinity": ~np.isfinite(array), f"numbers beyond {_LARGEST:g}": np.abs(array) > _LARGEST}
    for what, where in wrong.items():
        broken = where.reshape(len(array), -1).any(axis=1) & present
        if broken.any():
            raise UserError(
                f"array '{name}' has {what} in {broken.sum()} examples, the first is {start + broken.argmax()}; "
                f"allowed: only where '{name}{MASK}' is 0"
            )


def as_kind(name: str, array: np.ndarray, kind: str, present: np.ndarray) -> np.ndarray:
    """The array in the type and with the axes of its kind, zeros where absent.

    Raises:
      UserError: the array has other axes or values than its kind.
    """
    array = array.copy()
    array[~present] = 0
    if kind == "vector":
        return array.astype(np.float32)
    if kind == "image":
        return _as_image(name, array)
    largest = _LARGEST_TOKEN if kind == "tokens" else _LARGEST_COUNT
    wrong = (array < 0) | (array > np.float64(largest)) | (array != np.round(array))
    if wrong.any():
        raise UserError(
            f"array '{name}' is to be {kind} but has values such as {array[wrong][0]}; "
            f"allowed: integers from 0 to {largest}"
        )
    if kind == "tokens" and array.ndim != 2:
        raise UserError(f"array '{name}' is to be tokens but has shape {list(array.shape)}; allowed: [N, T]")
    return array.astype(np.int32)


def check_levels(name: str, image: np.ndarray) -> None:
    """Raises UserError for integers of few levels, such as masks or counts: as pixels they would be almost black."""
    if image.dtype == np.uint8 and 0 < image.max() < _FEWEST_LEVELS:
        raise UserError(
            f"array '{name}' is an integer image with values up to {image.max()} only; allowed: white as 255, real "
            "numbers with white as 1, or the type bool"
        )


def _as_image(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (3, 4):
        shape = list(array.shape)
        raise UserError(f"array '{name}' is to be an image but has shape {shape}; allowed: [N, H, W] or [N, H, W, C]")
    limit, dtype = (1, np.float32) if array.dtype.kind in "fb" else (255, np.uint8)
    if array.min() < 0 or array.max() > limit:
        what = "a real" if limit == 1 else "an integer"
        raise UserError(
            f"array '{name}' is {what} image with values from {array.min()} to {array.max()}; allowed: 0 to {limit}"
        )
    return (array[..., None] if array.ndim == 3 else array).astype(dtype)
