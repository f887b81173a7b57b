"""Hippocampal spikes: activity of neurons of five rats, each of which smelled the same odour.

The k-th trials of an odour of all rats form an example. The splits share no trial: they are drawn before trials are
cut into overlapping windows.
"""

import numpy as np
import tensorflow_datasets as tfds

from mmvm_jax.data import builders, raw
from mmvm_jax.data.dataset import DataSet, fingerprint, read_complete_splits, select_modalities
from mmvm_jax.errors import UserError
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "test")
SEED = 0
TRAINING_SHARE = 0.8
# {rat: (number of neurons, first time bin that is used)}
RATS = {
    "barat": (92, 225),
    "buchanan": (79, 225),
    "mitt": (104, 250),
    "stella": (49, 250),
    "superchris": (46, 225),
}
NUM_BINS = 25  # per trial
WINDOW = 10  # bins per example
ODOURS = ("A", "B", "C", "D")  # 1 to 4 in the files; the fifth is rare and left out
ODOUR_COLUMN = 3
ORIGIN = raw.Origin(
    files="<rat>/<rat>_trial_info.npy and <rat>/<rat>_spike_data_binned.npy of " + ", ".join(RATS),
    source="hippocampal recordings during odour sequences (Shahbaba et al., 2022), doi 10.7280/D14X30",
    licence="CC0 1.0, as the repository states",
)
# With this scale, the Normal likelihood equals the sum of squared errors of the published model.
MODALITIES = tuple(
    Modality(rat, (neurons, WINDOW), "counts", "normal", scale=0.5**0.5) for rat, (neurons, _) in RATS.items()
)


class Hippocampal(tfds.core.GeneratorBasedBuilder):
    """Spike counts of five rats."""

    name = "hippocampal"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="spikes", description="Spike counts in windows of ten bins.")]

    def _info(self) -> tfds.core.DatasetInfo:
        return builders.stored_info(self, {modality.name: (modality.shape, np.float32) for modality in MODALITIES})

    def _split_generators(self, dl_manager):
        del dl_manager
        files = raw.RawFiles(self.name, raw.data_root(self), ORIGIN)
        files.find_all(f"{rat}_{part}.npy" for rat in RATS for part in ("trial_info", "spike_data_binned"))
        trials = {rat: read_trials(files, rat) for rat in RATS}
        members = split_trials([odours for odours, _ in trials.values()])
        spikes = {rat: counts for rat, (_, counts) in trials.items()}
        return {split: self._generate_examples(spikes, split, *members[split]) for split in SPLITS}

    def _generate_examples(self, spikes, split: str, labels, chosen):
        windows = NUM_BINS - WINDOW + 1
        with Progress(len(labels) * windows, "examples", f"preparing {self.name}, {split}") as progress:
            for number, (label, trial) in enumerate(zip(labels, chosen.T, strict=True)):
                for start in range(windows):
                    bins = slice(start, start + WINDOW)
                    counts = {rat: spikes[rat][row, :, bins] for rat, row in zip(RATS, trial, strict=True)}
                    yield number * windows + start, {**counts, "label": label}
                    progress.update(1)


def read_trials(files: raw.RawFiles, rat: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a rat's trials: odours [trials], numbered from 0, and spike counts [trials, neurons, 25] float32."""
    neurons, start = RATS[rat]
    path = files.find(f"{rat}_trial_info.npy")
    info = files.array(path)
    if info.ndim != 2 or info.shape[1] <= ODOUR_COLUMN:
        raise files.damaged(path, f"shape {info.shape}; expected [trials, {ODOUR_COLUMN + 1} or more]")
    path = files.find(f"{rat}_spike_data_binned.npy")
    spikes = files.array(path)
    shape = spikes.shape
    if len(shape) != 3 or shape[:2] != (len(info), neurons) or shape[2] < start + NUM_BINS:
        expected = f"[{len(info)}, {neurons}, {start + NUM_BINS} or more]"
        raise files.damaged(path, f"shape {shape}; expected {expected}")
    counts = spikes[:, :, start : start + NUM_BINS].astype(np.float32)
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise files.damaged(path, "negative or missing counts")
    return info[:, ODOUR_COLUMN].astype(np.int32) - 1, counts


def split_trials(odours: list[np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Match the k-th trials of an odour of all rats, and split them 80 to 20 within each odour.

    The rat with the fewest trials of an odour determines their number.

    Args:
      odours: of the trials of each rat, numbered from 0.

    Returns:
      {split: (labels [N] int32, trials [rats, N])}.
    """
    rng = np.random.default_rng(SEED)
    members = {split: ([], []) for split in SPLITS}
    for label, name in enumerate(ODOURS):
        trials = [np.flatnonzero(theirs == label) for theirs in odours]
        count = min(map(len, trials))
        if count < 2:
            raise UserError(f"hippocampal: a rat has {count} trials of odour {name}; allowed: 2 or more")
        matched = np.stack([theirs[:count] for theirs in trials])[:, rng.permutation(count)]
        middle = min(round(TRAINING_SHARE * count), count - 1)
        for split, chosen in zip(SPLITS, (matched[:, :middle], matched[:, middle:]), strict=True):
            members[split][0].append(np.full(chosen.shape[1], label, np.int32))
            members[split][1].append(chosen)
    return {
        split: (np.concatenate(labels), np.concatenate(trials, axis=1)) for split, (labels, trials) in members.items()
    }


def load(config_data, modalities=()) -> DataSet:
    """Load the data set; see ``load_dataset``. Reads ``dir`` of ``config.data``."""
    chosen = select_modalities(MODALITIES, modalities)
    train, test = read_complete_splits(builders.prepare(Hippocampal, "spikes", config_data.dir), chosen)
    return DataSet(chosen, train, test, len(ODOURS), "class", fingerprint(train, test), class_names=ODOURS)
