"""Train three steps with the method in geometric.py, which is in the same folder."""

import geometric
import numpy as np

import mmvm_jax
from mmvm_jax.objectives import METHODS

METHODS["geometric"] = geometric
config = mmvm_jax.default_config()
config.method.name = "geometric"
config.train.steps = 3

rng = np.random.default_rng(0)
cause = rng.normal(size=(200, 2))
data = {name: cause @ rng.normal(size=(2, size)) for name, size in {"position": 3, "spectrum": 12}.items()}
data["spectrum__present"] = rng.random(200) > 0.3

model = mmvm_jax.fit(data, config)
print("latents", model.encode(data)["joint__mean"].shape)
print("spectra filled in", model.impute(data)["spectrum"].shape)
