"""The words every other file uses: axes, batches, Gaussians and what a loss returns.

One glossary of axes serves every docstring:

    M  modalities            B  examples in a batch      D  latent dimensions
    S  samples               K  mixture components       C  classes

A posterior over all modalities is ``DiagonalGaussian(mean [M, B, D], log_variance [M, B, D])``, a mask
is ``present [M, B]`` and a log-likelihood is ``[M, B]``. Divergences, likelihoods and losses are in nats.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray  # one stands for the other


class DiagonalGaussian(NamedTuple):
    """A Gaussian with a diagonal covariance, parametrised by its log-variance."""

    mean: Array  # [..., D]
    log_variance: Array  # [..., D]


class LatentMixture(NamedTuple):
    """What a method believes about the latent that each decoder reads, given some modalities.

    The second axis is the decoder that reads the latent: M where every modality has its own, 1 where all
    decoders read the same one. A component of weight zero has log-weight -inf and finite parameters.

    Components with the same source are one latent: decoders that draw them read the same numbers. The sources also
    key the noise of a draw. Without sources, every component is a latent of its own that all decoders may read.
    """

    components: DiagonalGaussian  # [K, M or 1, B, D]
    log_weights: Array  # [K, M or 1, B]
    sources: Array | None = None  # [K, M or 1, B] uint32


class Batch(NamedTuple):
    """Examples seen through several modalities, some of which may be absent."""

    inputs: Mapping[str, Array]  # {modality name: [B, ...]}; what an absent entry holds is never read
    present: Array  # [M, B] bool, rows in the order of the data set's modalities
    # Hides the method of tuples, for which batches have no use.
    index: Array  # type: ignore[assignment]  # [B] int32, position of the example in its split; keys all noise
    labels: Array  # [B] int32 classes, or [B, C] binary; -1 where the data set has none


class LossOutput(NamedTuple):
    """A loss and its parts, per example; the mean over examples is taken once, by the training step."""

    loss: Array  # [B] nats
    terms: Mapping[str, Array]  # {name: [B]} nats


@dataclasses.dataclass(frozen=True)
class Modality:
    """What the model must know of one modality.

    Attributes:
      name: how inputs, metrics and files call it.
      shape: of one example, without the batch axis.
      kind: "image" (uint8 in 0..255, or float in 0..1), "vector", "counts" or "tokens".
      likelihood: a key of ``mmvm_jax.models.likelihoods.LIKELIHOODS``.
      scale: of the Laplace or Normal likelihood, in the units of the (scaled) data; of a Poisson likelihood, the rate
        that an output of 0 stands for.
      weight: factor of the log-likelihood in the loss.
      vocabulary_size: number of token ids, for tokens.
      padding: token id after the end of a sequence, which the likelihood leaves out; -1 for none.
      end: token id that ends a sequence, the last that the likelihood counts, which may be the padding; -1 for none.
      rates: of a Poisson likelihood: the rate of every entry of an example, flattened, that an output of 0 stands for;
        empty where that is ``scale`` for all.
      without_channels: of an image: its data lack the last axis of ``shape``, as what is made of it will.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    likelihood: str
    scale: float = 1.0
    weight: float = 1.0
    vocabulary_size: int = 0
    padding: int = -1
    end: int = -1
    without_channels: bool = False
    rates: tuple[float, ...] = ()

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape of one example in the data that the user gave."""
        return self.shape[:-1] if self.without_channels else self.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of what the decoder gives for one example: tokens have logits over the vocabulary."""
        return (*self.shape, self.vocabulary_size) if self.kind == "tokens" else self.shape

    @property
    def identifier(self) -> int:
        """A number that depends on the name alone: keys the noise and the initial weights."""
        return zlib.crc32(self.name.encode())
