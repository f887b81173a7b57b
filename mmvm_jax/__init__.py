"""Multimodal variational autoencoders in JAX and Flax.

model = mmvm_jax.fit(data)         # {name: [N, ...]}, see mmvm_jax.api
model = mmvm_jax.load(workdir)     # an earlier run, or a folder written by mmvm_jax.export(workdir, folder)
model.encode(data), model.impute(data), model.generate(num_examples=10)
"""

import importlib

__version__ = "0.1.0"

_OF_API = ("default_config", "export", "fit", "load")


def __getattr__(name: str):
    # Imported on first use: kernels and invalid flags should not wait for the training code.
    if name in _OF_API:
        return getattr(importlib.import_module("mmvm_jax.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
