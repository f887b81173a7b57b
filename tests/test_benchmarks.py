import pytest

from benchmarks.multivae_parts.timing import in_turn, line
from benchmarks.workloads import random_batch, workload


@pytest.mark.fast
def test_functions_are_timed_in_turn_and_the_first_round_is_dropped():
    calls, seconds = [], iter(range(8))

    def timed(name):
        return lambda: calls.append(name) or next(seconds)

    assert in_turn({"ours": timed("a"), "theirs": timed("b")}, rounds=3) == {"ours": [2, 4, 6], "theirs": [3, 5, 7]}
    assert calls == ["a", "b"] * 4


@pytest.mark.fast
def test_a_line_has_the_median_of_the_ratios_and_the_ratio_of_the_fastest():
    text = line("step", [1.0, 2.0, 4.0], [8.0, 6.0, 8.0], 10, "examples/s")
    assert "ours       5.0  MultiVae       1.2 examples/s" in text
    assert text.endswith("ratio 3.00 (2.00 to 8.00), fastest 6.00")


@pytest.mark.fast
def test_the_mlp_has_vectors_of_any_number():
    config, modalities = workload("mlp", 4)
    assert config.network.name == "mlp"
    assert [modality.shape for modality in modalities] == [(784,)] * 4
    assert random_batch(modalities, 3).inputs["m3"].shape == (3, 784)


@pytest.mark.filterwarnings("ignore")  # of the other libraries
@pytest.mark.parametrize("method", ["mvae", "mmvae", "mopoe", "mmvae_plus", "mvtcae"])
def test_losses_and_gradients_are_those_of_multivae(method):
    pytest.importorskip("multivae")
    from benchmarks.multivae_parts import agreement
    from benchmarks.multivae_parts.case import make

    assert len(list(agreement.run(make(method, "mlp", modalities=3, batch_size=10, examples=10)))) == 2
