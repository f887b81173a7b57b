"""A trained model that encodes, imputes and generates, block by block."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np

from mmvm_jax.artifacts import run_folder, weights
from mmvm_jax.data import builders
from mmvm_jax.data.description import Description
from mmvm_jax.data.inputs import Inputs, empty_batch
from mmvm_jax.errors import UserError
from mmvm_jax.inference.encode import encode
from mmvm_jax.inference.expected import as_data, expected_data
from mmvm_jax.inference.generate import generate
from mmvm_jax.inference.impute import impute
from mmvm_jax.inference.prior import PRIOR_FILE, read_prior
from mmvm_jax.models.model import make_model
from mmvm_jax.models.priors import GaussianMixturePrior, has_prior
from mmvm_jax.models.trained import Trained
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import compilation_cache, devices, self_check
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.training.state import init_state, restore
from mmvm_jax.types import Batch, Modality

Outputs = Iterator[dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A trained model with everything needed to use it.

    Attributes:
      trained: the model.
      description: of the data that it was trained on.
      prior: the fitted prior, if the method has none of its own.
      batch_size: largest number of examples processed at a time.
    """

    trained: Trained
    description: Description
    prior: GaussianMixturePrior | None
    batch_size: int

    def __reduce__(self):
        """Pickle the fields without the compiled programs."""
        return Predictor, (self.trained, self.description, self.prior, self.batch_size)

    @functools.cached_property
    def _programs(self) -> dict:
        functions = {
            "encode": encode,
            "impute": functools.partial(impute, False),
            "impute, with samples": functools.partial(impute, True),
            "generate": functools.partial(generate, self.prior),
        }
        on_devices = lambda function: devices.data_parallel(functools.partial(function, self.trained), reduced=False)
        return {name: on_devices(function) for name, function in functions.items()}

    def _run(self, name: str, batch: Batch, count: int, *rest) -> dict:
        """Return the outputs of a program for the first ``count`` examples of a batch."""
        outputs = self._programs[name](self.trained.params, batch, *rest)
        return jax.tree.map(lambda leaf: leaf[:count], outputs)

    def _size(self, length: int) -> int:
        """Return a batch size for ``length`` examples. There are few different ones, since each is compiled."""
        return devices.largest_batch_size(self.batch_size, 1 << (length - 1).bit_length())

    def encode(self, inputs: Inputs) -> Outputs:
        """Return the latents of the inputs in float32; NaN where the modality is absent.

        Yields:
          ``<name>__mean`` and ``<name>__log_variance`` [n, D]: of the latent given this modality alone.
          ``joint__mean`` [n, D]: of the latent given all observed modalities. If each decoder has its own latent, this
          is the mean over the decoders. ``joint__log_variance`` [n, D]: only if this latent is one Gaussian for all
          decoders.
        """
        size = self._size(inputs.length)
        for block in _with_progress(inputs.blocks(size), size, inputs.length, "encode"):
            outputs, present = self._run("encode", block.batch, block.count), block.present
            there = dict(zip(self.trained.model.names, present, strict=True)) | {"joint": present.any(axis=0)}
            yield {
                f"{name}__{quantity}": np.where(there[name][:, None], values, np.float32(np.nan))
                for name, gaussian in outputs.items()
                for quantity, values in gaussian.items()
            }

    def impute(self, inputs: Inputs, num_samples: int, keep_samples: bool, seed: int) -> Outputs:
        """Impute missing values, in original units, from draws of the latent given the observed modalities.

        Each draw is the expected data given a latent. The standard deviation reflects the uncertainty of the latent
        and, unless the scale of the likelihood is fixed by hand as for pixels, the noise of the data.

        Yields:
          ``<name>`` [n, ...]: in the input's type, or for tokens a type that holds all ids. Observed values are
          unchanged; missing ones are the mean of the draws, rounded for integers, or the most probable tokens.
          ``<name>__std`` [n, ...] float32: the standard deviation, 0 for observed values; NaN for categories, and not
          for tokens. With ``keep_samples`` also ``<name>__samples`` [n, S, ...]: every draw, also for observed values.
        """
        inputs.check_not_empty()
        size, keys = self._size(inputs.length), jax.random.split(jax.random.key(seed), num_samples)
        program = "impute, with samples" if keep_samples else "impute"
        for block in _with_progress(inputs.blocks(size), size, inputs.length, "impute"):
            outputs = self._run(program, block.batch, block.count, keys)
            arrays = {}
            for modality, present in zip(self.trained.model.modalities, block.present, strict=True):
                array = block.arrays.get(modality.name)
                if array is None:
                    dtype = self.description.generated_type(modality)
                    array = np.zeros((block.count, *modality.data_shape), dtype)
                arrays |= self._impute_one(modality, array, present, outputs[modality.name])
            yield arrays

    def _impute_one(self, modality: Modality, array: np.ndarray, present: np.ndarray, drawn: dict) -> dict:
        """Return the outputs of ``impute`` for one modality."""
        offset, scale = self.description.unit(modality, array.dtype)
        mask = present.reshape(-1, *(1,) * (array.ndim - 1))
        if modality.missing_entries and array.dtype.kind == "f":
            mask = mask & ~np.isnan(array)
        shaped = lambda values: values.reshape(array.shape)
        mean = shaped(drawn["mean"] * scale + offset)
        _check_finite(modality, mean, given=True)
        outputs = {modality.name: np.where(mask, array, as_type(mean, _wide_enough(array.dtype, modality)))}
        if "std" in drawn:
            outputs[f"{modality.name}__std"] = np.where(mask, 0, shaped(drawn["std"] * scale)).astype(np.float32)
        if "samples" in drawn:
            samples = drawn["samples"] * scale + offset
            samples = samples.reshape(*samples.shape[:2], *array.shape[1:])
            dtype = drawn["samples"].dtype  # ids, or float32, which may be too coarse for original units
            in_units = modality.name in self.description.units
            outputs[f"{modality.name}__samples"] = samples.astype(np.result_type(dtype, array) if in_units else dtype)
        return outputs

    def generate(self, num_examples: int, seed: int) -> Outputs:
        """Generate examples of all modalities, each from one draw of the prior.

        Yields:
          ``<name>`` [n, ...]: the expected data given the draw, in original units.

        Raises:
          UserError: the method has no prior of its own, and none was fitted.
        """
        if self.prior is None and not has_prior(self.trained):
            raise UserError(
                f"method '{self.trained.method.name}' has no prior of its own and the workdir has no {PRIOR_FILE} for "
                "this checkpoint and version; to fit one, run mmvm_jax.main --mode=evaluate, or mmvm_jax.fit with the "
                "same data, in the workdir of the run (then export it again, if this is an exported model)"
            )
        size, num_modalities = self._size(num_examples), len(self.trained.model.names)
        batches = (empty_batch(num_modalities, size, start) for start in range(0, num_examples, size))
        for batch in _with_progress(batches, size, num_examples, "generate"):
            count = min(size, num_examples - int(batch.index[0]))
            yield self._generated(self._run("generate", batch, count, jax.random.key(seed)), given=False)

    def generate_given(self, inputs: Inputs, seed: int) -> Outputs:
        """Generate all modalities of each input example, from one draw of the latent given the observed modalities."""
        inputs.check_not_empty()
        size, key = self._size(inputs.length), jax.random.key(seed)
        for block in _with_progress(inputs.blocks(size), size, inputs.length, "generate"):
            yield self._generated(self._run("impute", block.batch, block.count, key[None]), given=True)

    def decode(self, latents: np.ndarray) -> dict[str, np.ndarray]:
        """Return the expected data given latents [N, D], which all decoders read, in original units."""
        size, model, blocks = self._size(len(latents)), self.trained.model, []
        for start in range(0, len(latents), size):
            block = latents[start : start + size]
            padded = np.pad(block, ((0, size - len(block)), (0, 0)))
            outputs = self._decode(self.trained.params, np.broadcast_to(padded, (len(model.names), *padded.shape)))
            blocks.append({name: {"mean": np.asarray(values)[: len(block)]} for name, values in outputs.items()})
        whole = {name: {"mean": np.concatenate([block[name]["mean"] for block in blocks])} for name in model.names}
        return self._generated(whole, given=True)

    @functools.cached_property
    def _decode(self):
        def decode(params, z):
            functions = self.trained.model.bind(params)
            return as_data(functions, expected_data(functions, z))

        return jax.jit(decode)

    def _generated(self, outputs: dict, given: bool) -> dict[str, np.ndarray]:
        arrays = {}
        for modality in self.trained.model.modalities:
            dtype = self.description.generated_type(modality)
            offset, scale = self.description.unit(modality, dtype)
            values = outputs[modality.name]["mean"].reshape(-1, *modality.data_shape) * scale + offset
            _check_finite(modality, values, given)
            arrays[modality.name] = as_type(values, dtype)
        return arrays


