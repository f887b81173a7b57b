"""Export of a trained model to a folder for others: weights, the files needed to use them, and a model card."""

import os
import shutil

import mmvm_jax
from mmvm_jax.artifacts import run_folder, weights
from mmvm_jax.data.description import Description
from mmvm_jax.errors import UserError
from mmvm_jax.inference.predictor import read_trained
from mmvm_jax.inference.prior import PRIOR_FILE
from mmvm_jax.runtime import object_storage
from mmvm_jax.runtime.files import write_text

CARD_FILE = "README.md"
_CARD = """---
library_name: mmvm_jax
tags: [multimodal, variational-autoencoder, jax]
---

# {method} on {data}

A multimodal variational autoencoder, trained for {step} steps with mmvm_jax {version}: method `{method}`,
beta {beta:g}, seed {seed}, {latent_dim} latent dimensions.

| modality | kind | shape of an example | likelihood |
|---|---|---|---|
{modalities}

## Use

```python
import mmvm_jax

model = mmvm_jax.load("{folder}")  # this folder
model.encode(data), model.impute(data), model.generate(num_examples=10)
```

`data` is a dictionary with an array [N, ...] per modality; modalities may be missing from examples. The tensors of
`weights.safetensors` have the names of the model's variables. `config.json` is the configuration of the training, and
`data.json` describes the data.

## Measured on the test split

{metrics}

The model was not measured on other data. The terms of the training data apply. If you publish this folder, state its
licence here.
"""


def export(workdir: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Write the model of a run into a folder that ``mmvm_jax.load`` and ``mmvm_jax.infer --workdir`` can read.

    Args:
      workdir: of the run, local or in object storage.
      folder: to create, local or in object storage; may exist if it is empty.

    Raises:
      UserError: there is no trained model, or the folder cannot be used.
    """
    with object_storage.local_copy(workdir, "workdir") as run, object_storage.local_copy(folder, "folder") as target:
        _write(run, target, os.path.basename(os.path.abspath(folder)))


def _write(workdir: str, folder: str, name: str) -> None:
    config, description = run_folder.read_config(workdir), run_folder.read_description(workdir)
    trained, step = read_trained(config, description, workdir)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise UserError(f"{folder} is not empty; use another folder")
        config.data.update({"dir": "", "path": ""})  # private, and useless on other machines
        write_text(os.path.join(folder, run_folder.CONFIG_FILE), run_folder.config_text(config))
        for file in (run_folder.DATA_FILE, run_folder.ENVIRONMENT_FILE, PRIOR_FILE):
            if os.path.exists(os.path.join(workdir, file)):
                shutil.copyfile(os.path.join(workdir, file), os.path.join(folder, file))
        write_text(os.path.join(folder, CARD_FILE), _card(config, description, step, workdir, name))
        weights.write(folder, trained.params, step)  # last, so that a folder with weights is complete
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); use another folder") from error


def _card(config, description: Description, step: int, workdir: str, name: str) -> str:
    modalities = [f"| `{m.name}` | {m.kind} | {list(m.data_shape)} | {m.likelihood} |" for m in description.modalities]
    return _CARD.format(
        method=config.method.name,
        data=config.data.name,
        step=step,
        version=mmvm_jax.__version__,
        beta=config.method.beta,
        seed=config.seed,
        latent_dim=config.network.latent_dim,
        modalities="\n".join(modalities),
        folder=name,
        metrics=_metrics(workdir),
    )


def _metrics(workdir: str) -> str:
    """Return a table of the evaluation's mean metrics, if the run was evaluated."""
    if not os.path.exists(os.path.join(workdir, run_folder.EVALUATION_FILE)):
        return "Not evaluated."
    values = run_folder.read_evaluation(workdir)
    means = [f"| {name} | {value:.4g} |" for name, value in sorted(values.items()) if name.endswith("mean")]
    return "\n".join(["| metric | value |", "|---|---|", *means])
