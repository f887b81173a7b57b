"""Random masks of absent modalities, drawn once per example from a seed."""

import numpy as np

from mmvm_jax.errors import UserError, unknown_name


def draw_presence(
    pattern: str, rate: float, num_modalities: int, num_examples: int, seed, modality: int | None = None
) -> np.ndarray:
    """Draw a mask. The masks of the first examples do not depend on the number of examples.

    ``random``: every modality is absent with probability ``rate``, independently. An example that would lose all M
    modalities keeps one, chosen uniformly. Hence a modality is absent in a share of rate - rate**M / M.
    ``paired_fraction``: an example is complete with probability f = 1 - rate. Otherwise it keeps a single modality,
    chosen uniformly.
    ``one_modality``: the given modality is absent with probability ``rate``, the others never.

    Args:
      pattern: one of these names.
      rate: 0 (everything is present) to 1.
      num_modalities: M.
      num_examples: N.
      seed: for ``np.random.default_rng``.
      modality: row of the modality that ``one_modality`` removes.

    Returns:
      present [M, N] bool; no example is empty.

    Raises:
      UserError: unknown pattern, rate outside 0 to 1, or the only modality would be absent.
    """
    if pattern not in PATTERNS:
        raise unknown_name("config.data.missing.pattern", pattern, PATTERNS)
    if not 0 <= rate <= 1:
        raise UserError(f"config.data.missing.rate is {rate}; allowed: 0 to 1")
    # One row per example, whatever the pattern, so that an example's numbers do not depend on N.
    uniform = np.random.default_rng(seed).random((num_examples, num_modalities + 1)).T
    return PATTERNS[pattern](uniform[:-1], uniform[-1], rate, modality)


def _random(uniform, extra, rate, modality):
    del modality
    present = uniform >= rate
    return present | (_choose_one(extra, len(uniform)) & ~present.any(axis=0))


def _paired_fraction(uniform, extra, rate, modality):
    del modality
    return (uniform[0] >= rate) | _choose_one(extra, len(uniform))


def _one_modality(uniform, extra, rate, modality):
    del extra
    if len(uniform) < 2 and rate > 0:
        raise UserError(
            f"config.data.missing.pattern is 'one_modality' at rate {rate} with {len(uniform)} modality; "
            "allowed: 2 or more modalities"
        )
    present = np.ones(uniform.shape, bool)
    present[modality] = uniform[modality] >= rate
    return present


def _choose_one(uniform, num_modalities):
    """Choose one modality per uniform number: [N] -> [M, N] bool."""
    return np.arange(num_modalities)[:, None] == np.floor(uniform * num_modalities)


PATTERNS = {"random": _random, "paired_fraction": _paired_fraction, "one_modality": _one_modality}