def load_predictor(workdir: str) -> Predictor:
    """Load the model of a run from its workdir, or from an exported folder.

    Raises:
      UserError: the folder has no run or no checkpoint, or JAX computes wrong values on this machine.
    """
    config, description = run_folder.read_config(workdir), run_folder.read_description(workdir)
    # Not in config.data.dir, which may belong to another machine, or be relative to another folder.
    compilation_cache.enable(builders.data_directory(""))
    self_check.check()
    trained, step = read_trained(config, description, workdir)
    prior = read_prior(workdir, step, config.evaluation.mixture_components)
    return Predictor(trained, description, prior, config.evaluation.batch_size)


def read_trained(config, description: Description, workdir: str) -> tuple[Trained, int]:
    """Return the model of a workdir or an exported folder, and its number of training steps.

    Raises:
      UserError: there is neither a checkpoint nor a weights file, or it cannot be used.
    """
    model, method = make_model(description.modalities, config.network, config.precision), make_method(config.method)
    batch = description.blank_batch()
    if weights.are_in(workdir):
        like = jax.eval_shape(lambda: init_state(config, model, method, batch))
        variables, step = weights.read(workdir, like.variables)
        return Trained(model, method, variables), step
    restored = restore(config, model, method, batch, workdir)
    return Trained(model, method, restored.state.variables), restored.step


