"""Converts published Inception weights into the file that ``config.evaluation.inception_weights`` asks for.

    python -m benchmarks.inception_weights pt_inception-2015-12-05-6726825d.pth inception.safetensors

The input is pytorch-fid's (Apache 2.0), or a state dictionary of torchvision's ``inception_v3``, whose distances are
others. Needs PyTorch (``pip install '.[bench]'``), which reads tensors only: nothing in the file is executed.
"""

import sys

import torch
from safetensors.torch import save_file


def convert(source: str, target: str) -> int:
    """Writes the tensors of a state dictionary, and returns how many there are."""
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    real = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor.is_floating_point()}
    save_file(real, target)
    return len(real)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"{convert(*sys.argv[1:])} tensors")
