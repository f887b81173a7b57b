"""The page on own data: its code runs as it stands, with fewer steps."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUICK = [  # all other numbers of the page are used as they are
    "--config.train.steps=300",
    "--config.evaluation.classifier_epochs=1",
    "--config.evaluation.divergence_samples=5",
    "--config.evaluation.likelihood_samples=5",
    "--config.evaluation.figure_examples=2",
    "--config.evaluation.embedding_examples=50",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """(folder, what each code block printed), the blocks run in their order."""
    folder = tmp_path_factory.mktemp("walkthrough")
    os.symlink(ROOT / "configs", folder / "configs")
    page = (ROOT / "docs" / "own_data.md").read_text()
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return folder, [_run(folder, language, code) for language, code in blocks if language in ("python", "")]


def _run(folder, language: str, code: str) -> str:
    if language == "python":
        assert code.count("steps = 1000") == ("mmvm_jax.fit" in code)
        commands = [[sys.executable, "-c", code.replace("steps = 1000", "steps = 100")]]
    else:
        commands = [[sys.executable, *line.split()[1:]] for line in code.splitlines()]
    printed = ""
    for command in commands:
        quick = [*QUICK, f"--config.data.dir={folder}"] if "mmvm_jax.main" in command else []
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
        result = subprocess.run(
            [*command, *quick], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        printed += result.stdout
    return printed


def test_what_is_filled_in_is_closer_than_the_mean(outputs):
    printed = "".join(outputs[1])
    found = re.findall(r"(\w+): imputed (\S+), mean of the training digits (\S+)", printed)
    assert [name for name, _, _ in found] == ["left", "right", "fourier"]
    for name, imputed, mean in found:
        assert float(imputed) < 0.85 * float(mean), name


def test_the_representations_tell_digits_apart(outputs):
    folder, _ = outputs
    values = json.loads((folder / "runs" / "mine" / "evaluation.json").read_text())
    assert values["probe/accuracy/mean"] > 0.6  # of ten classes
    assert (folder / "runs" / "mine" / "report.html").exists()
    assert {path.name for path in folder.glob("*.npz")} == {
        "my.npz",
        "truth.npz",
        "filled.npz",
        "encoded.npz",
        "made.npz",
    }
