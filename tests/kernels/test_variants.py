"""A kernel gives the same values compiled, on arrays of NumPy, and on every device under ``pmap``."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized
from test_masked_kernels import KERNELS, PRESENT

from mmvm_jax.types import DiagonalGaussian

EXPERTS = DiagonalGaussian(*np.random.default_rng(43).normal(size=(2, 3, 4, 2)).astype(np.float32))


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_device=True, with_pmap=True)
    @parameterized.named_parameters((name, KERNELS[name]) for name in KERNELS)
    def test_kernel(self, kernel):
        expected = kernel(jax.tree.map(jnp.asarray, EXPERTS), jnp.asarray(PRESENT))
        chex.assert_trees_all_close(self.variant(kernel)(EXPERTS, PRESENT), expected, rtol=1e-5, atol=1e-6)
