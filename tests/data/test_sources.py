"""The forms in which people have their data: folders of files, tables with an index, AnnData and MuData."""

import importlib

import anndata
import jax
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tiny

import mmvm_jax
from mmvm_jax.config import own_data as own_config
from mmvm_jax.data import own_data
from mmvm_jax.data.batches import gather
from mmvm_jax.data.dataset import select_examples
from mmvm_jax.data.npy_files import NpyFiles
from mmvm_jax.data.on_disk import StoredInputs
from mmvm_jax.data.sources import as_tables, read_source
from mmvm_jax.errors import UserError

N = 90
CELLS = [f"cell{number}" for number in range(N)]
LATER = CELLS[30:]  # the cells with proteins


def load(path, **fields):
    config = own_config().data
    config.update({"path": str(path), **fields})
    return own_data.load(config)


def refused(path, **fields) -> str:
    with pytest.raises(UserError) as caught:
        load(path, **fields)
    return str(caught.value)


@pytest.fixture
def arrays():
    """One array of each kind, with missing entries and examples, labels and a split."""
    generator = np.random.default_rng(1)
    table = generator.normal(3.0, 2.0, (N, 4))
    table[generator.random(table.shape) < 0.2] = np.nan
    table[5] = np.nan
    return tiny.arrays() | {
        "gaps": np.resize(table, (tiny.N, 4)),
        "flags": generator.integers(0, 2, (tiny.N, 3)),
        "labels": np.arange(tiny.N) % 3,
        "split": np.arange(tiny.N) % 4 == 0,
    }


@pytest.fixture
def folder(arrays, tmp_path):
    """The arrays as a folder of .npy files, of which one array has three."""
    path = tmp_path / "folder"
    (path / "gaps").mkdir(parents=True)
    for name, array in arrays.items():
        if name != "gaps":
            np.save(path / f"{name}.npy", array)
    for number, part in enumerate(np.split(arrays["gaps"], [7, 8])):
        np.save(path / "gaps" / f"{number}.npy", part)
    (path / "README.txt").write_text("not a modality")
    np.save(path / ".hidden.npy", np.zeros(1))
    return path


@pytest.fixture
def cells():
    """MuData of sparse counts, and of proteins that the first 30 cells lack."""
    mudata.set_options(pull_on_update=False)  # the future default, without which it warns
    generator = np.random.default_rng(0)
    rna = anndata.AnnData(
        scipy.sparse.csr_matrix(generator.poisson(1.0, (N, 6)).astype(np.float32)),
        obs=pd.DataFrame(index=CELLS),
        var=pd.DataFrame(index=[f"gene{number}" for number in range(6)]),
    )
    protein = anndata.AnnData(
        generator.normal(size=(len(LATER), 3)).astype(np.float32),
        obs=pd.DataFrame(index=LATER),
        var=pd.DataFrame(index=["CD3", "CD4", "CD8"]),
    )
    return mudata.MuData({"rna": rna, "protein": protein})


@pytest.fixture
def with_obsm(cells):
    """The same as AnnData, with the proteins and something derived in ``obsm``."""
    whole = cells.mod["rna"].copy()
    whole.obsm["protein"] = cells.mod["protein"].to_df().reindex(CELLS)
    whole.obsm["X_pca"] = np.zeros((N, 2))
    return whole


def assert_same(one, other):
    assert one.modalities == other.modalities and one.fingerprint == other.fingerprint
    for first, second in ((one.train, other.train), (one.test, other.test)):
        jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_folder_is_like_an_npz_file(arrays, folder, tmp_path):
    np.savez(tmp_path / "my.npz", **dict(sorted(arrays.items())))
    assert_same(load(folder), load(tmp_path / "my.npz"))


@pytest.mark.parametrize("rows", [slice(2, 9), slice(0, 20, 3), slice(5, 5), np.array([9, 0, 7, 7]), "mask"])
def test_rows_of_several_files(rows, tmp_path):
    whole = np.arange(60).reshape(10, 3, 2)
    for number, part in enumerate(np.split(whole, [4, 4, 9])):  # one of them is empty
        np.save(tmp_path / f"{number}.npy", np.asfortranarray(part) if number == 0 else part)
    rows = whole[:, 0, 0] % 4 == 0 if isinstance(rows, str) else rows
    files = NpyFiles(sorted(tmp_path.glob("*.npy")))
    assert files.shape == whole.shape and len(files) == 10
    np.testing.assert_array_equal(files[rows], whole[rows])


