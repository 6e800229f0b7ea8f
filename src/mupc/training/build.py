"""From a resolved configuration to the objects it names."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from mupc import parameterisations
from mupc.hyperparameters import traced
from mupc.inference import (
    LBFGS,
    FeedforwardStart,
    FixedSteps,
    GaussNewton,
    GradientDescent,
    GradientFlow,
    InErrors,
    LinearSolve,
    NormalStart,
    Optax,
    Solver,
    StableStep,
    Start,
    Stopping,
    Tolerance,
    ZeroStart,
)
from mupc.learning import Backpropagation, LearningRule, PredictiveCoding
from mupc.likelihoods import Categorical, Gaussian, Likelihood
from mupc.networks import Chain, identity, rate_factors, residual_mlp, scale_by
from mupc.parameterisations import Scale
from mupc.regularisers import ActivityDecay, Regulariser, SpectralPenalty, WeightDecay
from mupc.training.config import ConfigError, TrainConfig, of_fixed_steps

T = TypeVar("T")

_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jax.numpy.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "linear": identity,
}


def _given(value: T | None) -> T:
    """Give the value of a field that applies: `resolve` has filled it in."""
    if value is None:
        raise ConfigError(
            "the configuration has not been resolved: call mupc.training.resolution.resolve"
        )
    return value


OF_THE_NETWORK = (
    "depth",
    "width",
    "activation",
    "skips",
    "biases",
    "parameterisation",
    "gamma",
    "initialisation",
)
"""The fields of a configuration that a network is built from."""


def draw_network(config: TrainConfig, inputs: int, outputs: int, key: PRNGKeyArray) -> Chain:
    """Build the network as one program: operation by operation it takes a second longer.

    Configurations of one network share the program, whatever else they say.
    """
    own = {name: getattr(config, name) for name in OF_THE_NETWORK}
    return _draw(TrainConfig(**own), inputs, outputs, key)


@eqx.filter_jit
def _draw(config: TrainConfig, inputs: int, outputs: int, key: PRNGKeyArray) -> Chain:
    return build_network(config, inputs, outputs, key)


def build_network(config: TrainConfig, inputs: int, outputs: int, key: PRNGKeyArray) -> Chain:
    """Build the network."""
    make = getattr(parameterisations, config.parameterisation)
    initialise = getattr(parameterisations, config.initialisation)
    gamma = {} if config.gamma is None else {"gamma": config.gamma}
    return residual_mlp(
        inputs,
        outputs,
        width=config.width,
        depth=config.depth,
        activation=_ACTIVATIONS[config.activation],
        skips=config.skips,
        biases=config.biases,
        parameterisation=make(**gamma, initialise=initialise),
        key=key,
    )


def shapes_of(config: TrainConfig, inputs: int, outputs: int) -> Chain:
    """Give the network without its arrays: their shapes are in their place."""
    return eqx.filter_eval_shape(build_network, config, inputs, outputs, jax.random.key(0))


def build_likelihood(config: TrainConfig, precision: ArrayLike = 1.0) -> Likelihood:
    """Build the output's energy."""
    return {"gaussian": Gaussian, "categorical": Categorical}[config.likelihood](precision)


def build_regularisers(config: TrainConfig) -> tuple[Regulariser, ...]:
    """Build the regularisers whose strength is not zero."""
    chosen = [
        (WeightDecay, config.weight_decay, config.weight_decay_roles),
        (ActivityDecay, config.activity_decay, config.activity_decay_roles),
        (SpectralPenalty, config.spectral_penalty, config.spectral_penalty_roles),
    ]
    return tuple(make(strength, _given(roles)) for make, strength, roles in chosen if strength)


def build_solver(config: TrainConfig) -> Solver:
    """Build the method of inference."""
    solver = _SOLVERS[_given(config.solver)](config)
    return InErrors(solver) if config.coordinates == "errors" else solver


def _gradient_descent(config: TrainConfig) -> Solver:
    step_size = StableStep() if config.step_size == "stable" else _given(config.step_size)
    return GradientDescent(step_size, config.momentum)


