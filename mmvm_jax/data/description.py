"""Description of training data (kinds, types, units), which is needed to use the model on other data."""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from mmvm_jax.data import units
from mmvm_jax.data.arrays import as_kind, check_levels
from mmvm_jax.data.columns import Levels, check_values
from mmvm_jax.data.dataset import DataSet
from mmvm_jax.errors import UserError
from mmvm_jax.types import Batch, Column, Modality


@dataclasses.dataclass(frozen=True)
class Description:
    """Properties of a data set, without its examples.

    Attributes:
      modalities: M of them, in the order of the rows of every mask.
      dtypes: ``{modality name: type of its inputs}`` in the data set.
      units, vocabularies, class_names, fingerprint, columns, levels: see ``dataset.DataSet``.
    """

    modalities: tuple[Modality, ...]
    dtypes: dict[str, str]
    units: dict[str, tuple[np.ndarray, np.ndarray]]
    vocabularies: dict[str, tuple[str, ...]]
    class_names: tuple[str, ...]
    fingerprint: str
    columns: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    levels: dict[str, Levels] = dataclasses.field(default_factory=dict)

    def blank_batch(self) -> Batch:
        """Return one example without any modality."""
        inputs = {m.name: np.zeros((1, *m.shape), self.dtypes[m.name]) for m in self.modalities}
        return Batch(inputs, np.zeros((len(inputs), 1), bool), np.zeros(1, np.int32), np.full(1, -1, np.int32))

    def to_model(self, modality: Modality, array: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Convert an array to inputs like those of training, with zeros where absent.

        Args:
          modality: of the array.
          array: [n, ...] in original units; images may lack the axis of channels.
          present: [n] bool.

        Raises:
          UserError: the array has values that are invalid for the modality.
        """
        values = as_modality(modality, array, present, self.columns)
        if modality.kind == "tokens" and values.max() >= modality.vocabulary_size:
            raise UserError(
                f"array '{modality.name}' has the token id {values.max()}; allowed: 0 to {modality.vocabulary_size - 1}"
            )
        if modality.kind == "image" and self.dtypes[modality.name] != "uint8":
            check_levels(modality.name, array.dtype, values.max())
        if modality.name in self.units:
            values = units.apply(values, present, self.units[modality.name])
        return values.astype(np.float32) if modality.missing_entries else values

    def unit(self, modality: Modality, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Return (offset, scale) that convert the model's values to an array of this type: x * scale + offset."""
        if modality.kind == "image" and dtype.kind not in "fb":
            return np.array(0, np.float32), np.array(255, np.float32)
        return self.units.get(modality.name, (np.array(0, np.float32), np.array(1, np.float32)))

    def generated_type(self, modality: Modality) -> np.dtype:
        """Return the type of generated arrays: for pixels and tokens as in training, otherwise real numbers.

        Real numbers in original units are float64, since float32 is too coarse for close values far from zero.
        """
        if modality.kind in ("image", "tokens"):
            return np.dtype(self.dtypes[modality.name])
        return np.dtype(np.float64 if modality.name in self.units else np.float32)


def as_modality(
    modality: Modality, array: np.ndarray, present: np.ndarray, columns: Mapping[str, tuple[str, ...]]
) -> np.ndarray:
    """Return an array in the form of its modality like ``arrays.as_kind``; the values of tables are checked, too."""
    values = as_kind(modality.name, array, modality.kind, present)
    if modality.kind == "table":
        names = columns.get(modality.name, range(len(modality.columns)))
        check_values(modality.name, values, modality.columns, names)
    return values


def describe(data: DataSet) -> Description:
    """Return the description of a data set."""
    dtypes = {modality.name: data.train.inputs[modality.name][:1].dtype.name for modality in data.modalities}
    return Description(
        data.modalities,
        dtypes,
        data.units,
        data.vocabularies,
        data.class_names,
        data.fingerprint,
        data.columns,
        data.levels,
    )


def to_text(description: Description) -> str:
    """Return the description as JSON, from which every number can be restored bit for bit."""
    values = dataclasses.asdict(description)
    values["units"] = {name: [part.tolist() for part in unit] for name, unit in description.units.items()}
    return json.dumps(values, indent=1) + "\n"


def from_text(text: str) -> Description:
    """Parse the text of ``to_text``."""
    values = json.loads(text)
    values["modalities"] = tuple(map(_modality, values["modalities"]))
    values["units"] = {name: tuple(np.array(p, np.float64) for p in unit) for name, unit in values["units"].items()}
    values["vocabularies"] = {name: tuple(words) for name, words in values["vocabularies"].items()}
    values["columns"] = {name: tuple(columns) for name, columns in values.get("columns", {}).items()}
    tables = values.get("levels", {}).items()
    values["levels"] = {name: {column: tuple(one) for column, one in levels.items()} for name, levels in tables}
    values["class_names"] = tuple(values["class_names"])
    return Description(**values)


def _modality(values: dict) -> Modality:
    columns = tuple(Column(*column) for column in values.get("columns", ()))
    return Modality(
        **values | {"shape": tuple(values["shape"]), "rates": tuple(values.get("rates", ())), "columns": columns}
    )