def test_examples_beyond_the_memory_limit_are_read_when_needed(folder):
    in_memory, on_disk = load(folder), load(folder, memory_gb=0.0)
    assert isinstance(on_disk.train.inputs, StoredInputs) and isinstance(in_memory.train.inputs, dict)
    assert on_disk.modalities == in_memory.modalities and on_disk.fingerprint == in_memory.fingerprint
    for first, second in ((in_memory.train, on_disk.train), (in_memory.test, on_disk.test)):
        index = np.array([3, 0, len(first.labels) - 1, 3])
        jax.tree.map(np.testing.assert_array_equal, gather(first, index), gather(second, index))
        chosen = select_examples(second, np.arange(len(second.labels)) % 2 == 1)
        jax.tree.map(
            np.testing.assert_array_equal,
            gather(chosen, np.arange(2)),
            gather(first, np.array([1, 3]))._replace(index=np.arange(2)),
        )


def test_arrays_in_memory_may_exceed_the_limit_too(arrays):
    config = tiny.config()
    config.data.memory_gb = 0.0
    config.train.steps = 2
    model = mmvm_jax.fit(arrays, config)
    config.data.memory_gb = 8.0
    np.testing.assert_array_equal(
        model.encode(arrays)["joint__mean"], mmvm_jax.fit(arrays, config).encode(arrays)["joint__mean"]
    )


def test_an_npz_file_beyond_the_limit_is_refused(arrays, tmp_path):
    np.savez(tmp_path / "my.npz", **arrays)
    message = refused(tmp_path / "my.npz", memory_gb=1e-6)
    assert "config.data.memory_gb is 1e-06" in message and "a folder with one .npy file per array" in message


def test_a_column_without_known_values_is_found_on_disk(folder):
    array = np.load(folder / "height.npy")
    array[:, 0] = np.nan
    np.save(folder / "height.npy", array)
    assert "'height': entry 0 has no known value" in refused(folder, memory_gb=0.0)


def test_tables_of_a_folder_are_aligned_by_their_indexes(cells, tmp_path):
    cells.mod["rna"].to_df().to_parquet(tmp_path / "rna.parquet")
    cells.mod["protein"].to_df().to_csv(tmp_path / "protein.csv")
    pd.DataFrame({"type": ["a", "b"] * (N // 2)}, index=CELLS).to_csv(tmp_path / "labels.csv")
    dataset = load(tmp_path)
    assert dataset.class_names == ("a", "b") and dataset.columns["protein"] == ("CD3", "CD4", "CD8")
    assert sum(split.present[0].sum() for split in (dataset.train, dataset.test)) == len(LATER)
    assert [modality.name for modality in dataset.modalities] == ["protein", "rna"]


def test_columns_of_ids_are_indexes_and_separators_are_found(tmp_path):
    ids = pd.Index(np.arange(N) + 100, name="patient_id")
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 2)), ids, ["a", "b"])
    values.to_csv(tmp_path / "first.csv", sep=";", decimal=",")
    values.iloc[::-1].to_csv(tmp_path / "second.CSV", sep="\t")
    dataset = load(tmp_path)
    assert dataset.columns == {"first": ("a", "b"), "second": ("a", "b")}
    np.testing.assert_allclose(dataset.train.inputs["first"], dataset.train.inputs["second"], atol=1e-5)


def test_parts_follow_each_other_by_their_numbers(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(12):
        np.save(tmp_path / "a" / f"part{number}.npy", np.full((2, 1), float(number)))
    np.testing.assert_array_equal(read_source(tmp_path, "")["a"][:][:, 0], np.repeat(np.arange(12.0), 2))


def test_a_file_that_changes_while_it_is_in_use(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 2)))
    array = NpyFiles([tmp_path / "a.npy"])
    np.save(tmp_path / "a.npy", np.zeros((5, 1)))
    with pytest.raises(UserError, match="a.npy has changed while it was in use"):
        array[:]


