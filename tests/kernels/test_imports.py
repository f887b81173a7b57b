"""What the kernels need."""

import subprocess
import sys

HIDE_ALL_BUT_JAX = """
import importlib.metadata, sys

kept = {"mmvm_jax", "jax", "jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy"}
hidden = importlib.metadata.packages_distributions().keys() - kept

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in hidden:
            raise ModuleNotFoundError(f"{name} is hidden")

sys.meta_path.insert(0, Hidden())
"""


def test_kernels_and_objectives_need_jax_alone():
    code = HIDE_ALL_BUT_JAX + "import mmvm_jax.aggregation, mmvm_jax.distributions, mmvm_jax.objectives"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    code = HIDE_ALL_BUT_JAX + "import mmvm_jax.api"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "is hidden" in result.stderr
