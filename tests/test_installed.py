"""What is installed without a clone: all rooms, the configurations, the commands, and that types may be read."""

import configparser
import importlib.metadata
import pathlib
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def installed():
    """The distribution in the environment, not what a build leaves in this folder."""
    folders = [sysconfig.get_path("purelib")]
    found = list(importlib.metadata.distributions(name="mmvm_jax", path=folders))
    if not found:
        pytest.skip("the package is not installed; README's command installs it")
    return found[0]


def test_every_room_is_a_package_that_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("mmvm_jax/**/__init__.py")}
    assert set(listed) == {folder.replace("/", ".") for folder in folders} | {
        "mmvm_jax.configs",
        "mmvm_jax.configs.studies",
    }


def test_configurations_and_the_type_marker_are_installed():
    files = {path.as_posix() for path in installed().files}
    expected = {f"mmvm_jax/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("configs/**/*.py")}
    assert expected | {"mmvm_jax/py.typed", "mmvm_jax/report/report.html.jinja"} <= files


def test_commands_are_installed():
    modules = {"mmvm-train": "main", "mmvm-sweep": "sweep", "mmvm-infer": "infer"}
    commands = {point.name: point.value for point in installed().entry_points}
    assert commands == {name: f"mmvm_jax.{module}:main" for name, module in modules.items()}
    assert all("def main() -> None:" in (ROOT / "mmvm_jax" / f"{module}.py").read_text() for module in modules.values())


def test_a_configuration_goes_by_its_name_in_any_folder(tmp_path):
    def error_of(*flags):
        command = [sys.executable, "-m", "mmvm_jax.main", *flags]
        environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr

    for flags in (["--config=polydigits:quicktest"], ["--config", "polydigits"]):
        assert "--config and --workdir are needed" in error_of(*flags)
    assert "the variant is 'quick'; allowed: quicktest" in error_of("--config=polydigits:quick")
    assert "--config is 'polydigit'; allowed: a file, or one of celeba, cub," in error_of("--config=polydigit")
