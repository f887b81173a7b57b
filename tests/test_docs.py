"""The documentation: its examples run, its commands and links exist, and the site builds without a warning."""

import importlib.util
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from absl import flags
from ml_collections import ConfigDict, config_flags

import mmvm_jax
from mmvm_jax.data import dataset_from_arrays
from mmvm_jax.errors import UserError
from mmvm_jax.evaluation import METRICS
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.models.model import make_model
from mmvm_jax.networks import NETWORKS
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.method import make_method, variants
from mmvm_jax.runtime.command_line import check_are_read
from mmvm_jax.types import Batch, Modality

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/README.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture
def examples(monkeypatch):
    """The folder of the examples can be imported from; what they register is forgotten."""
    monkeypatch.syspath_prepend(EXAMPLES)
    with mock.patch.dict(METHODS), mock.patch.dict(NETWORKS), mock.patch.dict(METRICS):
        yield


@pytest.mark.parametrize("name", ["geometric", "signal_cnn"])
def test_an_example_trains_and_its_page_shows_it(name, examples, capsys):
    runpy.run_path(str(EXAMPLES / f"train_{name}.py"))
    assert "latents (200, 32)" in capsys.readouterr().out
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("adding_*.md"))
    assert all(f"{{literalinclude}} examples/{file}.py" in pages for file in (name, f"train_{name}"))


def test_parts_of_ones_own_are_imported_wherever_a_run_is_read(examples, tmp_path, monkeypatch):
    """By the module that the configuration names: in training, in a later process, and in evaluation."""
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    config = mmvm_jax.default_config(imports=("own_parts",))
    config.method.name, config.network.latent_dim, config.network.mlp.hidden_dims = "geometric", 3, (4,)
    config.train.update({"steps": 1, "batch_size": 8})
    data = {"a": np.random.default_rng(0).normal(size=(16, 2)), "b": np.random.default_rng(1).normal(size=(16, 3))}
    model = mmvm_jax.fit(data, config, tmp_path / "run")
    del METHODS["geometric"], METRICS["active_dimensions"], sys.modules["own_parts"]
    loaded = mmvm_jax.load(tmp_path / "run")
    for name, expected in model.encode(data).items():
        np.testing.assert_array_equal(loaded.encode(data)[name], expected)
    values = METRICS["active_dimensions"](loaded.predictor.trained, dataset_from_arrays(data, config.data), config)
    assert set(values) == {"a", "b"} and all(0 <= number <= 3 for number in values.values())

    del METHODS["geometric"], sys.modules["own_parts"]
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(EXAMPLES)])
    with pytest.raises(UserError, match="config.imports names 'own_parts', which cannot be imported"):
        mmvm_jax.load(tmp_path / "run")


def test_the_method_of_the_example_does_what_its_page_says(examples, random_gaussian):
    import geometric
    import signal_cnn

    METHODS["geometric"], NETWORKS["signal_cnn"] = geometric, signal_cnn
    shapes = {"a": (9,), "b": (9,), "c": (6, 2)}
    modalities = tuple(Modality(name, shape, "vector", "normal") for name, shape in shapes.items())
    model = make_model(
        modalities, ConfigDict({"name": "signal_cnn", "latent_dim": 3, "signal_cnn": {"features": (4, 5)}})
    )
    assert [group.rows for group in model.groups] == [(0, 1), (2,)]  # equal networks share a bank
    variables = jax.jit(model.init)(jax.random.key(0)) | {"method": {}}
    inputs = {name: np.random.default_rng(0).normal(size=(4, *shape)) for name, shape in shapes.items()}
    present = jnp.ones((3, 4), bool).at[1, :2].set(False)
    batch = Batch(jax.tree.map(jnp.asarray, inputs), present, jnp.arange(4), jnp.full(4, -1))

    def loss(name):
        method = make_method(ConfigDict({"name": name, name: {"stop_prior_gradient": False}}))
        total = lambda variables, batch, hyper: jnp.sum(
            method.loss(jax.random.key(1), model.prepare(batch), model.bind(variables), hyper).loss
        )
        gradient = jax.jit(jax.value_and_grad(total))
        return lambda batch, alpha: gradient(variables, batch, {"beta": jnp.float32(0.5), "alpha": jnp.float32(alpha)})

    geometric_loss, hidden = loss("geometric"), inputs["b"].copy()
    np.testing.assert_allclose(geometric_loss(batch, 1.0)[0], loss("independent")(batch, 1.0)[0], rtol=1e-6)
    hidden[:2] = np.nan  # where absent
    other = batch._replace(inputs=batch.inputs | {"b": jnp.asarray(hidden)})
    jax.tree.map(np.testing.assert_array_equal, geometric_loss(batch, 0.3), geometric_loss(other, 0.3))
    # Of equal posteriors the geometric mean is one of them; given nothing it is N(0, I).
    one = random_gaussian(0, 1, 4, 3)
    equal = jax.tree.map(lambda leaf: jnp.repeat(leaf, 3, axis=0), one)
    mean = geometric.geometric_mean(equal, present, 0.0)
    jax.tree.map(lambda leaf, expected: np.testing.assert_allclose(leaf, expected[0], rtol=1e-5, atol=1e-6), mean, one)
    assert not any(np.any(leaf) for leaf in geometric.geometric_mean(equal, ~present & False, 0.0))


