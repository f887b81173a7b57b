"""How many small faults in the kernels the tests notice: no test itself, as it runs them hundreds of times.

    python tests/mutation.py mmvm_jax/distributions.py --tests tests/kernels

Every mutant differs from the file in one place: an operator is exchanged for its opposite, a comparison turned around,
a number moved by one, True taken for False, or an argument of a call left to its default. It is killed if a test
fails, or if the tests run for longer than ten times as long as on the true file. Survivors are to be read: a
mutant may be equivalent, such as another number where only its sign matters. ``--every`` takes one mutant in so many.
"""

import argparse
import ast
import copy
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXCHANGED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def changes(node: ast.AST):
    """Every mutation of one node, as a function that makes it."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in EXCHANGED:
        yield lambda node: setattr(node, "op", EXCHANGED[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in EXCHANGED:
        yield lambda node: node.ops.__setitem__(0, EXCHANGED[type(node.ops[0])]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda node: setattr(node, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert | ast.Not):
        yield lambda node: setattr(node, "operand", ast.UnaryOp(type(node.op)(), node.operand))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda node: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield lambda node: setattr(node, "value", node.value + 1)
    elif isinstance(node, ast.Call):
        for place in range(len(node.keywords)):
            yield lambda node, place=place: node.keywords.pop(place)


def declarations(tree: ast.AST):
    """The types and kinds of classes that a file writes down, which nothing computes with."""
    for node in ast.walk(tree):
        fields = (getattr(node, name, None) for name in ("annotation", "returns"))
        yield from (field for field in fields if field is not None)
        yield from node.decorator_list if isinstance(node, ast.ClassDef) else ()


def mutants(source: str):
    """(line, the changed statement, the whole source) of every mutant."""
    tree = ast.parse(source)
    declared = {id(node) for declaration in declarations(tree) for node in ast.walk(declaration)}
    for place, node in enumerate(ast.walk(tree)):
        for change in changes(node) if id(node) not in declared else ():
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[place]
            change(target)
            yield node.lineno, ast.unparse(target), ast.unparse(changed)


def run_tests(folder: pathlib.Path, tests: list[str], limit: float | None) -> bool:
    """Whether the tests pass on the package in ``folder``."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        return not subprocess.run(command, cwd=folder, capture_output=True, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--every", type=int, default=1)
    flags = parser.parse_args()
    source = (ROOT / flags.file).read_text()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run(["cp", "-r", *(ROOT / part for part in ("mmvm_jax", "tests", "setup.cfg")), folder], check=True)
        os.environ.setdefault(
            "JAX_COMPILATION_CACHE_DIR", str(folder / "compiled")
        )  # of all that a mutant leaves alone
        start = time.monotonic()
        if not run_tests(folder, flags.tests, None):
            sys.exit("the tests fail on the true file")
        limit, chosen, survivors = 10 * (time.monotonic() - start), list(mutants(source))[:: flags.every], 0
        for line, statement, changed in chosen:
            (folder / flags.file).write_text(changed)
            survived = run_tests(folder, flags.tests, limit)
            survivors += survived
            print(f"{'survived' if survived else 'killed'}: line {line}: {statement}", flush=True)
    print(f"{flags.file}: {len(chosen) - survivors} of {len(chosen)} mutants killed")


if __name__ == "__main__":
    main()
