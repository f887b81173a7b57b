"""The floors of the architecture, read from the source: what a file imports, names and measures in lines."""

import ast
import io
import pathlib
import tokenize

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "mmvm_jax"
FLOORS = (  # from the ground up; a name ending in /* is a package, whose files may import each other
    ("__init__", "types", "errors", "interruption"),
    ("distributions", "progress", "config"),
    ("storage",),
    ("parallel",),
    ("environment",),
    ("aggregation", "schedules", "likelihoods", "networks/*", "data/*", "command_line"),
    ("objectives/*", "model"),
    ("checkpoints", "weights", "metrics", "method", "workdir", "feeding", "failures"),
    ("validation", "train", "evaluation/*", "report/*"),
    ("predictions", "replicas"),
    ("inference",),
    ("run", "exporting"),
    ("sweeping",),
    ("main", "sweep", "infer", "api"),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
KERNELS = {"distributions", "aggregation", "objectives/*"}
FORBIDDEN = {"tensorflow", "torch"}
FORBIDDEN_IN_KERNELS = {"flax", "ml_collections", "tensorflow_datasets"}
DEVICE_NAMES = {"pmap", "pmean", "psum", "axis_index", "process_index"}  # known to parallel.py alone
MAX_LINES = 400
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))


def unit_of(parts: tuple[str, ...]) -> str:
    """The entry of the floor table for a path inside the package: ("networks", "mlp") -> "networks/*"."""
    return f"{parts[0]}/*" if parts and f"{parts[0]}/*" in FLOOR else "/".join(parts) or "__init__"


def imports_of(source: str) -> set[str]:
    """Dotted names of everything a file imports, inside functions too; "." where the import is relative."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.add(".")
        elif isinstance(node, ast.ImportFrom):
            # `from mmvm_jax import types` names a module, `from mmvm_jax.types import Batch` a part of one.
            names.update(f"{PACKAGE}.{alias.name}" for alias in node.names if node.module == PACKAGE)
            names.update({node.module} - {PACKAGE})
    return names


def violations(unit: str, source: str) -> list[str]:
    """Every rule that a file with this entry of the table breaks."""
    if unit not in FLOOR:
        return [f"{unit} is on no floor"]
    found = []
    forbidden = FORBIDDEN | (FORBIDDEN_IN_KERNELS if unit in KERNELS else set())
    for name in imports_of(source):
        top, *rest = name.split(".")
        if top == PACKAGE:
            other = unit_of(tuple(rest))
            same_package = other == unit and unit.endswith("/*")
            if FLOOR.get(other, len(FLOORS)) >= FLOOR[unit] and not same_package:
                found.append(f"imports {name}, which is not on a lower floor")
        elif name == "." or top in forbidden:
            found.append(f"imports {name}")
    if unit != "parallel":
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        named = {token.string for token in tokens if token.type == tokenize.NAME} & DEVICE_NAMES
        found += [f"names {name}, which only parallel may" for name in sorted(named)]
    if len(source.splitlines()) >= MAX_LINES:
        found.append(f"has {len(source.splitlines())} lines, not fewer than {MAX_LINES}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_keeps_to_its_floor(path):
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    assert violations(unit_of(parts), path.read_text()) == []


@pytest.mark.parametrize(
    "unit, source",
    [
        ("utilities", ""),
        ("types", "import mmvm_jax.distributions"),
        ("model", "import mmvm_jax.models.model"),  # the same floor, no package
        ("types", "from mmvm_jax import errors"),
        ("aggregation", "def f():\n    from mmvm_jax.models.model import Model"),
        ("objectives/*", "from mmvm_jax.utilities import helper"),
        ("networks/*", "from mmvm_jax.data import pipeline"),
        ("data/*", "from . import pipeline"),
        ("distributions", "import flax.linen as nn"),
        ("objectives/*", "from ml_collections import ConfigDict"),
        ("train", "import tensorflow as tf"),
        ("train", "from torch.nn import Module"),
        ("train", "import jax\njax.lax.psum(1, 'batch')"),
        ("main", "\n" * 400),
    ],
)
def test_a_broken_rule_is_found(unit, source):
    assert len(violations(unit, source)) == 1


@pytest.mark.parametrize(
    "unit, source",
    [
        ("aggregation", "from mmvm_jax.distributions import where_present"),
        ("objectives/*", "from mmvm_jax.objectives import mmvm"),
        ("networks/*", "import flax.linen as nn"),
        ("train", "# psum and pmap are not for us\nfrom mmvm_jax import parallel, types"),
        ("parallel", "from jax import pmap"),
        ("exporting", "import mmvm_jax"),
        ("data/*", "import tensorflow_datasets as tfds"),
    ],
)
def test_what_is_allowed_passes(unit, source):
    assert violations(unit, source) == []
