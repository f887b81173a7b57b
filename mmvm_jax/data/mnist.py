"""MNIST's digits, from the four idx files or from the .npz file that Keras distributes."""

import numpy as np

from mmvm_jax.data.raw import DAMAGED, RawFiles

FILES = "MNIST's four idx files (train-images-idx3-ubyte.gz, ...) or mnist.npz"


def read_mnist(files: RawFiles, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the digits and classes of "train" or "test": [N, 28, 28] uint8, [N] int32."""
    prefix = {"train": "train", "test": "t10k"}[split]
    path = files.find_optional(*_endings(f"{prefix}-images-idx3-ubyte"))
    packed = files.find_optional("mnist.npz")
    if path is None and packed is not None:
        arrays = files.arrays(packed)
        images, labels = (arrays.get(f"{axis}_{split}", np.zeros(0)) for axis in "xy")
        path = packed
    else:
        path = path or files.find(*_endings(f"{prefix}-images-idx3-ubyte"))
        images = read_idx(files, f"{prefix}-images-idx3-ubyte")
        labels = read_idx(files, f"{prefix}-labels-idx1-ubyte")
    if images.shape != (len(labels), 28, 28) or not len(labels) or images.dtype != np.uint8 or labels.max() > 9:
        raise files.damaged(path, f"{images.dtype} {list(images.shape)} beside {len(labels)} labels")
    return images, labels.astype(np.int32)


def read_idx(files: RawFiles, name: str) -> np.ndarray:
    """Return the bytes of an idx file, compressed (.gz) or not, in the shape given by its header."""
    path = files.find(*_endings(name))
    try:
        content = files.decompressed(path)
        if content[:3] != b"\0\0\x08":
            raise ValueError("not an idx file of bytes")
        end = 4 + 4 * content[3]
        shape = np.frombuffer(content[4:end], ">u4")
        return np.frombuffer(content[end:], np.uint8).reshape(shape)
    except DAMAGED as error:
        raise files.damaged(path, error) from error


def _endings(name: str) -> tuple[str, ...]:
    return f"{name}.gz", name
