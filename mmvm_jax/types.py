"""The types that all other files share: batches, Gaussians, the output of a loss, and the glossary of axes.

Every docstring uses these letters for axes:

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
    """Posterior over the latents that the decoders read, given some modalities: a mixture of Gaussians per decoder.

    The second axis is the decoder that reads the latent: M if each decoder reads its own, 1 if all decoders read the
    same one. A component of weight zero has log-weight -inf and finite parameters.

    Components with the same source are the same latent: decoders that draw them read the same numbers. The sources
    also key the noise of a draw. Without sources, every component is a separate latent that all decoders may read.
    """

    components: DiagonalGaussian  # [K, M or 1, B, D]
    log_weights: Array  # [K, M or 1, B]
    sources: Array | None = None  # [K, M or 1, B] uint32


class Batch(NamedTuple):
    """Examples with several modalities, some of which may be absent."""

    inputs: Mapping[str, Array]  # {modality name: [B, ...]}; values of absent entries are ignored
    present: Array  # [M, B] bool, rows in the order of the data set's modalities
    # Shadows ``tuple.index``, which batches do not need.
    index: Array  # type: ignore[assignment]  # [B] int32, position of the example in its split; keys all noise
    labels: Array  # [B] int32 classes, or [B, C] binary; -1 where the data set has none


class LossOutput(NamedTuple):
    """A loss and its terms, per example. The training step takes the mean over examples."""

    loss: Array  # [B] nats
    terms: Mapping[str, Array]  # {name: [B]} nats


class Column(NamedTuple):
    """A column of a table."""

    likelihood: str  # "normal", "bernoulli", "poisson" or "categorical"
    levels: int = 1  # number of categories
    rate: float = 1.0  # for "poisson": the rate that corresponds to a decoder output of 0


@dataclasses.dataclass(frozen=True)
class Modality:
    """Description of one modality.

    Attributes:
      name: used in inputs, metrics and file names.
      shape: of one example, without the batch axis.
      kind: "image" (uint8 in 0..255, or float in 0..1), "vector", "counts", "binary", "tokens", or "table", whose
        columns have different likelihoods.
      likelihood: a key of ``mmvm_jax.models.likelihoods.LIKELIHOODS``.
      scale: of the Laplace, Normal or Student's t likelihood, in the units of the (scaled) data; where it is learned,
        its initial value. For counts, the rate that corresponds to a decoder output of 0.
      weight: factor of the log-likelihood in the loss.
      vocabulary_size: number of token ids, for tokens.
      padding: token id that fills a sequence after its end; the likelihood ignores it. -1 for none.
      end: token id that ends a sequence, the last one that the likelihood counts. It may equal ``padding``. -1 for
        none.
      rates: for counts, the rate per entry of a flattened example that corresponds to a decoder output
        of 0; empty if ``scale`` applies to all entries.
      without_channels: for an image, whether the user's arrays, and hence all outputs, lack the last axis of ``shape``.
      columns: of a table. Categories are numbers from 0.
      missing_entries: whether single entries of an example may be missing. They are NaN in the model's inputs.
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
    columns: tuple[Column, ...] = ()
    missing_entries: bool = False

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one example in the user's data."""
        return self.shape[:-1] if self.without_channels else self.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the decoder's output for one example.

        Tokens have logits over the vocabulary, [T, V]. Tables have one number per column, or one per category.
        """
        if self.columns:
            return (sum(column.levels for column in self.columns),)
        return (*self.shape, self.vocabulary_size) if self.kind == "tokens" else self.shape

    @property
    def real_entries(self) -> np.ndarray | slice:
        """Index of the entries along the last axis that are standardised: all, or the real columns of a table."""
        places = [place for place, column in enumerate(self.columns) if column.likelihood == "normal"]
        return np.array(places, int) if self.columns else slice(None)

    @property
    def identifier(self) -> int:
        """Number derived from the name alone. It keys the noise and the initial weights."""
        return zlib.crc32(self.name.encode())
