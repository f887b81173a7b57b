"""Preparation of data with TFDS builders, once per data directory, and reading of splits, without TensorFlow."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.object_storage import is_remote
from mmvm_jax.runtime.progress import log

_READ_AT_ONCE = 1024  # records; limits the memory of undecoded records


def data_directory(configured: str) -> pathlib.Path:
    """Return the local directory of prepared data: ``config.data.dir``, or the user's cache if that is empty.

    For object storage it is a folder in the cache, which ``object_storage.shared_data`` synchronises.
    """
    if configured and not is_remote(configured):
        return pathlib.Path(configured).expanduser()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmvm_jax"
    return cache / "storage" / configured.replace("://", "/") if configured else cache / "data"


def stored_info(builder, arrays: dict[str, tuple], numbers=("label",), metadata=None) -> tfds.core.DatasetInfo:
    """Return the description of the features that a builder stores per example, without shuffling.

    Args:
      builder: the builder itself.
      arrays: ``{name: (shape, type)}``, stored as bytes.
      numbers: names of features that are a single integer.
      metadata: a ``tfds.core.MetadataDict``, if the builder fills one.
    """
    stored = {name: tfds.features.Tensor(shape=s, dtype=dtype, encoding="bytes") for name, (s, dtype) in arrays.items()}
    stored |= {name: tfds.features.Scalar(np.int32) for name in numbers}
    features = tfds.features.FeaturesDict(stored)
    return tfds.core.DatasetInfo(builder=builder, features=features, disable_shuffling=True, metadata=metadata)


def prepare(builder_class, config_name: str, data_dir) -> tfds.core.DatasetBuilder:
    """Return a builder whose data are completely prepared; prepare them if they are not yet.

    TFDS writes into a directory called ``incomplete.*`` and renames it at the end, so an interrupted preparation starts
    again from the beginning.

    Args:
      builder_class: a ``tfds.core.GeneratorBasedBuilder``.
      config_name: one of its builder configs.
      data_dir: ``config.data.dir``, the directory shared by all prepared data sets.

    Raises:
      UserError: the directory cannot be written or read, or the prepared data are damaged.
    """
    tfds.disable_progress_bar()  # builders report through mmvm_jax.runtime.progress
    data_dir = data_directory(str(data_dir))
    try:
        with _reporting_damage(data_dir / builder_class.name / config_name):
            builder = builder_class(config=config_name, data_dir=data_dir)
            if builder.data_path.exists() and not builder.info.splits:
                raise ValueError("no dataset_info.json")
        if not builder.data_path.exists():
            _generate(builder)
    except OSError as error:
        raise UserError(
            f"config.data.dir is '{data_dir}': cannot prepare {builder_class.name} there "
            f"({error.strerror or error}); allowed: a writable directory"
        ) from error
    return builder


@contextlib.contextmanager
def _reporting_damage(folder: pathlib.Path) -> Iterator[None]:
    """Raise UserError, with the command that repairs it, if prepared data cannot be read."""
    try:
        yield
    except Exception as error:  # there are a dozen kinds, including the libraries' own
        if not folder.exists():
            raise
        raise UserError(
            f"{folder} is damaged ({first_line(error)}); remove it and run the same command again to prepare it: "
            f"rm -r {folder}",
            exit_code=1,
        ) from error


def _generate(builder) -> None:
    log.info("Preparing %s, once, in %s", builder.name, builder.data_dir)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS reports downloads even if there are none
            builder.download_and_prepare(file_format="array_record")
    except OSError:
        # If two processes prepare at the same time, the slower one finds that its target exists.
        if not builder.data_path.exists():
            raise
        builder.info.read_from_directory(builder.data_dir)


def read_split(builder, split: str, names) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read a whole split into contiguous arrays, in stored order.

    Args:
      builder: from ``prepare``; its features have static shapes.
      split: its name, such as "train".
      names: the features to read in addition to the label.

    Returns:
      ``{name: [N, ...]}``, and the feature "label" [N, ...] as int32 (-1 [N] if there is none).

    Raises:
      UserError: the records are damaged.
    """
    stored = builder.info.features
    wanted = [*names, "label"] if "label" in stored else list(names)
    features = tfds.features.FeaturesDict({name: stored[name] for name in wanted})  # decodes only these
    with _reporting_damage(builder.data_path):
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        arrays = {name: np.empty((len(source), *spec.shape), spec.np_dtype) for name, spec in features.items()}
        for start in range(0, len(source), _READ_AT_ONCE):
            rows = range(start, min(start + _READ_AT_ONCE, len(source)))
            for row, record in zip(rows, source.__getitems__(rows)):
                for name, value in features.deserialize_example_np(record).items():
                    arrays[name][row] = value
    labels = arrays.pop("label", np.full(len(source), -1))
    return arrays, labels.astype(np.int32)
