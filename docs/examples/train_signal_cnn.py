"""Train three steps with the networks in signal_cnn.py, which is in the same folder."""

import numpy as np
import signal_cnn

import mmvm_jax
from mmvm_jax.networks import NETWORKS

NETWORKS["signal_cnn"] = signal_cnn
config = mmvm_jax.default_config()
config.network.name = "signal_cnn"
config.network.signal_cnn = {"features": (16, 32)}
config.train.steps = 3

rng = np.random.default_rng(0)
phase, time = rng.uniform(0, 6, (200, 1)), np.arange(50)
data = {
    "voice": np.sin(time / 5 + phase),  # [200, 50]
    "motion": np.stack([np.cos(time / 9 + phase), np.sin(time / 9 + phase)], axis=-1),  # [200, 50, 2]
}
model = mmvm_jax.fit(data, config)
print("latents", model.encode(data)["joint__mean"].shape)
print("motion from voice", model.generate(given={"voice": data["voice"]})["motion"].shape)
