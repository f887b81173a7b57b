"""MIMIC-CXR: a frontal and a lateral chest radiograph, with fourteen findings."""

import collections
import math

import numpy as np
import tensorflow_datasets as tfds
from PIL import ImageOps

from mmvm_jax.data import builders, on_disk, raw, tables
from mmvm_jax.data.dataset import DataSet, Split, fingerprint, select_modalities, without_empty
from mmvm_jax.errors import unknown_name
from mmvm_jax.runtime.progress import Progress
from mmvm_jax.types import Modality

SPLITS = ("train", "validation", "test")
SHARES = (0.8, 0.9)  # of the subjects, at which the second and third split start
READ_SPLITS = ("train", "test")  # the validation split is set aside and not prepared
SEED = 0
SIDE = 224
VIEWS = {"AP": "frontal", "PA": "frontal", "LATERAL": "lateral", "LL": "lateral"}
NAMES = ("frontal", "lateral")
MODALITIES = tuple(Modality(name, (SIDE, SIDE, 1), "image", "laplace", scale=0.75) for name in NAMES)
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
ORIGIN = raw.Origin(
    files="the folder files/ (p10/p10000032/s50414267/<dicom>.jpg ...), mimic-cxr-2.0.0-metadata.csv.gz and "
    "mimic-cxr-2.0.0-chexpert.csv.gz; or links to them",
    source="MIMIC-CXR-JPG 2.x (Johnson et al., 2019), doi 10.13026/8360-t248",
    licence="PhysioNet Credentialed Health Data License 1.5.0, for credentialed users",
)
_POLICIES = {
    "paired": "Every pair of a frontal and a lateral view of a study.",
    "all": "These pairs, and the views of studies that have only one kind of view.",
}


class MimicCxr(tfds.core.GeneratorBasedBuilder):
    """Pairs of radiographs."""

    name = "mimic_cxr"
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=description) for name, description in _POLICIES.items()
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        arrays: dict[str, tuple] = dict.fromkeys(NAMES, ((SIDE, SIDE, 1), np.uint8))
        arrays |= {"present": ((len(NAMES),), np.uint8), "label": ((len(FINDINGS),), np.uint8)}
        return builders.stored_info(self, arrays, numbers=())

    def _split_generators(self, dl_manager):
        del dl_manager
        files = raw.RawFiles(self.name, raw.data_root(self), ORIGIN)
        findings = read_findings(files)
        studies = [study for study in read_studies(files) if study.number in findings]
        split_of = split_subjects({study.subject for study in studies})  # the same for all policies
        if self.builder_config.name == "paired":
            studies = [study for study in studies if all(study.views.values())]
        members = {name: [study for study in studies if split_of[study.subject] == name] for name in READ_SPLITS}
        raw.check_not_empty(self.name, members)
        paths = [
            path for chosen in members.values() for study in chosen for views in study.views.values() for path in views
        ]
        found = files.find_all(paths, lambda path: files.find_optional(path, path.rpartition("/")[2]))
        parts = {}
        for split, chosen in members.items():
            examples = self._generate_examples(files, split, chosen, findings, found)
            count = sum(math.prod(max(len(paths), 1) for paths in study.views.values()) for study in chosen)
            parts |= on_disk.in_parts(split, examples, count, self.info.features)
        return parts

    def _generate_examples(self, files, split: str, studies, findings, paths):
        decoded = raw.parallel(lambda study: read_views(files, study, paths), studies)
        row = 0
        with Progress(len(studies), "studies", f"preparing {self.name}, {split}") as progress:
            for study, pictures in zip(studies, decoded, strict=True):
                for example in pair_views(pictures):
                    yield row, {**example, "label": findings[study.number]}
                    row += 1
                progress.update(1)


Study = collections.namedtuple("Study", ("subject", "number", "views"))  # views: {name: paths}