_SOLVERS: dict[str, Callable[[TrainConfig], Solver]] = {
    "gauss-newton": lambda config: GaussNewton(_given(config.cg_steps)),
    "l-bfgs": lambda config: LBFGS(_given(config.history)),
    "gradient-descent": _gradient_descent,
    "adam": lambda config: Optax(traced(optax.adam, learning_rate=config.step_size)),
    "gradient-flow": lambda config: GradientFlow(),
    "linear-solve": lambda config: LinearSolve(),
}


def build_start(config: TrainConfig) -> Start:
    """Build the start of inference."""
    if config.start == "normal":
        return NormalStart(_given(config.start_std))
    return {"feedforward": FeedforwardStart, "zeros": ZeroStart}[config.start or "feedforward"]()


def build_stopping(config: TrainConfig) -> Stopping:
    """Build what says when inference is done."""
    if of_fixed_steps(config):
        return FixedSteps()
    return Tolerance(_given(config.rtol), _given(config.atol), _given(config.patience))


def build_rule(config: TrainConfig) -> LearningRule:
    """Build the learning rule."""
    likelihood = build_likelihood(config, 1.0 if config.precision is None else config.precision)
    regularisers = build_regularisers(config)
    if config.rule == "backpropagation":
        return Backpropagation(likelihood, regularisers)
    return PredictiveCoding(
        solver=build_solver(config),
        max_steps=_given(config.max_steps),
        likelihood=likelihood,
        rho=config.rho,
        hold=bool(config.hold_regime),
        regularisers=regularisers,
        stopping=build_stopping(config),
        start=build_start(config),
    )


def build_optimiser(
    config: TrainConfig, network: Chain, steps: int
) -> optax.GradientTransformation:
    """Build the optimiser, its schedule over `steps` and its learning-rate rule."""
    numbers: dict[str, Any] = {"learning_rate": config.learning_rate}
    optional = {"eps": config.eps, "weight_decay": config.adamw_decay}
    numbers |= {name: value for name, value in optional.items() if value is not None}
    if config.sgd_momentum is not None:
        numbers["momentum"] = config.sgd_momentum
    if config.learning_rate_rule != "raw":
        numbers["factors"] = rate_factors(network, _chooser(config))
    if config.schedule == "cosine":
        numbers["cosine"] = {"warmup": config.warmup or 0, "steps": steps}
    return traced(_factory(config.optimiser), **numbers)


def _chooser(config: TrainConfig) -> Callable[[Scale], float]:
    if config.learning_rate_rule == "uniform":
        return lambda scale: scale.uniform
    return (lambda scale: scale.sgd) if config.optimiser == "sgd" else (lambda scale: scale.adam)


@functools.cache
def _factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """Give the same function for the same structure, so that its numbers share a compilation."""
    optimiser = {"adam": optax.adam, "adamw": optax.adamw, "sgd": optax.sgd}[name]

    def make(
        learning_rate: Any, factors: Any = None, cosine: Any = None, **numbers: Any
    ) -> optax.GradientTransformation:
        rate = learning_rate
        if cosine is not None:
            rate = lambda count: learning_rate * warmup_cosine(count, **cosine)  # noqa: E731
        base = optimiser(rate, **numbers)
        return base if factors is None else optax.chain(base, scale_by(factors))

    return make


def warmup_cosine(count: ArrayLike, warmup: ArrayLike, steps: ArrayLike) -> Array:
    """Rise linearly over `warmup` steps, and fall to zero until there have been `steps`.

    It is `optax.warmup_cosine_decay_schedule`, which takes no traced lengths.
    """
    fall = optax.cosine_decay_schedule(1.0, 1)
    count, warmup, steps = (jnp.asarray(number) for number in (count, warmup, steps))
    rise = count / jnp.maximum(warmup, 1)
    return jnp.where(count < warmup, rise, fall((count - warmup) / (steps - warmup)))
