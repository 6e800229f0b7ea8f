"""Generative networks whose latent variables are sampled: against dense Gaussians."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import norm

import mupc
from mupc.commands.main import main
from mupc.settings import ConfigError, Configuration

KEY = jax.random.key(0)
LATENTS, WIDTH, DATA = 2, 4, 5
PRECISION, HIDDEN = 3.0, 20.0


def linear():
    return mupc.decoder(LATENTS, DATA, width=WIDTH, depth=1, activation=mupc.identity,
                        biases=False, parameterisation=mupc.standard(), key=KEY)  # fmt: skip


def matrices(network):
    """From the latent variables to the hidden layer, and from there to the output."""
    columns = lambda block, size: jnp.stack([block(row) for row in jnp.eye(size)], 1)
    return columns(network.stages[1].entry, LATENTS), columns(network.readout, WIDTH)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("whitened", [False, True])
def test_sampled_latents_have_the_mean_and_the_covariance_of_their_posterior(whitened):
    """4,000 chains: within three standard errors, corrected for the number of comparisons."""
    chains, step, network = 4000, 0.05, linear()
    y = jax.random.normal(jax.random.key(1), (1, DATA)).repeat(chains, 0)
    energy = mupc.FreeEnergy(network, y, y, mupc.Gaussian(PRECISION), precisions=HIDDEN)
    end = mupc.infer(
        energy, mupc.InErrors(mupc.Langevin(step), whitened), energy.run(), max_steps=300,
        stopping=mupc.Endless(), key=KEY,
    )  # fmt: skip
    drawn = np.asarray(end.point.activities[0][0])
    entry, readout = map(np.asarray, matrices(network))
    onto = np.concatenate([readout @ entry, readout / np.sqrt(HIDDEN)], axis=1)
    hessian = np.eye(LATENTS + WIDTH) + PRECISION * onto.T @ onto
    mean = np.linalg.solve(hessian, PRECISION * onto.T @ y[0])[:LATENTS]
    # Of the chain of steps, whose covariance is H⁻¹ (1 − ηH/2)⁻¹, in the units that it moves.
    units = np.eye(LATENTS + WIDTH)
    if whitened:
        both = readout @ entry
        units[:LATENTS, :LATENTS] = sqrtm(
            np.linalg.inv(np.eye(LATENTS) + PRECISION * both.T @ both)
        )
    hessian = units @ hessian @ units
    whole = np.linalg.inv(hessian @ (np.eye(len(hessian)) - step * hessian / 2))
    whole = units @ whole @ units
    exact = whole[:LATENTS, :LATENTS]
    deviations = (drawn.mean(axis=0) - mean) / np.sqrt(np.diag(exact) / chains)
    variances = np.outer(np.diag(exact), np.diag(exact)) + exact**2
    spread = (np.cov(drawn, rowvar=False) - exact) / np.sqrt(variances / (chains - 1))
    every = np.concatenate([deviations, spread[np.triu_indices(LATENTS)]])
    assert np.max(np.abs(every)) < norm.isf(norm.sf(3) / len(every))


@pytest.mark.full
@pytest.mark.usefixtures("float64")
def test_a_decoder_learns_the_gradient_of_the_marginal_likelihood():
    """Of log N(y; 0, S), by Fisher's identity; an equilibrium's is another."""
    network, size = linear(), 4000
    y = jax.random.normal(jax.random.key(1), (1, DATA))

    def marginal(network):
        entry, readout = matrices(network)
        spread = readout @ (entry @ entry.T + jnp.eye(WIDTH) / HIDDEN) @ readout.T
        spread = spread + jnp.eye(DATA) / PRECISION
        return 0.5 * y[0] @ jnp.linalg.solve(spread, y[0]) + 0.5 * jnp.linalg.slogdet(spread)[1]

    exact = jax.tree.leaves(eqx.filter_grad(marginal)(network))
    many = y.repeat(size, 0), y.repeat(size, 0)

    def gradients(rule):
        carry, _ = rule.begin(network, many, rule.init(network, KEY), KEY)
        return jax.tree.leaves(rule.gradients(network, many, carry, KEY)[0])

    sampled = gradients(
        mupc.MonteCarloPredictiveCoding(
            mupc.InErrors(mupc.Langevin(0.01)), 400, 40, 30, mupc.Gaussian(PRECISION),
            hidden_precision=HIDDEN,
        )
    )  # fmt: skip
    scale = max(float(jnp.max(jnp.abs(g))) for g in exact)
    off = lambda found: max(
        float(jnp.max(jnp.abs(a - b))) for a, b in zip(found, exact, strict=True)
    )
    assert off(sampled) < 0.05 * scale
    likeliest = gradients(
        mupc.PredictiveCoding(
            mupc.GaussNewton(DATA), 3, mupc.Gaussian(PRECISION), hidden_precision=HIDDEN
        )
    )
    assert off(likeliest) > 0.15 * scale


def test_what_is_read_is_likeliest_and_has_no_noise():
    network = mupc.decoder(LATENTS, DATA, width=WIDTH, depth=2, key=KEY)
    y = np.asarray(jax.random.normal(jax.random.key(1), (6, DATA)))
    rule = mupc.MonteCarloPredictiveCoding(
        burn_in=5, samples=2, likelihood=mupc.Gaussian(PRECISION), hidden_precision=HIDDEN
    )
    plain = mupc.PredictiveCoding(
        mupc.InErrors(mupc.LBFGS(8)), 100, mupc.Gaussian(PRECISION), hidden_precision=HIDDEN
    )
    seen, wanted = (mupc.recall(network, y, rule=r) for r in (rule, plain))
    np.testing.assert_allclose(seen.latents, wanted.latents, atol=2e-3)
    np.testing.assert_allclose(rule.predict(network, y), wanted.generated, atol=2e-3)
    assert rule.exact(network).samples == 20
    assert rule.exact(mupc.residual_mlp(2, 2, width=4, depth=1, key=KEY)) is None


@pytest.mark.full
def test_the_command_samples_latent_variables(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = (
        "--network decoder --rule monte-carlo --latents 8 --width 32 --batch-size 50 --epochs 6 "
        "--max-steps 20 --samples 4"
    )
    assert main(["train", *words.split(), "--report-every", "0", "--out", out]) == 0
    said = capsys.readouterr().out
    error = float(said.split("test mean squared error ")[1].split(",")[0])
    pixels = mupc.data.load("digits", scale="unit").flattened().test.x
    assert error < 0.6 * np.mean((pixels - pixels.mean(axis=0)) ** 2)
    config = Configuration().changed({"rule": "monte-carlo", "network": "decoder"})
    flat = config.flat()
    assert (flat["solver"], flat["coordinates"], flat["hidden_precision"]) == (
        *("langevin", "errors"),
        10_000.0,
    )
    with pytest.raises(ConfigError, match="monte-carlo samples, and solver l-bfgs does not"):
        Configuration().changed({"rule": "monte-carlo", "network": "decoder", "solver": "l-bfgs"})


def test_another_rule_keeps_to_what_the_network_brings():
    """Also where the network was chosen before it: hidden noise would explain all at 1."""
    before = Configuration().changed({"network": "decoder", "latents": 8})
    flat = before.changed({"rule": "monte-carlo"}).flat()
    assert (flat["precision"], flat["hidden_precision"], flat["solver"]) == (
        *(10.0, 10_000.0),
        "langevin",
    )
    back = before.changed({"rule": "monte-carlo"}).changed({"rule": "predictive-coding"}).flat()
    assert back == before.flat()
    other = Configuration().changed({"rule": "monte-carlo"}).changed({"network": "decoder"}).flat()
    assert (other["precision"], other["hidden_precision"]) == (10.0, 10_000.0)
    own = {"network": "decoder", "dataset": "/a.npz", "scale": "standardise"}
    moved = Configuration().changed(own).changed({"dataset": "/b.npz"}).flat()
    assert (moved["scale"], moved["path"]) == ("standardise", "/b.npz")
    text = {"network": "transformer", "dataset": "text", "path": __file__}
    assert Configuration().changed(text).changed({"rule": "backpropagation"}).flat()[
        "likelihood"
    ] == ("categorical")
