"""The base configuration: every field with its default. Files in ``configs/`` state what differs from it."""

import importlib
import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from mmvm_jax.errors import UserError

# Fields of config.data that only some data sets read, and those of config.network that by_kind reads too.
READ_BY_DATA_SETS = {
    "variant": ("polydigits",),
    "num_modalities": ("polydigits", "polymnist", "polymnist_translated"),
    "pairings": ("mnist_svhn",),
    "policy": ("cub", "mimic_cxr"),
    "path": ("own_data",),
    "kinds": ("own_data",),
    "likelihoods": ("own_data",),
    "weights": ("own_data",),
    "missing_entries": ("own_data",),
}
READ_BY_KIND = ("mlp", "small_cnn")


class _Section(ConfigDict):
    """Fields that accept paths as ``pathlib.Path`` and store them as text."""

    def __setitem__(self, key, value):
        super().__setitem__(key, os.fspath(value) if isinstance(value, os.PathLike) else value)


# The schedule of a hyper-parameter: from ``start`` to its value, over the first ``fraction`` of training.
# Or over ``steps``, if that is not 0. It repeats ``cycles`` times during training.
_ANNEALING = {"shape": "constant", "start": 1.0, "fraction": 0.3, "steps": 0, "cycles": 1}


def base(imports: Sequence[str] = ()) -> ConfigDict:
    """Return the defaults of every field.

    Args:
      imports: names of modules that add methods, networks or metrics of your own to the tables of the package.
        Evaluation, inference and ``load`` import them, too.

    Raises:
      UserError: a module cannot be imported.
    """
    import_modules(imports)
    config = ConfigDict()
    config.imports = tuple(imports)
    config.seed = 0
    config.precision = "float32"  # of the networks: or "bfloat16"; all else is float32
    config.tracker = "none"  # of metrics, beside metrics.jsonl and TensorBoard: or "wandb", "mlflow"
    config.modalities = ()  # names; empty for all that the data set has
    config.data = _Section(
        {
            "name": "polydigits",
            "dir": "",  # folder of prepared data; empty for the user's cache folder
            "memory_gb": 8.0,  # inputs of a split that need more are streamed from disk
            "variant": "plain",  # or "translated"
            "num_modalities": 3,
            "pairings": 1,  # how many times the images of a class are paired
            "policy": "",  # cub: "official", "class_disjoint"; mimic_cxr: "paired", "all"; empty for the first
            "path": "",  # a file or folder, see data/sources.py
            "kinds": "",  # to replace those inferred: "name=kind,name=kind"
            "likelihoods": "",  # likewise: "name=likelihood,..."
            "weights": "",  # of log-likelihoods in the loss: "name=weight,..."; 0.25 for counts, 1 for other kinds
            "missing_entries": False,  # whether encoders read masks of entries even if no training entry is missing
            "validation": 0.0,  # share of the training examples to evaluate on instead of the test split
            "missing": {"pattern": "random", "rate": 0.0, "modality": "", "split": "train", "seed": 0},
        }
    )
    config.method = _method()
    config.network = ConfigDict(
        {
            "name": "small_cnn",
            "latent_dim": 64,
            "mlp": {"hidden_dims": (400, 400)},
            "small_cnn": {"channels": (32, 64, 128)},
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam",  # or "amsgrad", "adamw", "sgd"
            "learning_rate": 1e-3,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "momentum": 0.9,  # of sgd
            "weight_decay": 0.0,  # of adamw
            "clip_norm": 0.0,  # largest global norm of a gradient; 0 for no limit
            "schedule": {
                "name": "constant",  # of the learning rate: or "cosine", "exponential", "plateau"
                "warmup": 0.0,  # share of the training in which it rises from 0
                "end": 0.01,  # of cosine and exponential: the share of the learning rate that is left at the end
                "factor": 0.5,  # of plateau: it multiplies the learning rate after
                "patience": 10,  # means without improvement of the loss, each over
                "every": 100,  # steps
            },
        }
    )
    config.train = _Section(
        {
            "batch_size": 128,  # over all devices
            "hide_entries": 0.3,  # mean share of entries hidden from encoders, of modalities with missing entries only
            "accumulate": 1,  # pieces of a batch that a device computes one after the other to save memory
            "epochs": 25.0,  # used if steps is 0
            "steps": 0,
            "start_from": "",  # workdir of another run with the same networks, whose parameters training starts from
            "checkpoint_every": 500,  # steps
            "log_every": 50,  # steps
            # Training stops after ``patience`` checkpoints (0: never) without improvement of the metric on a share of
            # the training examples. Evaluation and inference use the best checkpoint.
            "early_stopping": {"patience": 0, "share": 0.1, "metric": "loss"},
            "average": 0.0,  # decay of a moving average of the parameters, for evaluation and inference; 0 for none
            "skip_not_finite": 0,  # total number of steps that may be skipped because their gradient is not finite
        }
    )
    config.evaluation = _Section(
        {
            "batch_size": 500,
            "probe_examples": 10_000,  # training examples of the latent probe
            "classifier_epochs": 10,
            "random_forest": False,  # in addition to the latent probe
            "divergence_samples": 100,
            "likelihood_samples": 0,  # of the importance-weighted bound; 0 for none, papers use 1,000
            "inception_weights": "",  # a .safetensors file; empty: Fréchet distances by the classifiers' features
            "mixture_components": 50,  # at most, of the prior fitted for methods without one
            "figure_examples": 10,
            "embedding_examples": 1_000,
        }
    )
    # Of mmvm_jax.sweep, whose flags override it. No methods means all.
    config.sweep = ConfigDict({"methods": (), "betas": (0.25, 1.0, 2.5), "seeds": (0,)})
    return config


