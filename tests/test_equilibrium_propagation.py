"""Equilibrium propagation: energies, the order of the bias, and what its increments are."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import step_equations
from reference import Reference, batch

import mupc
from mupc.commands.main import main
from mupc.energies import ErrorView, HopfieldEnergy
from mupc.learning import first_gradients
from mupc.parameterisations import Law
from mupc.records import NUDGE_OVER_RESIDUAL
from mupc.settings import ConfigError, Configuration
from mupc.theory import yardstick
from mupc.training.report import Model, regime_report

KEY = jax.random.key(0)


def hopfield(width=8, depth=5, **more):
    network = mupc.residual_hopfield(6, 3, width=width, depth=depth, key=KEY, **more)
    return network, *map(jnp.asarray, batch(6, 3, 4))


def dense():
    network = mupc.residual_mlp(6, 3, width=5, depth=4, activation=jnp.tanh, key=KEY)
    return network, *map(jnp.asarray, batch(6, 3, 4))


def convolutional():
    network = mupc.conv_resnet(
        (6, 6, 2), 3, blocks=(1, 1), channels=3, activation=jnp.tanh, key=KEY
    )
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2))
    return network, jnp.asarray(x), jnp.asarray(batch(6, 3, 4)[1])


def layered(layers="2p d4"):
    """Convolution, pooling, and states of the output that settle with the others."""
    network = mupc.layered_hopfield(
        (6, 6, 2), 3, layers=layers, activation=jnp.tanh, pool="average", key=KEY
    )
    _, x, y = convolutional()
    return network, x, y


def states_of(network, x, seed=3):
    shapes = network.feedforward(x).activities
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return tuple(jax.random.normal(k, z.shape, z.dtype) for k, z in zip(keys, shapes, strict=True))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("skips", [True, False])
def test_the_energy_and_its_gradients_are_those_of_a_loop_over_layers(skips):
    """E = Σ ½‖s_l − s_{l−1}‖² − ⟨φ(s_l), a W_l φ(s_{l−1})⟩ + f ℓ, and its derivatives by hand."""
    network, x, y = hopfield(skips=skips)
    factors = np.array([0.3, -0.3, 0.0, 2.0])
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian(0.8), factors=factors)
    point = energy.at(states_of(network, x))
    s = np.asarray(network.in_order(point.activities))
    *weights, readout = Reference(network.chain, "tanh").weights
    zero, phi, slope = np.zeros_like(s[0]), np.tanh, lambda s: 1 - np.tanh(s) ** 2
    above, forces = [*s[1:], zero], []
    parts = [np.sum(0.5 * s[0] ** 2 - s[0] * (x @ weights[0].T), axis=-1)]
    for i, w in enumerate(weights):
        below = s[i - 1] if skips and i else zero
        drive = phi(s[i - 1]) @ w.T if i else x @ w.T
        if i:
            quadratic = 0.5 * np.sum((s[i] - below) ** 2, axis=-1)
            parts.append(quadratic - np.sum(phi(s[i]) * drive, axis=-1))
        force = s[i] - below - (slope(s[i]) * drive if i else drive)
        if i + 1 < len(weights):
            force -= slope(s[i]) * (phi(above[i]) @ weights[i + 1])
            force -= (above[i] - s[i]) if skips else 0
        forces.append(force)
    output = phi(s[-1]) @ readout.T
    parts.append(0.8 * factors * 0.5 * np.sum((y - output) ** 2, axis=-1))
    forces[-1] -= 0.8 * factors[:, None] * ((y - output) @ readout) * slope(s[-1])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    close(energy.layers(point), np.stack(parts))
    close(network.in_order(energy.activity_gradient(point)), np.stack(forces))
    summed = np.cumsum(np.stack(forces)[::-1], axis=0)[::-1] if skips else np.stack(forces)
    close(network.in_order(energy.error_gradient(point)), summed)
    viewed = ErrorView(energy).samples_and_gradient(point.errors)
    close(viewed[0], energy.samples(point))
    close(network.in_order(viewed[1]), summed)
    jax.tree.map(close, energy.run(point.errors).activities, point.activities)
    gradient = energy.weight_gradient(point).chain.stages[0].blocks[0].weights
    a = weights[1][0, 0] / network.chain.stages[0].blocks[0].weights[0, 0, 0]
    for i in range(1, len(weights)):
        close(gradient[i - 1], -a * phi(s[i]).T @ phi(s[i - 1]) / len(x))


@pytest.mark.usefixtures("float64")
def test_a_layered_energy_is_that_of_loops_over_pixels():
    """E = Σ ½‖s_l‖² − ⟨φ(s_l), P(W_l * φ(s_{l−1})) + c_l⟩, the output a state of its own."""
    network, x, y = layered()
    biased = lambda node: node + 0.1 if node.ndim == 1 else node
    network = jax.tree.map(lambda v: biased(v) if eqx.is_array(v) else v, network)
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian(0.8))
    point = energy.at(states_of(network, x))
    pixels, dense, output = (np.asarray(bank[0]) for bank in point.activities)
    first, second, third = (stage.entry for stage in network.chain.stages)
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    drive = np.zeros((4, 3, 3, 2))
    for i, j, a, b in itertools.product(range(6), range(6), range(3), range(3)):
        seen = padded[:, i + a, j + b] @ np.asarray(first.kernel)[a, b]
        drive[:, i // 2, j // 2] += first.multipliers[0] * seen / 4
    drive += np.asarray(first.biases)
    phi = np.tanh
    fed = [drive, *(
        block.multipliers[0] * phi(below).reshape(4, -1) @ np.asarray(block.weights).T
        + np.asarray(block.biases)
        for block, below in ((second, pixels), (third, dense))
    )]  # fmt: skip
    total = lambda v: np.sum(v, axis=tuple(range(1, v.ndim)))
    states = (pixels, phi(dense), output)
    expected = [
        0.5 * total(s**2) - total(seen * d)
        for s, seen, d in zip((pixels, dense, output), states, fed, strict=True)
    ]
    expected.append(0.8 * 0.5 * total((np.asarray(y) - output) ** 2))
    np.testing.assert_allclose(energy.layers(point), expected, rtol=1e-10)


def test_layers_that_cannot_be_coupled_are_named():
    for layers, shape, sentence in [
        ("x3", (6, 6, 2), "not x3"),
        ("", (6, 6, 2), "at least one layer, such as d128"),
        ("d4 2p", (6, 6, 2), "come after all convolutions: 2p reads pixels"),
        ("2p 2p 2p", (6, 6, 2), "images of 6 × 6 pixels are too small for 3 layers"),
        ("2p", (6,), "convolutions take images"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            mupc.layered_hopfield(shape, 3, layers=layers, key=KEY)


def flat(tree):
    return jnp.concatenate([v.ravel() for v in jax.tree.leaves(tree)])


@eqx.filter_jit
def implicit(network, x, y):
    """The gradient of the cost at the free equilibrium, by a dense solve with the Hessian."""
    free = HopfieldEnergy(network, x, y, mupc.Gaussian(), factors=jnp.zeros(len(x)))
    start = free.run()
    settled = mupc.infer(free, mupc.InErrors(mupc.LBFGS()), start, max_steps=400,
                         stopping=mupc.Tolerance(1e-13, patience=50)).point.activities  # fmt: skip
    flat_states, unflatten = jax.flatten_util.ravel_pytree(settled)

    def force(network, s):
        energy = free.with_parameters(network)
        return jax.grad(lambda s: jnp.sum(energy.samples(energy.at(unflatten(s)))))(s)

    def cost(network, s):
        return jnp.mean(0.5 * jnp.sum((y - network.output(unflatten(s))) ** 2, axis=-1))

    hessian = jax.jacobian(lambda s: force(network, s))(flat_states)
    direct, by_states = eqx.filter_grad(lambda both: cost(*both))((network, flat_states))
    adjoint = jnp.linalg.solve(hessian, by_states)
    through = eqx.filter_grad(lambda n: -jnp.vdot(adjoint, force(n, flat_states)))(network)
    return flat(direct) + flat(through), network.output(settled)


def exactly(network, *batch):
    if isinstance(network, mupc.Hopfield):
        return implicit(network, *batch)[0]
    return flat(first_gradients(mupc.Backpropagation(), network, batch, None, KEY)[0])


def rule_of(phases, beta, **more):
    options = {"max_steps": 400, "nudged_steps": 400, **more}
    return mupc.EquilibriumPropagation(
        beta=beta, phases=phases, stopping=mupc.Tolerance(1e-12, patience=50), **options
    )


ORDERS = {
    "one-sided": (0.85, 1.15),
    "centred": (1.8, 2.2),
    "random-sign": (1.8, 2.2),
    "fourth-order": (3.8, 4.2),
}


@pytest.mark.few(4)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("problem", [dense, convolutional, hopfield, layered])
@pytest.mark.parametrize("phases", ORDERS)
def test_the_bias_is_of_the_order_that_phases_promise(problem, phases):
    network, x, y = problem()
    data = x, y
    wanted = exactly(network, *data)
    betas = np.array([0.05, 0.02, 0.008])
    key = jax.random.key(1)

    def biased(beta):
        rule = rule_of(phases, beta)
        if phases != "random-sign":
            return jnp.linalg.norm(
                flat(first_gradients(rule, network, data, None, key)[0]) - wanted
            )
        # In expectation: the mean of a key that begins with 1, and of one that begins with −1.
        both = [flat(first_gradients(rule, network, data, None, k)[0]) for k in _either_sign(rule)]
        return jnp.linalg.norm((both[0] + both[1]) / 2 - wanted)

    order = np.polyfit(np.log(betas), np.log([biased(beta) for beta in betas]), 1)[0]
    low, high = ORDERS[phases]
    assert low < order < high


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("problem", [dense, convolutional, hopfield, layered])
def test_what_it_is_compared_with_is_the_exact_gradient(problem):
    """By conjugate gradients and one derivative along them, against a dense solve."""
    network, x, y = problem()
    data = x, y
    decay = mupc.WeightDecay(0.1)
    ours = yardstick(rule_of("centred", None, rho=0.2, regularisers=[decay]), network)
    gradient = flat(first_gradients(ours, network, data, None, KEY)[0])
    wanted = exactly(network, *data) + 0.1 * flat(network)
    assert jnp.linalg.norm(gradient - wanted) < 1e-5 * jnp.linalg.norm(wanted)


@pytest.mark.usefixtures("float64")
def test_a_report_compares_with_it():
    network, x, y = hopfield()
    data = x, y
    rule = rule_of("centred", 1e-3)
    report = regime_report(Model(network, network, rule, None), data, KEY, step=0, seconds=0.0)
    assert min(report.cosine) > 1 - 1e-6
    np.testing.assert_allclose(report.ratio, 1, atol=1e-3)


def _either_sign(rule):
    """Keys with which the first sample is nudged to its target, and away from it."""
    found = {}
    for seed in range(20):
        key = jax.random.key(seed)
        signs_key = jax.random.split(jax.random.split(key)[1], 3)[2]
        found.setdefault(float(rule._signs(4, signs_key)[0]), key)
    return found[1.0], found[-1.0]


@pytest.mark.usefixtures("float64")
def test_one_sided_with_the_readout_inside_is_predictive_coding_over_beta():
    """A free output with unit precision, nudged by β: π = β/(1 + β)."""
    network, x, y = dense()
    data = x, y

    class Output(mupc.Block):
        linear = True

        def __call__(self, z):
            return z

    inside = mupc.Chain((*network.stages, mupc.Stage(network.readout)), Output())
    for beta in (0.1, 0.7):
        rule = rule_of("one-sided", beta)
        got, _ = first_gradients(rule, inside, data, None, KEY)
        coding = mupc.PredictiveCoding(
            mupc.InErrors(mupc.LBFGS()), 400, mupc.Gaussian(beta / (1 + beta)),
            stopping=mupc.Tolerance(1e-12, patience=50),
        )  # fmt: skip
        wanted, _ = first_gradients(coding, network, data, None, KEY)
        np.testing.assert_allclose(flat(got), flat(wanted) / beta, atol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("skips", [True, False])
def test_nudged_increments_are_truncated_backpropagation_through_time(skips):
    """From the free equilibrium, t nudged steps give the gradient through the last t steps."""
    network, x, y = hopfield(width=4, depth=3, skips=skips)
    step_size, beta = 0.2, 1e-5
    solver = mupc.GradientDescent(step_size)
    free = HopfieldEnergy(network, x, y, mupc.Gaussian(), factors=jnp.zeros(len(x)))
    settled = mupc.infer(free, solver, free.run(), max_steps=4000, stopping=mupc.FixedSteps())

    def unrolled(network, steps):
        energy, s = free.with_parameters(network), settled.point.activities
        for _ in range(steps):
            slopes = energy.samples_and_gradient(s)[1]
            s = jax.tree.map(lambda z, g: z - step_size * g, s, slopes)
        return jnp.mean(0.5 * jnp.sum((y - network.output(s)) ** 2, axis=-1))

    for steps in (1, 2, 5, 12):
        rule = mupc.EquilibriumPropagation(
            solver, 4000, beta=beta, nudged_steps=steps, stopping=mupc.FixedSteps()
        )
        got, _ = first_gradients(rule, network, (x, y), None, KEY)
        wanted = eqx.filter_grad(unrolled)(network, steps)
        np.testing.assert_allclose(flat(got), flat(wanted), atol=1e-8)
    # And they are not the same at every length.
    assert jnp.linalg.norm(flat(wanted) - flat(eqx.filter_grad(unrolled)(network, 1))) > 1e-4


@pytest.mark.usefixtures("float64")
def test_rho_gives_every_sample_a_nudge_of_its_own():
    """β_i = ρ / max(λ_i, λ̄), λ_i = ‖∂C/∂e‖² / ‖∂C/∂ŷ‖² by dense Jacobians in increments."""
    network, x, y = hopfield(width=4, depth=3)
    rule = mupc.EquilibriumPropagation(rho=0.2, likelihood=mupc.Gaussian(0.5))
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian(0.5))
    point = energy.at(states_of(network, x))
    flat_increments, unflatten = jax.flatten_util.ravel_pytree(point.errors)
    run = lambda e: network.output(network.states(unflatten(e)))
    J, g = jax.jacobian(run)(flat_increments), np.asarray(run(flat_increments) - y)
    pulled = [np.sum(np.asarray(g[i] @ J[i]) ** 2) for i in range(4)]
    each = np.array([p / np.sum(g[i] ** 2) for i, p in enumerate(pulled)])
    mean = np.sum(each * pulled) / np.sum(pulled)
    expected = 0.2 / 0.5 / np.maximum(each, mean)
    np.testing.assert_allclose(rule._strength(energy, point), expected, rtol=1e-10)


def test_a_residual_that_rounding_hides_is_no_noise():
    """A layer below the output settles exactly: what is left is zero, in some samples."""
    network = mupc.layered_hopfield((6,), 3, layers="d4", key=KEY)
    x, y = map(jnp.asarray, batch(6, 3, 4))
    rule = mupc.EquilibriumPropagation(mupc.FixedPoint(), 200, beta=0.1)
    seen = rule.diagnostics(network, (x, y), None, KEY)[NUDGE_OVER_RESIDUAL]
    assert 1e4 < seen < 2 / jnp.finfo(jnp.float32).eps


@pytest.mark.usefixtures("float64")
def test_it_predicts_by_settling_and_its_terms_on_weights_count_once():
    network, x, y = hopfield()
    rule = rule_of("centred", 0.1)
    np.testing.assert_allclose(rule.predict(network, x), implicit(network, x, y)[1], atol=1e-9)
    # The network's own relaxation ends there too, by another method.
    longer = dataclasses.replace(network, steps=300)
    np.testing.assert_allclose(longer.feedforward(x).output, rule.predict(network, x), atol=1e-9)
    plain, _ = first_gradients(rule, network, (x, y), None, KEY)
    decayed = rule_of("centred", 0.1, regularisers=[mupc.WeightDecay(0.3)])
    more, _ = first_gradients(decayed, network, (x, y), None, KEY)
    np.testing.assert_allclose(flat(more), flat(plain) + 0.3 * flat(network), atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_a_sample_settles_alone_as_in_its_batch():
    network, x, y = hopfield()
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian(), factors=jnp.array([0.1, -0.1, 0, 1.0]))
    whole = mupc.infer(energy, mupc.InErrors(mupc.LBFGS(2)), energy.run(), max_steps=7)
    for i in range(4):
        one = energy.of_sample(i)
        alone = mupc.infer(one, mupc.InErrors(mupc.LBFGS(2)), one.run(), max_steps=7)
        for a, b in zip(alone.point.activities, whole.point.activities, strict=True):
            np.testing.assert_allclose(a[:, 0], b[:, i], atol=1e-11)


def test_a_step_has_as_many_equations_at_any_depth():
    """But for the sums along depth, which take a logarithm of the depth of passes."""
    make = lambda depth: mupc.residual_hopfield(6, 3, width=3, depth=depth, key=KEY)
    rule = mupc.EquilibriumPropagation()
    x, y = map(jnp.asarray, batch(6, 3, 4))
    few, many = (len(step_equations(rule, make(depth), (x, y))) for depth in (8, 512))
    assert many < 2 * few


def scales_of(width, depth, exponent=-1.5):
    laws = dataclasses.replace(mupc.hopfield(), depth=Law(depth=exponent))
    network = mupc.residual_hopfield(
        64, 10, width=width, depth=depth, parameterisation=laws, key=KEY
    )
    x = jax.random.normal(jax.random.key(1), (16, 64))
    states = eqx.filter_jit(lambda n: n.feedforward(x).activities)(network)
    return np.asarray(jnp.sqrt(jnp.mean(network.in_order(states) ** 2, axis=(1, 2))))


@pytest.mark.few(4)
@pytest.mark.parametrize("depth", [8, 128])
@pytest.mark.parametrize("width", [64, 256, 128, 512])
def test_states_have_one_size_at_any_width_and_depth(width, depth):
    scales = scales_of(width, depth)
    assert np.min(scales) > 0.9
    assert np.max(scales) < 1.2


@pytest.mark.parametrize("exponent", [-0.5, -1.0])
def test_with_other_exponents_of_depth_they_have_not(exponent):
    scales = scales_of(64, 128, exponent)
    assert np.max(scales) > 2


def test_rate_factors_scale_as_those_of_a_feedforward_network():
    ours = mupc.hopfield().scale("hidden", mupc.Shape(64, 1025), skip=True)
    theirs = mupc.mupc().scale("hidden", mupc.Shape(64, 1025), skip=True)
    assert (ours.adam, ours.uniform) == (theirs.adam, theirs.uniform / 4)


@pytest.mark.parametrize("role", ["input", "readout"])
def test_rate_factors_of_the_ends_do_not_depend_on_depth(role):
    rates = [mupc.hopfield().scale(role, mupc.Shape(128, n)).uniform for n in (3, 9, 129, 1025)]
    assert rates == [4.0] * 4
    assert mupc.hopfield().scale(role, mupc.Shape(512, 129)).uniform == 2.0


def test_the_command_trains_and_evaluates_it(tmp_path, capsys):
    out = str(tmp_path / "run")
    own = ["--network", "residual-hopfield", "--depth", "6", "--width", "16", "--steps", "60"]
    assert main(["train", *own, "--out", out, "--report-every", "0"]) == 0
    told = capsys.readouterr().out
    assert "6 layers of width 16, hopfield, equilibrium-propagation" in told
    assert main(["evaluate", out]) == 0
    accuracy = float(capsys.readouterr().out.split("accuracy ")[1].split(" %")[0])
    # By the rule's own settling, as training did, and not by the network's.
    assert f"test accuracy {accuracy:.2f} %" in told
    assert accuracy > 70


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rule": "predictive-coding"}, "makes no predictions, which rule predictive-coding needs"),
        ({"solver": "gauss-newton"}, "solver gauss-newton is for errors of predictions"),
        ({"network": "residual-mlp", "activity_decay": 0.1}, "takes no activity_decay"),
        ({"beta": -0.1}, "beta must be above 0 or rho"),
        ({"beta": 0.1, "rho": 0.2}, "rho would have no effect, since beta is given"),
        ({"beta": "big"}, "beta must be a number or rho, not big"),
        (
            {"phases": "both"},
            "phases must be one of centred, one-sided, random-sign or fourth-order",
        ),
    ],
)
def test_what_makes_no_sense_with_it_is_refused(given, sentence):
    config = {"network": "residual-hopfield", "rule": "equilibrium-propagation", **given}
    with pytest.raises(ConfigError, match=sentence):
        Configuration().changed(config)


@pytest.mark.usefixtures("unchecked")
def test_the_library_refuses_it_too():
    network, x, y = hopfield()
    predicting, *pair = dense()
    learn = lambda rule, network, data: first_gradients(
        rule, network, data, rule.init(network, KEY), KEY
    )
    with pytest.raises(TypeError, match=r"train it by mupc\.EquilibriumPropagation"):
        learn(mupc.PredictiveCoding(), network, (x, y))
    with pytest.raises(ValueError, match=r"a Hopfield energy is none: use mupc\.InErrors"):
        learn(mupc.EquilibriumPropagation(mupc.GaussNewton()), network, (x, y))
    decaying = mupc.EquilibriumPropagation(regularisers=[mupc.ActivityDecay(0.1)])
    with pytest.raises(ValueError, match="takes no activity decay"):
        learn(decaying, predicting, tuple(pair))
    with pytest.raises(ValueError, match="rho sets beta"):
        mupc.EquilibriumPropagation(beta=0.1, rho=0.1)
    with pytest.raises(ValueError, match="phases must be one of"):
        mupc.EquilibriumPropagation(phases="both")
    with pytest.raises(TypeError, match=r"a mupc\.Hopfield, e\.g\. mupc\.residual_hopfield"):
        HopfieldEnergy(predicting, x, y, mupc.Gaussian())
    with pytest.raises(ValueError, match="the skips of its layers itself"):
        mupc.Hopfield(predicting, jnp.tanh)


def test_a_report_says_when_the_nudge_is_lost_in_what_the_free_phase_left():
    """One step of the free phase is far from its end; many are not."""
    network, x, y = hopfield(width=16, depth=20)
    state = mupc.EquilibriumPropagation().init(network, KEY)

    def report(rule):
        model = Model(network, network, rule, state)
        return regime_report(model, (x, y), KEY, step=0, seconds=0.0).sentence()

    assert "are in large part noise" in report(mupc.EquilibriumPropagation(max_steps=1, rho=1e-3))
    settled = report(mupc.EquilibriumPropagation(rho=0.02, stopping=mupc.Tolerance(1e-4)))
    assert "noise" not in settled
    assert float(settled.split("cosine with the exact gradient: median ")[1][:5]) > 0.99
