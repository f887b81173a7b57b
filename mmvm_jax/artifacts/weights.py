"""A model's variables in one safetensors file, which has only names, shapes and numbers and is safe to load.

A variable's name is its path in the tree, such as ``encoders/0/params/Dense_0/kernel``.
"""

import os

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime.files import replacing

WEIGHTS_FILE = "weights.safetensors"


def are_in(folder: str) -> bool:
    """Return whether a folder holds exported weights."""
    return os.path.exists(os.path.join(folder, WEIGHTS_FILE))


def write(folder: str, variables: dict, step: int) -> None:
    """Write the variables after ``step`` steps of training, atomically."""
    path = os.path.join(folder, WEIGHTS_FILE)
    leaves, _ = jax.tree.flatten_with_path(variables)
    with replacing(path) as temporary:
        save_file({_name(place): np.asarray(leaf) for place, leaf in leaves}, temporary, {"step": str(step)})


def read(folder: str, like: dict) -> tuple[dict, int]:
    """Read the variables and the number of training steps, which ``write`` wrote.

    Args:
      folder: that holds the file.
      like: a tree with the shapes of the variables.

    Raises:
      UserError: the file is damaged, or belongs to another model.
    """
    path = os.path.join(folder, WEIGHTS_FILE)
    leaves, structure = jax.tree.flatten_with_path(like)
    try:
        with safe_open(path, framework="numpy") as file:
            step = int(file.metadata()["step"])
            arrays = [file.get_tensor(_name(place)) for place, _ in leaves]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); allowed: what mmvm_jax.export wrote") from error
    for (place, expected), array in zip(leaves, arrays, strict=True):
        if array.shape != expected.shape:
            raise UserError(f"{path}: '{_name(place)}' is {list(array.shape)}; allowed: {list(expected.shape)}")
    return jax.tree.unflatten(structure, arrays), step


def _name(place) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
