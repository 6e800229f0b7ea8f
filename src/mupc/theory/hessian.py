"""The activity Hessian of any network: as an operator, and its extreme eigenvalues and spectrum."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from mupc.energies import Energy, FreeEnergy
from mupc.networks import Activities
from mupc.theory.lanczos import lanczos

# Preconditioned by the exact inverse of all but the network's own curvature, conjugate gradients
# take a handful of steps.
_CG_STEPS = 60

# Samples that share every pass over the weights; each keeps all of its Lanczos vectors.
_AT_ONCE = 4

# Eigenvalues of the inverse lie far apart: at 128 layers of width 128, twenty steps find the
# largest to ten digits.
_INVERSE_STEPS = 30

Operator = Callable[[Float[Array, " n"]], Float[Array, " n"]]


class Extremes(NamedTuple):
    """The extreme eigenvalues of each sample's activity Hessian, all (batch,).

    Attributes:
        smallest: the smallest one; below zero where the energy has negative curvature.
        largest: the largest one.
        bounds: within this distance of either figure there is an eigenvalue: the larger of the two
            ‖Av − λv‖, ‖v‖ = 1.
    """

    smallest: Float[Array, " batch"]
    largest: Float[Array, " batch"]
    bounds: Float[Array, " batch"]

    @property
    def condition_number(self) -> Float[Array, " batch"]:
        """Largest over smallest; nan where the Hessian is not positive definite."""
        return jnp.where(self.smallest > 0, self.largest / self.smallest, jnp.nan)


class Spectrum(NamedTuple):
    """A density of eigenvalues, as weighted points; the weights sum to 1."""

    eigenvalues: Float[Array, " points"]
    weights: Float[Array, " points"]


def activity_hessian(energy: Energy, activities: Activities) -> Callable[[Activities], Activities]:
    """Return the Hessian of the energy by the activities as an operator, for any network.

    It is symmetric, and block diagonal over samples: samples do not interact. A product costs
    about three sweeps. Linear networks have it in closed form too, `linear_hessian`.

    Args:
        energy: of a batch.
        activities: where to differentiate.
    """
    if energy.bounded:
        raise ValueError("activities on a box have no Hessian where they are on its border")
    return jax.linearize(lambda z: energy.samples_and_gradient(z)[1], activities)[1]


@eqx.filter_jit
def extreme_eigenvalues(
    energy: FreeEnergy, activities: Activities, *, steps: int = 200
) -> Extremes:
    r"""Find the extreme eigenvalues of each sample's activity Hessian A, by Lanczos iteration.

    The largest is found from A itself. The smallest lies where eigenvalues crowd (A is a chain
    along depth, so that they fall as $1/H^2$), and is found from $A^{-1}$ instead, where they lie
    far apart: A is the congruence $A = G^{-\top} E\, G^{-1}$ of the Hessian E in errors, by
    $G = \partial z / \partial e$, a sweep; and E is the identity and $J^\top B B^\top J$, of the
    rank of the output, and the network's own curvature, which conjugate gradients put right.
    Negative curvature is looked for in both. (An activity decay conjugate gradients must put right
    too: in deep networks it may take more steps than they are given, which `bounds` tell.)

    Args:
        energy: of a batch.
        activities: where to look.
        steps: of Lanczos iteration for the largest eigenvalue, at the edge of a crowd too; all of
            its vectors are kept.
    """
    indices = jnp.arange(activities[0].shape[1])
    one = lambda i: _extremes(*_sample(energy, activities, i), steps)  # noqa: E731
    return jax.lax.map(one, indices, batch_size=_AT_ONCE)


@eqx.filter_jit
def largest_eigenvalues(
    energy: Energy, activities: Activities, *, steps: int = 200
) -> Float[Array, " batch"]:
    """Find the largest eigenvalue of each sample's activity Hessian alone, by Lanczos iteration."""

    def one(i: Array) -> Array:
        operator, _, size = _flat(*_sample(energy, activities, i))
        start = jax.random.normal(jax.random.key(0), (size,))
        return jnp.linalg.eigvalsh(lanczos(operator, start, min(steps, size)).matrix())[-1]

    return jax.lax.map(one, jnp.arange(activities[0].shape[1]), batch_size=_AT_ONCE)


@eqx.filter_jit
def spectrum(
    energy: Energy, activities: Activities, *, probes: int = 4, steps: int = 60
) -> Spectrum:
    """Estimate the density of a batch's activity Hessians, by stochastic Lanczos quadrature.

    From a random start, the Ritz values of Lanczos iteration, each with the squared first entry
    of its vector, are a Gauss quadrature of the density seen from that start (Ubaru, Chen, Saad,
    SIAM J. Matrix Anal. Appl. 38, 2017). Probes and samples are averaged over.

    Args:
        energy: of a batch.
        activities: where to look.
        probes: random starts per sample.
        steps: of Lanczos iteration.
    """
    keys = jax.random.split(jax.random.key(0), probes)

    def probe(at: tuple[Array, Array]) -> tuple[Array, Array]:
        i, key = at
        one, z = _sample(energy, activities, i)
        operator, _, size = _flat(one, z)
        krylov = lanczos(operator, jax.random.normal(key, (size,)), min(steps, size))
        values, vectors = jnp.linalg.eigh(krylov.matrix())
        return values, vectors[0] ** 2

    samples = activities[0].shape[1]
    pairs = (jnp.repeat(jnp.arange(samples), probes), jnp.tile(keys, samples))
    values, weights = jax.lax.map(probe, pairs)
    return Spectrum(values.ravel(), weights.ravel() / len(values))


