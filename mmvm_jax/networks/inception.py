"""Inception-v3 up to its last pooling, with weights from a file: the features of the Fréchet Inception distance.

This is the variant with which published distances are computed (Heusel et al. 2017, arXiv 1706.08500; Szegedy et al.
2015, arXiv 1512.00567): average pooling excludes padding, and the last block has a maximum instead of an average.
Modules and parameters have the same names as in pytorch-fid and torchvision. A name joined by dots is therefore the
name of a tensor of the file: ``Mixed_5b.branch1x1.conv.weight`` [out, in, height, width].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from safetensors import SafetensorError, safe_open

from mmvm_jax.errors import UserError
from mmvm_jax.types import Array

NUM_FEATURES = 2048
_SIDE = 299  # side of the images on which it was trained
_EPSILON = 1e-3
_REAL_TYPES = ("F16", "F32", "F64")
_FIELD = "config.evaluation.inception_weights"


class _Layer(nn.Module):
    """Convolution, normalisation by fixed statistics, and ReLU."""

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.features, x.shape[-1], *self.kernel)
        kernel = self.param("conv.weight", nn.initializers.he_normal(in_axis=(1, 2, 3), out_axis=0), shape)
        vector = lambda name, start: self.param(f"bn.{name}", start, (self.features,))
        scale, offset = vector("weight", nn.initializers.ones), vector("bias", nn.initializers.zeros)
        mean, variance = vector("running_mean", nn.initializers.zeros), vector("running_var", nn.initializers.ones)
        padding = [(side, side) for side in self.padding]
        x = lax.conv_general_dilated(x, kernel, (self.stride,) * 2, padding, dimension_numbers=("NHWC", "OIHW", "NHWC"))
        scale = scale * lax.rsqrt(variance + _EPSILON)
        return nn.relu(x * scale[None, None, None] + (offset - mean * scale)[None, None, None])


def _layer(name: str, features: int, height: int = 1, width: int = 1, stride: int = 1) -> _Layer:
    """Return a layer that keeps the size of the image if the stride is 1; otherwise it has no padding."""
    padding = (height // 2, width // 2) if stride == 1 else (0, 0)
    return _Layer(features, (height, width), stride, padding, name=name)


def _average(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def _maximum(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))


def _halved(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2))


class _Block35(nn.Module):
    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        wide = _layer("branch5x5_2", 64, 5, 5)(_layer("branch5x5_1", 48)(x))
        twice = _layer("branch3x3dbl_2", 96, 3, 3)(_layer("branch3x3dbl_1", 64)(x))
        twice = _layer("branch3x3dbl_3", 96, 3, 3)(twice)
        pooled = _layer("branch_pool", self.pooled)(_average(x))
        return jnp.concatenate([_layer("branch1x1", 64)(x), wide, twice, pooled], axis=-1)


class _To17(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        once = _layer("branch3x3", 384, 3, 3, stride=2)(x)
        twice = _layer("branch3x3dbl_2", 96, 3, 3)(_layer("branch3x3dbl_1", 64)(x))
        twice = _layer("branch3x3dbl_3", 96, 3, 3, stride=2)(twice)
        return jnp.concatenate([once, twice, _halved(x)], axis=-1)


class _Block17(nn.Module):
    inner: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        once = _layer("branch7x7_2", self.inner, 1, 7)(_layer("branch7x7_1", self.inner)(x))
        once = _layer("branch7x7_3", 192, 7, 1)(once)
        twice = _layer("branch7x7dbl_1", self.inner)(x)
        for number, sides in ((2, (7, 1)), (3, (1, 7)), (4, (7, 1))):
            twice = _layer(f"branch7x7dbl_{number}", self.inner, *sides)(twice)
        twice = _layer("branch7x7dbl_5", 192, 1, 7)(twice)
        pooled = _layer("branch_pool", 192)(_average(x))
        return jnp.concatenate([_layer("branch1x1", 192)(x), once, twice, pooled], axis=-1)


class _To8(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        once = _layer("branch3x3_2", 320, 3, 3, stride=2)(_layer("branch3x3_1", 192)(x))
        wide = _layer("branch7x7x3_2", 192, 1, 7)(_layer("branch7x7x3_1", 192)(x))
        wide = _layer("branch7x7x3_4", 192, 3, 3, stride=2)(_layer("branch7x7x3_3", 192, 7, 1)(wide))
        return jnp.concatenate([once, wide, _halved(x)], axis=-1)


class _Block8(nn.Module):
    last: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def both_ways(name: str, x: Array) -> list[Array]:
            return [_layer(f"{name}a", 384, 1, 3)(x), _layer(f"{name}b", 384, 3, 1)(x)]

        once = both_ways("branch3x3_2", _layer("branch3x3_1", 384)(x))
        twice = _layer("branch3x3dbl_2", 384, 3, 3)(_layer("branch3x3dbl_1", 448)(x))
        twice = both_ways("branch3x3dbl_3", twice)
        pooled = _layer("branch_pool", 192)(_maximum(x) if self.last else _average(x))
        return jnp.concatenate([_layer("branch1x1", 320)(x), *once, *twice, pooled], axis=-1)


class Inception(nn.Module):
    """Compute features of images: [N, 299, 299, 3] in -1 to 1 -> [N, 2048]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = _Layer(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        x = _Layer(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = _halved(_layer("Conv2d_2b_3x3", 64, 3, 3)(x))
        x = _layer("Conv2d_3b_1x1", 80)(x)
        x = _halved(_Layer(192, (3, 3), name="Conv2d_4a_3x3")(x))
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = _Block35(pooled, name=f"Mixed_5{letter}")(x)
        x = _To17(name="Mixed_6a")(x)
        for letter, inner in zip("bcde", (128, 160, 160, 192), strict=True):
            x = _Block17(inner, name=f"Mixed_6{letter}")(x)
        x = _To8(name="Mixed_7a")(x)
        x = _Block8(last=True, name="Mixed_7c")(_Block8(last=False, name="Mixed_7b")(x))
        return jnp.mean(x, axis=(1, 2))


def features(variables: dict, images: Array) -> Array:
    """Compute features of images of any size. Images are resized bilinearly; grey images get three equal channels.

    Args:
      variables: variables of ``Inception``.
      images: [N, H, W, 1 or 3], in 0 to 1.

    Returns:
      [N, 2048].
    """
    return Inception().apply(variables, _resized(images))


def _resized(images: Array) -> Array:
    """Resize images [N, H, W, 1 or 3] in 0 to 1 -> [N, 299, 299, 3] in -1 to 1, without antialiasing."""
    count, *_, channels = images.shape
    resized = jax.image.resize(images, (count, _SIDE, _SIDE, channels), "bilinear", antialias=False)
    return 2.0 * jnp.broadcast_to(resized, (count, _SIDE, _SIDE, 3)) - 1.0


def check_weights(path: str) -> None:
    """Check the header of a weights file.

    Raises:
      UserError: it is not a safetensors file, or a tensor is missing or has the wrong shape or type.
    """
    with _opened(path) as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, not a dictionary
        for name, shape in _shapes().items():
            if name not in found:
                raise UserError(f"{_FIELD} is {path!r}: it has no tensor '{name}'; allowed: pytorch-fid's Inception")
            given, kind = tuple(found[name].get_shape()), found[name].get_dtype()
            if given != shape or kind not in _REAL_TYPES:
                raise UserError(
                    f"{_FIELD} is {path!r}: tensor '{name}' is {kind} {list(given)}; "
                    f"allowed: {list(shape)} of {', '.join(_REAL_TYPES)}"
                )


def read_weights(path: str) -> dict:
    """Read the variables of ``Inception`` as float32; other tensors of the file are ignored.

    Raises:
      UserError: ``check_weights`` rejects the file.
    """
    check_weights(path)
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name).astype(np.float32) for name in _shapes()}
    return {"params": unflatten_dict({_path(name): tensor for name, tensor in tensors.items()})}


def _opened(path: str):
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{_FIELD} is {path!r}: {error}; allowed: a .safetensors file") from error


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor, by its name in the file."""
    image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)
    params = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    return {name: leaf.shape for name, leaf in flatten_dict(params, sep=".").items()}


def _path(name: str) -> tuple[str, ...]:
    """Split a name into modules and parameter; the name of a parameter contains a dot."""
    *modules, layer, leaf = name.split(".")
    return (*modules, f"{layer}.{leaf}")
