"""Every loss equals what its paper's formula gives in numpy for the latents that were drawn."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
from linear_gaussian import (
    CASES,
    HYPER,
    LinearGaussian,
    hyper_of,
    loss_and_gradient,
    loss_of,
    make_batch,
    make_case,
    make_params,
    quick_jit,
    with_method_params,
)
from scipy.special import logsumexp

from mmvm_jax.objectives import mvae

# Two and three modalities; every pattern of presence, nothing observed included.
PATTERNS = {
    2: np.array(list(itertools.product([True, False], repeat=2))).T,
    3: np.array(list(itertools.product([True, False], repeat=3))).T,
}
BETA, ALPHA, TEMPERATURE, LABEL_WEIGHT = (HYPER[name] for name in ("beta", "alpha", "temperature", "label_weight"))
CROSS_SHARE = hyper_of("mmvm_cross")["cross_share"]


def kl(q, p=(0.0, 1.0)):
    (mean, variance), (other_mean, other_variance) = q, p
    ratio = variance / other_variance
    return 0.5 * np.sum(ratio - np.log(ratio) - 1 + (mean - other_mean) ** 2 / other_variance)


def log_normal(z, q=(0.0, 1.0)):
    return np.sum(-0.5 * np.log(2 * np.pi * q[1]) - 0.5 * (z - q[0]) ** 2 / q[1])


def log_laplace(z, location, scale):
    return np.sum(-np.abs(z - location) / scale - np.log(2 * scale))


def product(experts):
    """Of (mean, variance) pairs; N(0, I) if there is none."""
    if not experts:
        return 0.0, 1.0
    precision = sum(1 / variance for _, variance in experts)
    return sum(mean / variance for mean, variance in experts) / precision, 1 / precision


def barycentre(experts):
    """Of (mean, variance) pairs."""
    means, variances = zip(*experts)
    return np.mean(means, axis=0), np.mean(np.sqrt(variances), axis=0) ** 2


def hellinger(experts):
    """Moments of the mixture of the normalised sqrt(q_i q_j), weighted by their integrals."""
    total = first = second = 0.0
    for (mean, variance), (other_mean, other_variance) in itertools.product(experts, repeat=2):
        both = variance + other_variance
        height = np.sqrt(2 * np.sqrt(variance * other_variance) / both)
        weight = np.prod(height * np.exp(-((mean - other_mean) ** 2) / (4 * both)))
        centre = (mean * other_variance + other_mean * variance) / both
        total, first = total + weight, first + weight * centre
        second = second + weight * (2 * variance * other_variance / both + centre**2)
    return first / total, second / total - (first / total) ** 2


class Example:
    """One example as numpy: posteriors, what is observed, and likelihoods."""

    def __init__(self, model, batch, b):
        q = model.encode(batch.inputs)
        self.raw = [(np.asarray(q.mean[m, b]), np.asarray(q.log_variance[m, b])) for m in range(len(q.mean))]
        self.q = [(mean, np.exp(log_variance)) for mean, log_variance in self.raw]
        self.observed = [m for m in range(len(self.q)) if batch.present[m, b]]
        self.method_params = jax.tree.map(np.asarray, model.method_params)
        self.pseudo = lambda: jax.tree.map(np.asarray, model.encode(model.method_params["pseudo_inputs"]))
        self._x = [np.asarray(batch.inputs[name][b]) for name in model.names]
        self._decoders = [jax.tree.map(np.asarray, model.params["decoders"][name]) for name in model.names]

    def log_p(self, m, z):
        p = self._decoders[m]
        return log_normal(self._x[m], (z @ p["matrix"] + p["offset"], np.exp(2 * p["log_scale"])))


def subsets(items):
    return [s for size in range(1, len(items) + 1) for s in itertools.combinations(items, size)]


def independent(e, z, options):
    return sum(-e.log_p(m, z[m]) + BETA * kl(e.q[m]) for m in e.observed)


def joint(e, z, options):
    if options.aggregation == "average":
        mean = np.mean([e.q[m][0] for m in e.observed], axis=0)
        divergence = kl((mean, np.mean([e.q[m][1] for m in e.observed], axis=0)))
    elif options.aggregation in ("hellinger", "barycentre"):
        merge = {"hellinger": hellinger, "barycentre": barycentre}[options.aggregation]
        divergence = kl(merge([e.q[m] for m in e.observed]))
    elif options.aggregation == "mixture_of_barycentres":
        divergence = np.mean([kl(barycentre([e.q[m] for m in group])) for group in subsets(e.observed)])
    elif options.aggregation == "poe":
        divergence = kl(product([e.q[m] for m in e.observed] + [(0.0, 1.0)] * options.prior_expert))
    else:
        groups = subsets(e.observed) if options.aggregation == "mopoe" else [[m] for m in e.observed]
        prior = [(0.0, 1.0)] * options.prior_expert  # of the whole alone
        products = [product([e.q[m] for m in g] + prior * (len(g) == len(e.observed))) for g in groups]
        divergence = np.mean([kl(q) for q in products])
    return -sum(e.log_p(m, z[m]) for m in e.observed) + BETA * divergence


def mvae_loss(e, z, options, random_subsets=()):
    groups = [e.observed]
    if options.subsampling:
        groups += [None, *random_subsets]  # None: all subsets of one, each read by its own decoder
    total = 0.0
    for i, group in enumerate(groups):
        for members in [[m] for m in e.observed] if group is None else [group]:
            divergence = kl(product([e.q[m] for m in members] + [(0.0, 1.0)]))
            total += -sum(e.log_p(m, z[m, i]) for m in members) + BETA * divergence
    return total


def bound(log_weights, options):
    """Of [m][s]."""
    if options.bound == "loose":
        return np.mean([logsumexp(row) - math.log(len(row)) for row in log_weights])
    flat = np.concatenate(log_weights)
    return logsumexp(flat) - math.log(len(flat))


def mmvae(e, z, options):
    def log_weight(sample):
        log_mixture = logsumexp([log_normal(sample, e.q[j]) for j in e.observed]) - math.log(len(e.observed))
        return sum(e.log_p(n, sample) for n in e.observed) + BETA * (log_normal(sample) - log_mixture)

    return -bound([[log_weight(z[m, m, s]) for s in range(options.num_samples)] for m in e.observed], options)


def mmvae_plus(e, z, options):
    w_dim, laplace = options.private_dim, options.latent_distribution == "laplace"
    softmax = lambda values: np.exp(values) / np.exp(values).sum() * values.size + 1e-6

    def log_q(m, sample, part):
        mean, log_variance = (leaf[part] for leaf in e.raw[m])
        if laplace:
            return log_laplace(sample[part], mean, softmax(log_variance))
        return log_normal(sample[part], (mean, np.exp(log_variance)))

    w, u = slice(0, w_dim), slice(w_dim, None)
    log_prior = (lambda sample: log_laplace(sample, 0.0, 1.0)) if laplace else log_normal

    def log_prior_u(sample):
        if not options.clusters:
            return log_prior(sample)
        means, logits = (e.method_params["clusters"][name] for name in ("mean", "logits"))
        return logsumexp([logit + log_prior(sample - mean) for mean, logit in zip(means, logits)]) - logsumexp(logits)

    def log_weight(m, s):
        own = z[m, m, s]
        for n in e.observed:  # all decoders read the source's shared part
            np.testing.assert_array_equal(z[n, m, s][u], own[u])
        log_mixture = logsumexp([log_q(j, own, u) for j in e.observed]) - math.log(len(e.observed))
        likelihood = sum(e.log_p(n, z[n, m, s]) for n in e.observed)
        return likelihood + BETA * (log_prior(own[w]) + log_prior_u(own[u]) - log_mixture - log_q(m, own, w))

    return -bound([[log_weight(m, s) for s in range(options.num_samples)] for m in e.observed], options)


def mmvm(e, z, options):
    v = dict.fromkeys(e.observed, (1 - ALPHA) / len(e.observed))
    if options.gate != "none":
        v = gate_weights(e, options)
    divergence = 0.0
    for m in e.observed:
        kls = np.array([kl(e.q[m], e.q[j]) for j in v] + [kl(e.q[m])])
        weights = np.array([*v.values(), ALPHA])
        phi = weights
        if options.estimator == "variational":
            phi = weights * np.exp(-kls / TEMPERATURE)
            phi = phi / phi.sum()
        divergence += np.sum(phi * (kls + np.log(phi) - np.log(weights)))
    if z.ndim == 3:
        return mmvm_cross(e, z, divergence)
    return -sum(e.log_p(m, z[m]) for m in e.observed) + BETA * divergence


def mmvm_cross(e, z, divergence):
    """With own and other latents, z [M, 2, D]; the others are own latents of other observed modalities."""
    share = CROSS_SHARE if len(e.observed) > 1 else 0.0
    total = BETA * (1 - share) * divergence
    for m in e.observed:
        total -= (1 - share) * e.log_p(m, z[m, 0]) + share * e.log_p(m, z[m, 1])
        assert share == 0 or any(np.array_equal(z[m, 1], z[j, 0]) for j in e.observed if j != m)
    return total


def gate_weights(e, options):
    output = e.method_params["output"]
    if options.gate == "per_example":
        hidden = sum(e.q[m][0] @ e.method_params["input"][m] for m in e.observed) + e.method_params["bias"]
        output = output @ np.tanh(hidden)
    kept = sorted(e.observed, key=lambda m: -output[m])[: options.num_experts or (1 if options.hard else None)]
    scores = np.array([0.0 if options.hard else output[m] for m in kept])
    return dict(zip(kept, (1 - ALPHA) * np.exp(scores - logsumexp(scores))))


def meme(e, z, options):
    total = 0.0
    for s in e.observed:
        others = [t for t in e.observed if t != s]
        sample, log_q = z[s, s, 0], log_normal(z[s, s, 0], e.q[s])
        if not others:
            pseudo = e.pseudo()
            absent = [t for t in range(len(e.q)) if t != s]
            densities = [
                log_normal(sample, (pseudo.mean[t, i], np.exp(pseudo.log_variance[t, i])))
                for t in absent
                for i in range(options.num_pseudo_inputs)
            ]
            total += e.log_p(s, sample) + BETA * (logsumexp(densities) - math.log(len(densities)) - log_q)
            continue
        label = [sum(e.log_p(t, z[t, s, k]) for t in others) for k in range(options.num_samples + 1)]
        log_label = logsumexp(label) - math.log(len(label))
        weight = math.exp(label[0] - log_label)
        if options.divergence == "closed_form":
            divergence = np.mean([kl(e.q[s], e.q[t]) for t in others])
        else:
            divergence = log_q - logsumexp([log_normal(sample, e.q[t]) for t in others]) + math.log(len(others))
        total += weight * (e.log_p(s, sample) - label[0] - BETA * divergence) + LABEL_WEIGHT * log_label
    return -total / len(e.observed)


def mmjsd(e, z, options):
    components = [e.q[m] for m in e.observed] + [(np.zeros_like(z[0]), np.ones_like(z[0]))]
    pi = 1 / len(components)
    dynamic_prior = product([(mean, variance / pi) for mean, variance in components])
    divergence = sum(pi * kl(component, dynamic_prior) for component in components)
    return -sum(e.log_p(m, z[m]) for m in e.observed) + BETA * divergence


def mvtcae(e, z, options):
    q, count = product([e.q[m] for m in e.observed]), len(e.observed)
    likelihood = (count - ALPHA) / count * sum(e.log_p(m, z[m]) for m in e.observed)
    return -likelihood + BETA * ((1 - ALPHA) * kl(q) + ALPHA / count * sum(kl(q, e.q[m]) for m in e.observed))


def crmvae(e, z, options):
    """Decoders read z [M, 2, D], of the product and of their own posteriors."""
    q = product([e.q[m] for m in e.observed])
    likelihood = sum(e.log_p(m, z[m, 0]) + e.log_p(m, z[m, 1]) for m in e.observed) / 2
    divergence = kl(q) + sum(kl(q, e.q[m]) for m in e.observed)
    return (-likelihood + BETA * divergence) / (len(e.observed) + 1)


FORMULAS = {
    "independent": independent,
    "joint": joint,
    "mvae": mvae_loss,
    "mmvae": mmvae,
    "mmvae_plus": mmvae_plus,
    "mmvm": mmvm,
    "meme": meme,
    "mmjsd": mmjsd,
    "mvtcae": mvtcae,
    "crmvae": crmvae,
}
# These draw more than their decoders see: the first random choices, the second latents of the divergence.
UNSEEN = ("mmvm_random_experts", "mmvm_monte_carlo", "mmvm_cross_product")
# These let no latent be seen, but have the values of those without "dreg" (last test).
DREG = tuple(case for case in CASES if "dreg" in case)


@pytest.mark.parametrize(
    ("case", "num_modalities"),
    [(case, 3) for case in CASES if case not in UNSEEN + DREG]
    + [(case, 2) for case in ("mopoe", "mvae", "mmvae_loose", "mmvae_plus", "mmvm", "mmvm_cross")]
    + [(case, 2) for case in ("meme", "mmjsd", "mvtcae", "crmvae", "hellinger", "mixture_of_barycentres")],
)
def test_loss_is_the_formula(case, num_modalities, x64, monkeypatch):
    names = ("alpha", "beta", "gamma")[:num_modalities]
    batch = make_batch(make_params(names), PATTERNS[num_modalities])
    params = with_method_params(make_params(names), case, batch)
    chosen, random_subset = [], mvae.random_subset
    monkeypatch.setattr(mvae, "random_subset", lambda *args: chosen.append(random_subset(*args)) or chosen[-1])

    @quick_jit
    def loss_and_draws(params, batch):
        model = LinearGaussian(params)
        return loss_of(case, params, batch, model=model), *model.drawn, chosen

    actual, z, chosen = loss_and_draws(params, batch)
    model, (_, options) = LinearGaussian(params), make_case(case)
    assert len(chosen) == (options.num_subsets if case == "mvae" else 0)
    for b in range(batch.present.shape[1]):
        e = Example(model, batch, b)
        if not e.observed:
            assert actual[b] == 0.0
            continue
        extra = {}
        if CASES[case][0] == "mvae":
            extra["random_subsets"] = [np.flatnonzero(members[:, b]) for members in chosen]
        expected = FORMULAS[CASES[case][0]](e, z[..., b, :], options, **extra)
        np.testing.assert_allclose(actual[b], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "case", ["independent", "poe", "mvae_full", "mmvae_loose", "mmvae_plus", "mmvm", "mmvm_cross", "mmjsd", "crmvae"]
)
def test_the_terms_that_are_logged_add_up_to_the_loss(case, x64):
    """Importance-weighted bounds too, with a single sample; of examples with nothing observed all are 0."""
    batch = make_batch(make_params(("alpha", "beta", "gamma")), PATTERNS[3])
    params = with_method_params(make_params(("alpha", "beta", "gamma")), case, batch)
    module, options = make_case(case)
    if case in ("mmvae_loose", "mmvae_plus"):
        options = dataclasses.replace(options, num_samples=1)
    output = quick_jit(lambda: module.loss(jax.random.key(3), batch, LinearGaussian(params), hyper_of(case), options))()
    assert len({name for name in output.terms if name.startswith("log_likelihood/")}) == 3
    weights = {"log_likelihood": -1.0, "divergence": BETA}
    total = sum(weights[name.split("/")[0]] * term for name, term in output.terms.items())
    np.testing.assert_allclose(output.loss, total, rtol=1e-11, atol=1e-11)
    assert np.count_nonzero(output.loss) == len(output.loss) - 1


@pytest.mark.parametrize("case", DREG)
def test_dreg_changes_the_gradient_but_not_the_value(case, x64):
    plain = {
        "mmvae_dreg_loose": "mmvae_loose",
        "mmvae_dreg_tight": "mmvae_tight",
        "mmvae_plus_dreg": "mmvae_plus",
    }
    batch = make_batch(make_params(("alpha", "beta", "gamma")), PATTERNS[3])
    params = with_method_params(make_params(("alpha", "beta", "gamma")), case, batch)
    (values, gradient), (plain_values, plain_gradient) = (
        loss_and_gradient(name, params, batch) for name in (case, plain[case])
    )
    np.testing.assert_allclose(values, plain_values, rtol=1e-12)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    for part in ("decoders", "method"):
        jax.tree.map(close, gradient[part], plain_gradient[part])
    largest = lambda a, b: np.abs(a - b).max()
    assert min(jax.tree.leaves(jax.tree.map(largest, gradient["encoders"], plain_gradient["encoders"]))) > 1e-3