def test_cells_without_numbers_or_common_names_are_refused(cells, with_obsm):
    with_obsm.X = None
    assert list(as_tables(with_obsm)) == ["protein"]
    with pytest.raises(UserError, match="'rna' is AnnData without X"):
        as_tables({"rna": with_obsm})
    other = cells.mod["protein"].copy()
    other.obs_names = [f"{name}-1" for name in other.obs_names]
    with pytest.raises(UserError, match="no cell is in two of the modalities rna, protein.*'cell0' and 'cell89-1'"):
        as_tables(mudata.MuData({"rna": cells.mod["rna"], "protein": other}))


def test_a_csv_file_without_an_index_keeps_its_first_column(tmp_path):
    pd.DataFrame(np.random.default_rng(0).normal(size=(N, 2)), columns=["a", "b"]).to_csv(
        tmp_path / "table.csv", index=False
    )
    assert load(tmp_path).columns["table"] == ("a", "b")


@pytest.mark.parametrize("form", ["h5mu", "zarr"])
def test_files_of_mudata_are_its_modalities(form, cells, tmp_path):
    getattr(cells, "write_h5mu" if form == "h5mu" else "write_zarr")(tmp_path / f"my.{form}")
    assert_same(load(tmp_path / f"my.{form}"), own_data.from_arrays(cells, own_config().data))
    dataset = load(tmp_path / f"my.{form}")
    assert [(one.name, one.kind) for one in dataset.modalities] == [("rna", "counts"), ("protein", "vector")]


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_files_of_anndata_are_x_and_the_tables_of_obsm(form, with_obsm, tmp_path):
    getattr(with_obsm, f"write_{form}")(tmp_path / f"my.{form}")
    dataset = load(tmp_path / f"my.{form}")
    assert [(one.name, one.kind) for one in dataset.modalities] == [("X", "counts"), ("protein", "vector")]
    assert sum(split.present[1].sum() for split in (dataset.train, dataset.test)) == len(LATER)


def test_anndata_within_a_mapping_stands_for_its_x(cells, with_obsm):
    tables = as_tables({"rna": with_obsm, "protein": cells.mod["protein"], "labels": [0, 1]})
    assert list(tables) == ["rna", "protein", "labels"] and tables["rna"].shape == (N, 6)
    pd.testing.assert_frame_equal(tables["protein"], cells.mod["protein"].to_df())


def test_results_have_the_names_of_cells_and_genes(cells):
    config = tiny.config()
    config.train.steps = 2
    model = mmvm_jax.fit(cells, config)
    filled, latents = model.impute(cells), model.encode(cells)["joint__mean"]
    assert list(filled["protein"].index) == list(latents.index) == CELLS
    assert list(filled["rna"].columns) == list(cells.mod["rna"].var_names)
    pd.testing.assert_frame_equal(filled["protein"].loc[LATER], cells.mod["protein"].to_df(), check_dtype=False)
    assert list(model.generate(given=cells)["protein"].index) == CELLS


@pytest.mark.parametrize(("name", "package", "extra"), [("a.csv", "pandas", "tables"), ("my.h5ad", "anndata", "cells")])
def test_a_package_that_is_not_installed_is_named(name, package, extra, tmp_path, monkeypatch):
    (tmp_path / name).write_text("a,b\n1,2\n")

    def without(module):
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", without)
    path = tmp_path if name == "a.csv" else tmp_path / name
    assert refused(path).endswith(f"{package} is not installed; pip install 'mmvm_jax[{extra}]'")


def test_folders_and_files_that_cannot_be_read_are_named(tmp_path):
    assert f"{tmp_path} has no modality; allowed: files .npy, .parquet, .csv" in refused(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "npy").write_text("not an array")
    assert f"{tmp_path} has no modality" in refused(tmp_path)
    np.save(tmp_path / "a" / "0.npy", np.zeros((3, 2)))
    np.save(tmp_path / "a" / "1.npy", np.zeros((3, 4)))
    assert "1.npy is float64 [3, 4]; allowed: float64 [N, 2]" in refused(tmp_path)
    (tmp_path / "a" / "1.npy").write_bytes(b"not an array")
    assert "1.npy cannot be read" in refused(tmp_path)
    (tmp_path / "a" / "1.npy").unlink()
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    assert "has two files of the modality 'a'" in refused(tmp_path)
    (tmp_path / "my.h5ad").write_bytes(b"not cells")
    assert "a.npy', a single modality; allowed: a folder" in refused(tmp_path / "a.npy")
    assert "my.h5ad cannot be read by anndata.read_h5ad" in refused(tmp_path / "my.h5ad")
