"""Versions and devices, on which the exact numbers of a run depend in addition to its configuration."""

import collections
import importlib.metadata
import json
import os
import platform

import jax

import mmvm_jax
from mmvm_jax.errors import UserError, first_line
from mmvm_jax.runtime import devices, processes, self_check

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def describe_devices() -> str:
    """Return a description of the devices, such as "4 x NVIDIA H100, 2 processes".

    Raises:
      UserError: ``JAX_PLATFORMS`` asks for devices that do not exist.
    """
    try:
        kinds = collections.Counter(device.device_kind for device in jax.devices()[: devices.num_devices()])
    except (RuntimeError, AssertionError) as error:
        asked_for = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX_PLATFORMS={asked_for}: JAX finds no such device ({first_line(error)}); allowed: cpu, or unset it"
        ) from error
    shown = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return shown if processes.num_processes() == 1 else f"{shown}, {processes.num_processes()} processes"


def to_text() -> str:
    """Return versions, devices and the outcome of the self-check as JSON."""
    versions = {"mmvm_jax": mmvm_jax.__version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    passed = {"passed": True, "largest_errors": self_check.check()}  # raises an error otherwise
    return json.dumps(versions | {"devices": describe_devices(), "self_check": passed}, indent=2) + "\n"
