"""The report: figures for whatever the data set has, and a page that is safe and whole."""

import csv
import io
import itertools
import re

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.data.batches import some_rows
from mmvm_jax.data.description import Description
from mmvm_jax.errors import UserError
from mmvm_jax.evaluation.evaluate import Evaluation
from mmvm_jax.evaluation.examples import Examples
from mmvm_jax.evaluation.relatedness import Relatedness
from mmvm_jax.report.cells import Row, draw_rows
from mmvm_jax.report.comparison import Result
from mmvm_jax.report.figures import latents, relatedness, relatedness_table
from mmvm_jax.report.page import format_number, format_with_error
from mmvm_jax.report.report import headline, write_report
from mmvm_jax.report.table import read_results, write_results
from mmvm_jax.types import Modality

HISTORY = [
    {"step": s, "split": split, "loss": 1.0 / s, "divergence/a": 0.1, "log_likelihood/a": None}
    for s, split in ((5, "train"), (10, "train"), (10, "test"))
]
WORDS = ("<b>bird</b>", "red", "$wing$")
MODALITIES = {
    "grey": Modality("grey", (8, 8, 1), "image", "laplace"),
    "colour": Modality("colour", (8, 6, 3), "image", "laplace"),
    "two": Modality("two", (8, 6, 2), "image", "laplace"),
    "caption": Modality("caption", (7,), "tokens", "categorical", vocabulary_size=3, padding=2),
    "trace": Modality("trace", (8,), "vector", "normal"),
    "spikes": Modality("spikes", (5, 9), "counts", "poisson"),
}


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def _evaluation(modalities, values, relatedness=None):
    generator, names = np.random.default_rng(0), [modality.name for modality in modalities]

    def draw():
        return {
            m.name: generator.integers(0, 3, (4, *m.shape)) if m.kind == "tokens" else generator.random((4, *m.shape))
            for m in modalities
        }

    means = generator.normal(size=(len(names), 30, 5))
    return Evaluation(
        values=values,
        examples=Examples(
            draw(), dict.fromkeys(names, np.arange(4) < 3), np.arange(4), {name: draw() for name in names}
        ),
        test_means=means,
        test_present=np.ones((len(names), 30), bool),
        test_labels=np.arange(30) % 3,
        relatedness=relatedness,
        unconditional=draw(),
    )


def _describe(modalities, vocabularies=()):
    return Description(tuple(modalities), {}, {}, dict(vocabularies), (), "")


def _coherence(names):
    values = {f"coherence/{s}_to_{t}": 0.5 for s in names for t in names}
    values |= {f"coherence/classifier_accuracy/{name}": 0.9 for name in (*names, "mean")}
    return values | {"coherence/cross_mean": 0.5}


def _pages(tmp_path):
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_kind_of_modality_and_every_figure(tmp_path):
    modalities = list(MODALITIES.values())
    distances = np.random.default_rng(0).random(20)
    tree = np.array([[0.0, 1.0, 0.4, 2.0]])
    pair = Relatedness(distances, distances + 1.0, np.arange(2), np.eye(2), tree)
    unlabelled = Relatedness(distances, distances + 1.0)
    evaluation = _evaluation(
        modalities, _coherence(tuple(MODALITIES)), {("grey", "colour"): pair, ("grey", "trace"): unlabelled}
    )
    write_report(base(), evaluation, _describe(modalities, {"caption": WORDS}), HISTORY, str(tmp_path), "python -m it")
    figures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert figures == {
        "cross_generation", "coherence", "reconstructions", "unconditional", "latents", "relatedness",
        "learning_curves",
    }  # fmt: skip
    page = _pages(tmp_path)
    assert page.count("<figure>") == len(figures) and "<pre>python -m it</pre>" in page
    assert f"&#34;jax&#34;: &#34;{jax.__version__}&#34;" in page
    assert page.count("<th>") == 2 * page.count("<table>") > 0


def test_the_table_has_a_number_a_line_and_the_modalities_in_columns_of_their_own(tmp_path):
    values = {
        "probe/accuracy/a": 0.5,
        "probe/accuracy/mean": 0.25,
        "coherence/a_to_a_to_b": 1.0,
        "imputation/mse/others_to_a": 2.0,
        "relatedness/auroc/a_a_to_b": 3.0,
        "train/seconds": 1e-7,
    }
    path = tmp_path / "table.csv"
    write_results(str(path), [Result("poe", 0.5, 0, values), Result("poe", 0.5, 1, {})], ["a", "a_to_b"])
    assert list(csv.DictReader(io.StringIO(path.read_text()))) == [
        {"method": "poe", "beta": "0.5", "seed": "0", "metric": metric, "from": source, "to": target, "value": value}
        for metric, source, target, value in (
            ("coherence", "a", "a_to_b", "1.0"),
            ("imputation/mse", "others", "a", "2.0"),
            ("probe/accuracy", "a", "", "0.5"),
            ("probe/accuracy/mean", "", "", "0.25"),
            ("relatedness/auroc", "a", "a_to_b", "3.0"),
            ("train/seconds", "", "", "1e-07"),
        )
    ]


