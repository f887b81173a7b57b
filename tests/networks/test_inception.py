"""Inception: its size as published, its layers against sums written out, and weights files that cannot be used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import save_file

from mmvm_jax.config import base
from mmvm_jax.errors import UserError
from mmvm_jax.experiments.config_checks import validate
from mmvm_jax.networks import inception

# torchvision's inception_v3 has 27,161,264 parameters, of which 3,326,696 belong to the auxiliary classifier
# and 2,049,000 to the last layer.
PUBLISHED = 27_161_264 - 3_326_696 - 2_049_000
STATISTICS = 2 * 17_216  # means and variances, which torch does not count


@pytest.fixture(scope="module")
def tensors():
    """Random ones of the right names and shapes, all variances positive."""
    generator = np.random.default_rng(0)
    kinds = {"conv.weight": 0.05, "bn.weight": 1.0, "bn.bias": 0.2, "bn.running_mean": 0.2, "bn.running_var": 1.0}

    def draw(name, shape):
        scale = next(scale for kind, scale in kinds.items() if name.endswith(kind))
        values = scale * generator.normal(size=shape)
        return (np.abs(values) + 0.1 if name.endswith("running_var") else values).astype(np.float32)

    return {name: draw(name, shape) for name, shape in inception._shapes().items()}


@pytest.fixture(scope="module")
def weights(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    save_file(tensors | {"fc.weight": np.zeros((1008, 2048), np.float32)}, path)
    return str(path)


def test_it_has_as_many_parameters_as_the_published_one(tensors):
    assert sum(tensor.size for tensor in tensors.values()) == PUBLISHED + STATISTICS
    assert len(tensors) == 94 * 5


def test_a_file_becomes_the_variables_of_the_network(tensors, weights):
    variables = inception.read_weights(weights)
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    expected = jax.eval_shape(inception.Inception().init, jax.random.key(0), image)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    for name, tensor in flatten_dict(variables["params"], sep=".").items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_features_of_grey_images_are_those_of_equal_channels(weights):
    variables, images = inception.read_weights(weights), np.random.default_rng(1).random((2, 28, 20, 1), np.float32)
    features = np.asarray(jax.jit(inception.features)(variables, np.concatenate([images, images]).repeat(3, axis=-1)))
    assert features.shape == (4, inception.NUM_FEATURES) and features.std() > 0
    np.testing.assert_array_equal(features[:2], features[2:])
    assert np.abs(features[0] - features[1]).max() > 1e-3
    np.testing.assert_allclose(inception._resized(images), inception._resized(images.repeat(3, axis=-1)), atol=1e-6)


@pytest.mark.parametrize("side", [28, 600])
def test_images_are_resized_linearly_between_the_centres_of_pixels(side):
    """Also where they get smaller: without the filter that others apply before."""
    row = np.random.default_rng(2).random(side).astype(np.float32)
    centres = (np.arange(299) + 0.5) * side / 299 - 0.5
    expected = 2.0 * np.interp(centres, np.arange(side), row) - 1.0
    actual = inception._resized(jnp.asarray(np.tile(row[None, :, None, None], (1, 1, 4, 3))))
    np.testing.assert_allclose(actual[0, :, 7, 2], expected, atol=2e-4)  # positions in float32


def layer(x, tensors, name, padding=(0, 0), stride=1):
    """One layer as a sum over windows, in float64."""
    of = {part: tensors[f"{name}.{part}"].astype(np.float64) for part in ("conv.weight", "bn.weight", "bn.bias")}
    mean, variance = (tensors[f"{name}.bn.running_{part}"].astype(np.float64) for part in ("mean", "var"))
    x = np.pad(x.astype(np.float64), ((0, 0), *((side, side) for side in padding), (0, 0)))
    windows = sliding_window_view(x, of["conv.weight"].shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    y = np.einsum("nhwcij,ocij->nhwo", windows, of["conv.weight"])
    return np.maximum((y - mean) / np.sqrt(variance + 1e-3) * of["bn.weight"] + of["bn.bias"], 0.0)


def pooled(x, function):
    """Of the three by three neighbours that there are."""
    x = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    return function(sliding_window_view(x, (3, 3), axis=(1, 2)), axis=(-2, -1))


def apply(module, tensors, x, prefix):
    own = {name.removeprefix(prefix + "."): t for name, t in tensors.items() if name.startswith(prefix + ".")}
    params = {}
    for name, tensor in own.items():
        *modules, part, leaf = name.split(".")
        node = params
        for one in modules:
            node = node.setdefault(one, {})
        node[f"{part}.{leaf}"] = tensor
    return jax.jit(module.apply)({"params": params}, x)


def test_the_first_layer_moves_by_two_pixels(tensors):
    x = np.random.default_rng(3).normal(size=(2, 9, 8, 3)).astype(np.float32)
    actual = apply(inception._Layer(32, (3, 3), 2), tensors, x, "Conv2d_1a_3x3")
    np.testing.assert_allclose(actual, layer(x, tensors, "Conv2d_1a_3x3", stride=2), rtol=1e-4, atol=1e-4)


def test_the_block_of_35_pixels(tensors):
    x, name = np.random.default_rng(4).normal(size=(1, 5, 6, 192)).astype(np.float32), "Mixed_5b"
    run = lambda x, branch, *padding: layer(x, tensors, f"{name}.{branch}", padding or (0, 0))
    twice = run(run(run(x, "branch3x3dbl_1"), "branch3x3dbl_2", 1, 1), "branch3x3dbl_3", 1, 1)
    wide, average = run(run(x, "branch5x5_1"), "branch5x5_2", 2, 2), run(pooled(x, np.nanmean), "branch_pool")
    expected = np.concatenate([run(x, "branch1x1"), wide, twice, average], axis=-1)
    np.testing.assert_allclose(apply(inception._Block35(32), tensors, x, name), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "pooling"), [("Mixed_7b", np.nanmean), ("Mixed_7c", np.nanmax)])
def test_the_blocks_of_8_pixels(name, pooling, tensors):
    width = tensors[f"{name}.branch1x1.conv.weight"].shape[1]
    x = np.random.default_rng(5).normal(size=(1, 3, 4, width)).astype(np.float32)
    run = lambda x, branch, *padding: layer(x, tensors, f"{name}.{branch}", padding or (0, 0))
    both = lambda x, branch: [run(x, f"{branch}a", 0, 1), run(x, f"{branch}b", 1, 0)]
    once = both(run(x, "branch3x3_1"), "branch3x3_2")
    twice = both(run(run(x, "branch3x3dbl_1"), "branch3x3dbl_2", 1, 1), "branch3x3dbl_3")
    last = run(pooled(x, pooling), "branch_pool")
    expected = np.concatenate([run(x, "branch1x1"), *once, *twice, last], axis=-1)
    actual = apply(inception._Block8(last=name == "Mixed_7c"), tensors, x, name)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)


def test_files_that_cannot_be_used_are_one_error_before_any_work(tensors, tmp_path):
    config, path = base(), tmp_path / "weights.safetensors"
    config.evaluation.update({"batch_size": 8, "inception_weights": str(path)})
    with pytest.raises(UserError, match="inception_weights is '.*weights.safetensors': .*No such file"):
        validate(config)
    path.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="allowed: a .safetensors file"):
        validate(config)
    name = "Mixed_6b.branch7x7_2.conv.weight"
    save_file({other: tensor for other, tensor in tensors.items() if other != name}, path)
    with pytest.raises(UserError, match=f"it has no tensor '{name}'; allowed: pytorch-fid's Inception"):
        validate(config)
    save_file(tensors | {name: np.zeros((128, 128, 7, 1), np.float32)}, path)
    with pytest.raises(UserError, match=rf"'{name}' is F32 \[128, 128, 7, 1\]; allowed: \[128, 128, 1, 7\] of F16"):
        validate(config)
    save_file(tensors | {name: np.zeros((128, 128, 1, 7), np.int8)}, path)
    with pytest.raises(UserError, match="is I8"):
        validate(config)
