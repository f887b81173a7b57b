"""PyTorch peers: one module a family, with an ``Encoder`` and a ``Decoder`` a kind of modality and ``make``.

Written as PyTorch code usually is, channels first, one network after the other. Only the names of layers are ours,
so that weights carry over by name (``benchmarks.peers.weights``).
"""

from benchmarks.peers import celeba, cub, hippocampal, mlp, polymnist_resnet, small_cnn

PEERS = {
    "celeba": celeba,
    "cub": cub,
    "hippocampal": hippocampal,
    "mlp": mlp,
    "polymnist_resnet": polymnist_resnet,
    "small_cnn": small_cnn,
}