def test_a_table_is_read_back(tmp_path):
    path = str(tmp_path / "table.csv")
    values = {"coherence/a_to_b": 1.0, "imputation/mse/others_to_a": 2.0, "correlation/a_b": 0.5, "objective": -3.0}
    results = [
        Result("poe", 0.5, 0, values | {"relatedness/auroc/a_b": 0.1}),
        Result("other software", 1.0, 3, {"probe/accuracy/a": 0.5}),
    ]
    write_results(path, results, ["a", "b"])
    assert read_results(path) == results


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,beta,seed,value\n", "no column 'metric'"),
        (
            "method,beta,seed,metric,value\npoe,1,0,objective,high\n",
            "line 2: could not convert string to float: 'high'",
        ),
        ("method,beta,seed,metric,value\npoe,1,0.5,objective,1\n", "line 2: invalid literal for int"),
        ("method,beta,seed,metric,value\npoe,1\n", "line 2"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_results(str(path))
    assert str(path) in str(caught.value)


def test_a_run_writes_its_table_under_the_name_that_a_sweep_calls_its_method(tmp_path):
    config, modalities = base(), [MODALITIES["trace"]]
    config.method.name, config.method.joint.aggregation = "joint", "moe"
    write_report(config, _evaluation(modalities, {"b": 0.5}), _describe(modalities), [], str(tmp_path), "")
    assert (tmp_path / "evaluation.csv").read_text() == "method,beta,seed,metric,from,to,value\nmoe,1.0,0,b,,,0.5\n"


@pytest.mark.parametrize("count", [5, 40])
def test_figures_are_bounded_whatever_the_number_of_modalities(tmp_path, count):
    modalities = [Modality(f"v{number}", (3,), "vector", "normal") for number in range(count)]
    names, distances = [modality.name for modality in modalities], np.random.default_rng(0).random(20)
    pairs = {pair: Relatedness(distances, distances + 1.0) for pair in itertools.combinations(names, 2)}
    values = _coherence(names) | {f"relatedness/auroc/{a}_{b}": 0.75 for a, b in pairs}
    evaluation = _evaluation(modalities, values, pairs)
    write_report(base(), evaluation, _describe(modalities), HISTORY, str(tmp_path), "")
    for path in (tmp_path / "figures").iterdir():
        assert max(plt.imread(path).shape) <= 4000, path
    assert ("Shown are 6 of 40 modalities" in _pages(tmp_path)) == (count == 40)
    numbers = relatedness_table(names, values).axes[0].texts
    assert len(numbers) == count * (count - 1) and {text.get_text() for text in numbers} == {"0.75"}


def test_of_many_pairs_the_most_and_the_least_related_are_drawn():
    distances = np.random.default_rng(0).random(20)
    pairs = {("a", f"v{number:02d}"): Relatedness(distances * 40, distances * (41 - number)) for number in range(40)}
    titles = [axis.get_title() for axis in relatedness(pairs, ()).axes if axis.get_title()]
    assert titles == [f"a and v{number:02d}" for number in (0, 7, 15, 23, 31, 39)]


def test_one_modality_without_labels(tmp_path):
    modalities = [MODALITIES["trace"]]
    evaluation = _evaluation(modalities, {"reconstruction/mse/a": 0.5})
    write_report(base(), evaluation, _describe(modalities), [], str(tmp_path), "")
    figures = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert figures == {"reconstructions", "unconditional", "latents", "learning_curves"}


def test_the_page_says_which_examples_the_numbers_are_of(tmp_path):
    config, modalities = base(), [MODALITIES["trace"]]
    for share, words in ((0.0, "On the whole test split."), (0.2, "On training examples set aside.")):
        config.data.validation = share
        write_report(config, _evaluation(modalities, {"b": 0.5}), _describe(modalities), [], str(tmp_path), "")
        assert words in _pages(tmp_path)


def test_names_are_escaped(tmp_path):
    config = base()
    config.data.name = "<script>alert(1)</script>"
    evaluation = _evaluation([MODALITIES["trace"]], {"probe/accuracy/<i>": 0.5})
    write_report(config, evaluation, _describe([MODALITIES["trace"]]), [], str(tmp_path), "<script>")
    assert "<script>alert" not in _pages(tmp_path) and "<i>" not in _pages(tmp_path)
    assert "<pre><script>" not in _pages(tmp_path)


def test_captions_are_their_words_without_padding():
    row = Row("caption", MODALITIES["caption"], np.array([[1, 0, 2, 2, 2, 2, 2]]))
    assert [text.get_text() for text in draw_rows([row], {"caption": WORDS}).axes[0].texts] == ["red <b>bird</b>"]
    assert [text.get_text() for text in draw_rows([row], {}).axes[0].texts] == ["1 0"]


def test_a_text_of_letters_is_read_as_one_without_blanks():
    modality = Modality("text", (9,), "tokens", "categorical", vocabulary_size=4)
    row = Row("real", modality, np.array([[3, 3, 0, 1, 2, 1, 0, 3, 3]]))
    assert [text.get_text() for text in draw_rows([row], {"text": ("a", "b", " ", "*")}).axes[0].texts] == ["ab ba"]


def test_a_trace_rises_with_its_values_on_the_scale_of_the_real_ones():
    real = Row("real", MODALITIES["trace"], np.array([[0.0, 1.0, 2.0, 4.0]]), is_given=True)
    made = Row("made", MODALITIES["trace"], np.array([[0.0, 1.0, 2.0, 2.0]]))
    first, second = (line.get_ydata() for line in draw_rows([real, made], {}).axes[0].lines)
    assert (np.diff(first) < 0).all()  # upwards: the figure counts from its top
    np.testing.assert_allclose(second[:3] - second[0], first[:3] - first[0])


def test_what_is_absent_is_neither_shown_nor_counted_in():
    values, shown = np.array([[0.0, 1.0], [-9.0, -9.0], [1.0, 0.0]]), np.array([True, False, True])
    with_gap = draw_rows([Row("real", MODALITIES["trace"], values, is_given=True, shown=shown)], {})
    without = draw_rows([Row("real", MODALITIES["trace"], values[shown], is_given=True)], {})
    heights, expected = ([line.get_ydata() for line in figure.axes[0].lines] for figure in (with_gap, without))
    np.testing.assert_array_equal(heights, expected)
    row = Row("real", MODALITIES["grey"], np.ones((2, 8, 8, 1)), shown=np.zeros(2, bool))
    assert not draw_rows([row], {}).axes[0].images


def test_images_keep_their_proportions():
    row = Row("wide", Modality("wide", (4, 8, 1), "image", "laplace"), np.zeros((2, 4, 8, 1)))
    left, right, bottom, top = draw_rows([row], {}).axes[0].images[0].get_extent()
    assert abs((right - left) / (bottom - top) - 2.0) < 1e-6


@pytest.mark.parametrize("dimensions", [1, 2])
def test_latents_of_up_to_two_dimensions_are_drawn_as_they_are(dimensions):
    means = np.random.default_rng(0).normal(size=(1, 30, dimensions))
    evaluation = _evaluation([MODALITIES["trace"]], {})._replace(test_means=means, test_labels=np.zeros(30, int))
    figure = latents(("a",), evaluation, (), 20, 0)
    drawn = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(drawn[:, :dimensions], means[0, some_rows(30, 20)])
    assert figure.axes[0].get_title() == "a, latent"


def test_latents_of_more_dimensions_have_two_maps_and_named_classes():
    figure = latents(("a",), _evaluation([MODALITIES["trace"]], {}), ("ant", "bee"), 20, 0)
    assert [axis.get_title() for axis in figure.axes] == ["a, PCA", "a, t-SNE"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ant", "bee", "2"]


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_latents_that_are_all_the_same_are_one_point(spread):
    """t-SNE ends the process on them."""
    means = np.full((1, 30, 5), 2.0) + spread * np.random.default_rng(0).normal(size=(1, 30, 5))
    figure = latents(("a",), _evaluation([MODALITIES["trace"]], {})._replace(test_means=means), (), 20, 0)
    for axis in figure.axes:
        drawn = np.concatenate([collection.get_offsets() for collection in axis.collections])
        assert len(drawn) == 20 and (np.ptp(drawn) == 0) == (spread == 0)


def test_numbers():
    assert [format_number(v) for v in (0.123456, 12345.6, -3778.2, 0.0)] == ["0.1235", "12,346", "-3,778", "0"]


def test_numbers_with_errors():
    assert format_with_error(0.123456, 0.0321) == "0.123 ± 0.032"
    assert format_with_error(-5804.4, 75.86) == "-5,804 ± 76"
    assert format_with_error(0.25, 0.0) == format_with_error(0.25, float("nan")) == "0.25"


def test_the_headline_stands_beside_its_chance_level():
    values = {"coherence/cross_mean": 0.5, "divergence/jensen_shannon": 2.0}
    for score, level in (("accuracy", 0.79), ("average_precision", 0.2)):
        values |= {f"probe/{score}/mean": level + 0.1, f"probe_chance/{score}": level}
    assert headline(values, several_labels=False) == [
        ("cross coherence", 0.5, 0.79),
        ("latent probe accuracy", 0.79 + 0.1, 0.79),
        ("Jensen-Shannon divergence (nats)", 2.0, None),
    ]
    assert headline(values, several_labels=True)[:2] == [
        ("cross coherence", 0.5, 0.2),
        ("latent probe average precision", 0.2 + 0.1, 0.2),
    ]
    assert headline({"train/seconds": 3.0}, several_labels=True) == [("seconds of training", 3.0, None)]


def test_an_empty_text_does_not_look_like_an_absent_example():
    words = Modality("words", (3,), "tokens", "categorical", vocabulary_size=4, padding=0)
    row = Row("words", words, np.array([[0, 0, 0], [1, 2, 0], [0, 0, 0]]), shown=np.array([True, True, False]))
    texts = [text.get_text() for text in draw_rows([row], {}).axes[0].texts]
    assert texts == ["(no text)", "1 2"]
