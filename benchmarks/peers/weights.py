"""Carries the weights of a Flax network over to its PyTorch peer, whose layers have the same names."""

import math

import numpy as np
import torch
from torch import nn

from mmvm_jax.networks.normalization import STATISTICS


class LinearFromImage(nn.Linear):
    """A linear layer that reads flattened images, ours channels last, theirs channels first."""

    def __init__(self, channels, sides, features, bias=True):
        super().__init__(channels * math.prod(sides), features, bias)
        self.shape = (*sides, channels)


class LinearToImage(nn.Linear):
    """A linear layer whose output is unflattened into images, likewise."""

    def __init__(self, features, channels, sides):
        super().__init__(features, channels * math.prod(sides))
        self.shape = (*sides, channels)


@torch.no_grad()
def load(network, variables):
    """Copies every parameter of ours, {"params": ..., "batch_stats": ...} of one network, into the peer."""
    copied = 0
    for name, module in network.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        ours = _at(variables["params"], name)
        copied += sum(leaf.size for leaf in ours.values())
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            statistics = _at(variables[STATISTICS], name)
            _copy(module.running_mean, statistics["mean"])
            _copy(module.running_var, statistics["variance"])
        _copy(module.weight, _weight(module, ours))
        if getattr(module, "bias", None) is not None:
            _copy(module.bias, _channels_first(module, ours["bias"]))
    if copied != sum(parameter.numel() for parameter in network.parameters()):
        raise ValueError("the peer has other layers")


def _at(tree, name):
    for part in name.split("."):
        tree = tree[part]
    return tree


def _copy(tensor, array):
    tensor.copy_(torch.from_numpy(np.array(array)))


def _weight(module, ours):
    """Our parameters in the order of axes of PyTorch's ``weight``."""
    if isinstance(module, nn.Embedding):
        return ours["embedding"]
    if "scale" in ours:
        return ours["scale"]
    kernel = ours["kernel"]
    if kernel.ndim > 2:  # [*sides, C, F] of a convolution or of the one that is transposed
        return np.moveaxis(kernel, (-1, -2), (0, 1))
    if isinstance(module, LinearFromImage):
        kernel = np.moveaxis(kernel.reshape(*module.shape, -1), -2, 0).reshape(kernel.shape)
    return _channels_first(module, kernel).T


def _channels_first(module, outputs):
    """Features [..., F] of a layer that makes images, in PyTorch's order; all others as they are."""
    if not isinstance(module, LinearToImage):
        return outputs
    images = outputs.reshape(*outputs.shape[:-1], *module.shape)
    return np.moveaxis(images, -1, outputs.ndim - 1).reshape(outputs.shape)
