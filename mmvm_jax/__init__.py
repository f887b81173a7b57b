"""Multimodal variational autoencoders in JAX and Flax.

model = mmvm_jax.fit(data)         # {name: [N, ...]}, see mmvm_jax.api
model = mmvm_jax.load(workdir)     # an earlier run, or a folder written by mmvm_jax.export(workdir, folder)
model.encode(data), model.impute(data), model.generate(num_examples=10)
mmvm_jax.MultimodalVAE().fit_transform(table)  # a scikit-learn estimator, see mmvm_jax.estimator
"""

import importlib

__version__ = "0.1.0"

_PLACES = dict.fromkeys(("default_config", "export", "fit", "load"), "api") | {"MultimodalVAE": "estimator"}


def __getattr__(name: str):
    # Imported on first use: kernels and invalid flags should not wait for the training code.
    if name in _PLACES:
        return getattr(importlib.import_module(f"mmvm_jax.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