def _sample(energy: Any, activities: Activities, i: Array) -> tuple[Any, tuple[Array, ...]]:
    return energy.of_sample(i), jax.tree.map(lambda z: z[:, i][:, None], activities)


def _flat(energy: Energy, z: Activities) -> tuple[Operator, Callable[[Array], Activities], int]:
    """Return the Hessian of one sample on flat vectors, how to shape them, and their length."""
    hessian = activity_hessian(energy, z)
    flat, shaped = ravel_pytree(z)
    return lambda v: ravel_pytree(hessian(shaped(v)))[0], shaped, flat.size


def _extremes(energy: FreeEnergy, z: Activities, steps: int) -> Extremes:
    operator, shaped, size = _flat(energy, z)
    steps = min(steps, size)
    start = jax.random.normal(jax.random.key(0), (size,))
    direct = lanczos(operator, start, steps)
    values, vectors = jnp.linalg.eigh(direct.matrix())
    # Where A itself shows negative curvature, what is inverted lies above a point below it.
    error = jnp.abs(direct.last * vectors[-1, 0])
    shift = jnp.where(values[0] < 0, values[0] - 2 * error, 0.0)
    shifted = lambda v: operator(v) - shift * v  # noqa: E731
    few = min(_INVERSE_STEPS, steps)
    inverse = lanczos(_inverse(energy, z, shifted, shaped), start, few)
    _, turned = jnp.linalg.eigh(inverse.matrix())
    found = jnp.stack(
        [
            vectors[:, -1] @ direct.basis,
            vectors[:, 0] @ direct.basis,
            turned[:, -1] @ inverse.basis,
            turned[:, 0] @ inverse.basis,
        ]
    )
    values, bounds = jax.lax.map(lambda v: _rayleigh(operator, v), found)
    # None lies below the smallest eigenvalue: they are means of eigenvalues.
    best = jnp.argmin(values)
    largest = jnp.argmax(jnp.where(jnp.isinf(values), -jnp.inf, values))
    return Extremes(values[best], values[largest], jnp.maximum(bounds[best], bounds[largest]))


def _rayleigh(operator: Operator, v: Float[Array, " n"]) -> tuple[Array, Array]:
    """Return the Rayleigh quotient of a vector, and how far it is from an eigenvector."""
    norm = jnp.linalg.norm(v)
    v = v / norm
    product = operator(v)
    value = v @ product
    # Of a space that was exhausted early some directions are empty.
    there = norm > 0.5
    return jnp.where(there, value, jnp.inf), jnp.linalg.norm(product - value * v)


def _inverse(
    energy: FreeEnergy, z: Activities, operator: Operator, shaped: Callable[[Array], Activities]
) -> Operator:
    r"""Invert A, or A shifted, by conjugate gradients preconditioned by its Gauss–Newton part.

    $$G (I + C^\top S C)^{-1} G^\top, \quad C = B^\top J, \quad
      (I + C^\top S C)^{-1} = I - C^\top (S + C C^\top)^{-1} C$$

    S has the sign of every sample's precision.
    """
    energy = dataclasses.replace(energy, regularisers=())  # conjugate gradients put them right
    point = energy.at(z)
    maps, output = energy.gauss_newton(point), energy.output(point)
    # In whitened errors the Gauss–Newton part is the identity and CᵀC.
    _, moved = jax.linearize(lambda e: energy.run(e).activities, point.errors)
    push = lambda d: moved(maps.whiten(d))  # noqa: E731
    pull, down = jax.linear_transpose(push, z), maps.down
    units = jnp.eye(output.size).reshape(output.size, *output.shape)
    C = jax.lax.map(lambda unit: ravel_pytree(down(unit))[0], units)
    signs = jnp.repeat(maps.sign, output[0].size)
    inner = jax.scipy.linalg.lu_factor(jnp.diag(signs) + C @ C.T)

    def precondition(v: Float[Array, " n"]) -> Float[Array, " n"]:
        errors = ravel_pytree(pull(shaped(v))[0])[0]
        errors = errors - jax.scipy.linalg.lu_solve(inner, C @ errors) @ C
        return ravel_pytree(push(shaped(errors)))[0]

    # Errors of eigenvalues are of the order of the square.
    tolerance = float(jnp.finfo(C.dtype).eps) ** 0.5
    return lambda v: cg(operator, v, M=precondition, tol=tolerance, maxiter=_CG_STEPS)[0]
