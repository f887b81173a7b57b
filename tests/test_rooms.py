"""The architecture, read from the source: what a file imports, which names it uses, and how long it is."""

import ast
import io
import pathlib
import tokenize

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "mmvm_jax"
ORDER = (  # a file imports only from its own room or from rooms above it
    {"types", "errors"},
    {"distributions"},
    {"aggregation"},
    {"networks"},
    {"objectives"},
    {"config"},
    {"runtime"},
    {"data"},
    {"models"},
    {"artifacts"},
    {"training"},
    {"evaluation"},
    {"report"},
    {"inference"},
    {"experiments"},
    {"api"},
    {"main", "sweep", "infer"},
)
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
KERNELS = {"distributions", "aggregation", "objectives"}
FORBIDDEN = {"tensorflow", "torch"}
FORBIDDEN_IN_KERNELS = {"flax", "ml_collections", "tensorflow_datasets"}
DEVICE_NAMES = {"pmap", "pmean", "psum", "axis_index", "process_index"}  # only for the next two files
DEVICE_FILES = {"runtime/devices.py", "runtime/processes.py"}
MAX_LINES = 400
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports_of(source: str) -> set[str]:
    """Return the dotted names of all imports of a file, also inside functions; "." for a relative import."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.add(".")
        elif isinstance(node, ast.ImportFrom):
            # `from mmvm_jax import types` names a room, `from mmvm_jax.types import Batch` a part of one.
            names |= {f"mmvm_jax.{alias.name}" for alias in node.names if node.module == "mmvm_jax"}
            names |= {node.module} - {"mmvm_jax"}
    return names


def violations(path: str, source: str) -> list[str]:
    """Return every rule that a file of the package breaks; its path begins with its room."""
    room = path.partition("/")[0].removesuffix(".py")
    forbidden, found = FORBIDDEN | (FORBIDDEN_IN_KERNELS if room in KERNELS else set()), []
    for name in imports_of(source):
        top, *rest = name.split(".")
        if name == "." or top in forbidden:
            found.append(f"imports {name}")
        elif top == "mmvm_jax" and rest and not _may_import(room, rest[0]):
            found.append(f"imports {name}, which is not in a room above")
    if path not in DEVICE_FILES:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        used = {token.string for token in tokens if token.type == tokenize.NAME} & DEVICE_NAMES
        found += [f"uses {name}, which only {' and '.join(sorted(DEVICE_FILES))} may" for name in sorted(used)]
    if len(source.splitlines()) >= MAX_LINES:
        found.append(f"has {len(source.splitlines())} lines, not fewer than {MAX_LINES}")
    return found


def _may_import(room: str, other: str) -> bool:
    return room in ("__init__", other) or LEVELS.get(other, len(ORDER)) < LEVELS.get(room, -1)


def test_every_room_has_a_place_in_the_order():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_keeps_the_rules_of_its_room(path):
    assert violations(path.as_posix(), (PACKAGE / path).read_text()) == []


@pytest.mark.parametrize(
    "path, source",
    [
        ("types.py", "import mmvm_jax.distributions"),
        ("types.py", "from mmvm_jax import errors"),  # on the same level, another room
        ("aggregation.py", "def f():\n    from mmvm_jax.models.model import Model"),
        ("objectives/new.py", "from mmvm_jax.utilities import helper"),
        ("networks/new.py", "from mmvm_jax.data import batches"),
        ("data/new.py", "from . import batches"),
        ("distributions.py", "import flax.linen as nn"),
        ("objectives/new.py", "from ml_collections import ConfigDict"),
        ("training/new.py", "import tensorflow as tf"),
        ("training/new.py", "from torch.nn import Module"),
        ("training/new.py", "import jax\njax.lax.psum(1, 'batch')"),
        ("main.py", "\n" * 400),
    ],
)
def test_a_broken_rule_is_found(path, source):
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    "path, source",
    [
        ("aggregation.py", "from mmvm_jax.distributions import where_present"),
        ("objectives/new.py", "from mmvm_jax.objectives import mmvm"),
        ("networks/new.py", "import flax.linen as nn"),
        ("training/new.py", "# psum and pmap are in comments only\nfrom mmvm_jax.runtime import devices"),
        ("runtime/devices.py", "from jax import pmap"),
        ("inference/export.py", "import mmvm_jax"),
        ("data/new.py", "import tensorflow_datasets as tfds"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert violations(path, source) == []