def _check_finite(modality: Modality, values: np.ndarray, given: bool) -> None:
    """Raise UserError if outputs are not finite, as for inputs that are far from all training data."""
    if np.isfinite(values).all():
        return
    remedy = (
        "do the inputs use a code such as -999 for missing values? allowed: 0 in <name>__present for such examples, "
        "or NaN in all their entries"
        if given
        else "train another one, with a smaller config.optimizer.learning_rate"
    )
    raise UserError(f"the model's output for modality '{modality.name}' is not finite; {remedy}", exit_code=1)


def _wide_enough(dtype: np.dtype, modality: Modality) -> np.dtype:
    """Return the type of an array; for tokens, the smallest type of its kind that also holds all ids."""
    if modality.kind != "tokens":
        return dtype
    return np.promote_types(dtype, np.min_scalar_type(modality.vocabulary_size - 1))


def as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert real numbers to another type; for integers, to the nearest value of that type."""
    if dtype.kind == "f":
        return values.astype(dtype)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    high = high if high < 2**53 else np.nextafter(float(high), 0)  # as a real number, 2**63 - 1 is 2**63
    return np.clip(np.rint(values.astype(np.float64)), low, high).astype(dtype)


def _with_progress(items: Iterator, size: int, length: int, task: str) -> Iterator:
    """Yield the items, each of ``size`` examples, and show the progress of the work on them."""
    with Progress(length, "examples", task) as progress:
        for done, item in zip(range(0, length, size), items, strict=True):
            yield item
            progress.update(min(size, length - done))


def joined(blocks: Outputs) -> dict[str, np.ndarray]:
    """Concatenate the outputs of all blocks."""
    blocks = list(blocks)
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