def read_studies(files: raw.RawFiles) -> list[Study]:
    """Return all studies with a frontal or a lateral view, ordered by subject and number."""
    studies = {}
    _, lines = _table(files, "metadata")
    for _, row in lines:
        view = VIEWS.get(row["ViewPosition"].upper())
        if view:
            subject, number = (row[name].removesuffix(".0") for name in ("subject_id", "study_id"))
            study = studies.setdefault((subject, number), Study(subject, number, {name: [] for name in NAMES}))
            study.views[view].append(f"p{subject[:2]}/p{subject}/s{number}/{row['dicom_id']}.jpg")
    for study in studies.values():
        for paths in study.views.values():
            paths.sort()
    return [studies[key] for key in sorted(studies)]


def read_findings(files: raw.RawFiles) -> dict[str, np.ndarray]:
    """Return {number of the study: findings [14] uint8}. Uncertain (-1) and blank entries count as not found."""
    path, lines = _table(files, "chexpert")
    return {
        row["study_id"].removesuffix(".0"): np.array(
            [tables.flag(files, path, line, row[name]) for name in FINDINGS], np.uint8
        )
        for line, row in lines
    }


def _table(files: raw.RawFiles, kind: str):
    """Return the path of one of the publisher's tables, and its lines by the names of its columns."""
    name = f"mimic-cxr-2.0.0-{kind}.csv"
    path = files.find(f"{name}.gz", name, *(f"mimic-cxr-2.1.0-{kind}.csv{end}" for end in (".gz", "")))
    needed = ("dicom_id", "subject_id", "ViewPosition") if kind == "metadata" else FINDINGS
    return path, tables.records(files, path, ("study_id", *needed))


def split_subjects(subjects: set[str]) -> dict[str, str]:
    """Return the split of every subject, 80 to 10 to 10 at random."""
    ordered = sorted(subjects)
    order = np.random.default_rng(SEED).permutation(len(ordered))
    starts = [round(share * len(ordered)) for share in SHARES]
    return {ordered[place]: SPLITS[np.searchsorted(starts, rank, "right")] for rank, place in enumerate(order)}


def read_views(files: raw.RawFiles, study: Study, paths: dict[str, str]) -> dict[str, list[np.ndarray]]:
    """Return the centre squares of a study's radiographs by view, [224, 224, 1] uint8 each; ``paths``: {view: file}."""
    return {name: [_read_picture(files, paths[view]) for view in views] for name, views in study.views.items()}


def _read_picture(files: raw.RawFiles, path: str) -> np.ndarray:
    picture = files.image(path, "L", at_least=(SIDE, SIDE))
    return np.asarray(ImageOps.fit(picture, (SIDE, SIDE)))[..., None]


def pair_views(pictures: dict[str, list[np.ndarray]]):
    """Yield every pair of a frontal and a lateral picture. A picture without a counterpart is paired with black."""
    black = np.zeros((SIDE, SIDE, 1), np.uint8)
    present = np.array([bool(pictures[name]) for name in NAMES], np.uint8)
    for frontal in pictures["frontal"] or [black]:
        for lateral in pictures["lateral"] or [black]:
            yield {"frontal": frontal, "lateral": lateral, "present": present}


def load(config_data, modalities=()) -> DataSet:
    """Load the training and test split; see ``load_dataset``.

    Reads ``dir``, ``memory_gb`` and ``policy`` of ``config.data``.
    """
    policy = config_data.policy or "paired"
    if policy not in _POLICIES:
        raise unknown_name("config.data.policy", policy, _POLICIES)
    chosen = select_modalities(MODALITIES, modalities)
    builder = builders.prepare(MimicCxr, policy, config_data.dir)
    names = [modality.name for modality in chosen]
    train, test = (_read_split(builder, split, names, config_data.memory_gb) for split in READ_SPLITS)
    return DataSet(
        chosen,
        train,
        test,
        len(FINDINGS),
        "multilabel",
        fingerprint(train, test),
        class_names=FINDINGS,
    )


def _read_split(builder, split: str, names, memory_gb: float) -> Split:
    inputs, labels = on_disk.read_split(builder, split, names, memory_gb)
    views, _ = builders.read_split(builder, on_disk.all_parts(builder, split), ["present"])
    present = views["present"].T[[NAMES.index(name) for name in names]] > 0
    return without_empty(Split(inputs, present, labels))