def _method() -> ConfigDict:
    """Return the name of the method, beta, and one section per method; only that of the chosen method is read."""
    from mmvm_jax.objectives.method import default_fields  # imported late, since it imports JAX

    annealing = {"anneal_beta": _ANNEALING | {"start": 0.0}}
    return ConfigDict({"name": "mmvm", "beta": 1.0} | annealing | default_fields(_ANNEALING))


def evaluated_split(config) -> str:
    """Return the name of the examples that a run is evaluated on."""
    return "validation" if config.data.validation else "test"


def import_modules(names: Sequence[str]) -> None:
    """Import the modules of ``config.imports``.

    Raises:
      UserError: one cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"config.imports names {name!r}, which cannot be imported ({error}); allowed: modules in the current "
                "folder of python -m, or in a folder of PYTHONPATH"
            ) from error


def own_data(imports: Sequence[str] = ()) -> ConfigDict:
    """Return the defaults for a user's own data; ``imports`` as in ``base``.

    Images have a small convolutional network, all other kinds fully connected ones. Alpha ends above 0, so that an
    example with a single modality has a prior, too.
    """
    config = base(imports)
    config.data.name = "own_data"
    config.method.beta = 0.25
    config.method.mmvm.update({"alpha": 0.1, "posterior": "product"})
    config.method.mmvae_plus.private_dim = 16
    config.method.mmvm.anneal_alpha.shape = "linear"
    config.network.update({"name": "by_kind", "latent_dim": 32})
    config.train.update({"batch_size": 64, "epochs": 100.0, "average": 0.999})
    return config


def quick(config: ConfigDict) -> ConfigDict:
    """Return the variant ``:quicktest``, which runs everything from data to report in about a minute on two cores."""
    batch_size = min(config.train.batch_size, 16)
    config.train.update({"steps": 2, "batch_size": batch_size, "log_every": 1})
    config.evaluation.update(
        {
            "probe_examples": 500,
            "classifier_epochs": 1,
            "divergence_samples": 5,
            "figure_examples": 5,
            "embedding_examples": 100,
        }
    )
    return config


def variant(config: ConfigDict, name: str) -> ConfigDict:
    """Return the variant of a configuration that ``--config=file.py:name`` asks for: "" or "quicktest"."""
    if name not in ("", "quicktest"):
        raise UserError(f"the variant is {name!r}; allowed: quicktest")
    return quick(config) if name else config