def _commands():
    """(page, module, arguments) of everything of the form ``python -m module ...``, in blocks and in the text."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", "")
        blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        lines = [line for block in blocks for line in block.splitlines()] + [" ".join(span.split()) for span in spans]
        for line in lines:
            for found in re.finditer(r"python3? -m ([\w.]+)([^&|;]*)", line.replace("[", " ").replace("]", " ")):
                yield pytest.param(found[1], shlex.split(found[2]), id=f"{page.relative_to(ROOT)}: {found[0]}")


COMMANDS = list(_commands())


def test_there_are_commands():
    assert len(COMMANDS) > 20


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # how ml_collections reads a file
@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_a_command_has_its_module_and_flags(module, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not module.startswith(("mmvm_jax", "benchmarks")):
        assert importlib.util.find_spec(module)
        return
    known = _flags(path)
    if "process_flags" in path.read_text():
        known |= _flags(ROOT / "mmvm_jax" / "runtime" / "command_line.py")
    # Placeholders, such as SEED, stand for any value.
    line = [module, *(re.sub(r"^(--config\.[\w.]+)=[A-Z]+$", r"\1=1", argument) for argument in arguments)]
    monkeypatch.setattr(sys, "argv", line)  # where ml_collections looks for fields that are set
    parsed = flags.FlagValues()
    for name, kind in known.items():
        if kind == "config_file":
            config_flags.DEFINE_config_file(name, None, flag_values=parsed)
        else:
            flags.DEFINE_string(name, None, "", flag_values=parsed)
    assert parsed(line) == [module]
    if "config" in known and parsed.config is not None:
        validate(parsed.config)
        if module == "mmvm_jax.main":
            check_are_read(
                parsed.config, config_flags.get_override_values(parsed["config"]), [parsed.config.method.name]
            )
    if module == "mmvm_jax.sweep" and parsed.methods:
        assert set(parsed.methods.split(",")) <= set(variants())


def _flags(path: pathlib.Path) -> dict[str, str]:
    """{name: kind} of the flags that a file defines."""
    return {name: kind for kind, name in re.findall(r'DEFINE_(\w+)\(\s*"(\w+)"', path.read_text())}


def test_the_example_of_the_kernels_page_gives_what_it_says():
    section = (ROOT / "docs" / "kernels.md").read_text().split("\n## Example\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["divergence"].shape == (3, 128) and names["joint"].mean.shape == (128, 64)
    np.testing.assert_array_equal(names["divergence"][~names["present"]], 0.0)
    assert (names["divergence"][:, names["present"].sum(axis=0) > 1].sum(axis=0) > 0).all()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if not target.startswith("http"):
            path, _, heading = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not heading or heading in _anchors(linked), target


def _prose(page: pathlib.Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def _anchors(page: pathlib.Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_a_page_names_exist(page):
    names = re.findall(r"`((?:mmvm_jax|tests|docs|configs|launch|benchmarks)/[\w/.]+)`", _prose(page))
    hypothetical = {"mmvm_jax/objectives/geometric.py", "mmvm_jax/networks/signal_cnn.py"}  # of the worked examples
    assert [name for name in names if not (ROOT / name).exists() and name not in hypothetical] == []


def test_the_architecture_page_names_every_room_and_existing_files():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.name for path in (ROOT / "mmvm_jax").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    files = {path.name for path in (ROOT / "mmvm_jax").glob("[!_]*.py")}
    assert {room for room in rooms if f"| `{room}/`" not in text} == set()
    assert {file for file in files if f"`{file}`" not in text} == set()
    named = set(re.findall(r"`(\w+/\w+\.py)`", text))
    places = (ROOT, ROOT / "mmvm_jax")
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


def test_the_citation_has_the_version_and_every_paper_of_the_table_of_methods():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == mmvm_jax.__version__
    cited = {reference["url"] for reference in citation["references"]}
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "methods.md").read_text()
    papers = re.findall(r"https://(?:arxiv\.org|openreview\.net)/[^)\s]+", text)
    assert len(cited) >= len(set(papers)) > 5 and set(papers) <= cited


def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-d", tmp_path / "doctrees", "docs", tmp_path / "site"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    pages = {path.stem: path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert {page.stem for page in (ROOT / "docs").rglob("*.md")} <= set(pages)
    for name, page in pages.items():
        assert not re.search(r'(src|<link[^>]* href)="(https?:)?//', page), name
    text = re.sub(r"<(pre|code|script).*?</\1>", "", pages["metrics"], flags=re.DOTALL)
    assert "<math" in text and "$" not in text
