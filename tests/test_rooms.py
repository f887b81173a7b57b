"""Rooms: a file imports only from its own room or from those above it."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "mmvm_jax"
ORDER = (
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


def _room(module: str) -> str:
    return module.split(".")[1]


def _imported(path: pathlib.Path) -> set[str]:
    """The rooms that a file imports from, wherever in the file it does."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mmvm_jax":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mmvm_jax."):
            rooms.add(_room(node.module))
        elif isinstance(node, ast.Import):
            rooms |= {_room(alias.name) for alias in node.names if alias.name.startswith("mmvm_jax.")}
    return rooms


def test_every_room_has_a_place_in_the_order():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == set(LEVELS)


def test_files_import_only_from_their_own_room_and_those_above():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own != "__init__":
            below = {room for room in _imported(path) if room != own and LEVELS[room] >= LEVELS[own]}
            wrong += [f"{path.relative_to(PACKAGE)} imports {room}" for room in sorted(below)]
    assert not wrong, "; ".join(wrong)


def test_kernels_and_objectives_need_neither_flax_nor_configurations():
    forbidden = {"flax", "ml_collections", "tensorflow", "tensorflow_datasets"}
    kernels = [PACKAGE / "distributions.py", PACKAGE / "aggregation.py", *(PACKAGE / "objectives").glob("*.py")]
    for path in kernels:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path.name
