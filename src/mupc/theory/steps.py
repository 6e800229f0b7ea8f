"""How large a step of gradient descent on activities may be: what theory says, and what happens."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mupc.arrays import over_samples, sample_norms
from mupc.energies import Energy
from mupc.networks import Activities
from mupc.theory.hessian import largest_eigenvalues

# The limit is sought within this factor of the guess, on either side.
_RANGE = 8.0


def predicted_step_limit(
    energy: Energy, activities: Activities, *, steps: int = 200
) -> Float[Array, " batch"]:
    r"""Return $2 / \lambda_{\max}$ of each sample: larger steps of gradient descent diverge.

    It is exact where the energy is quadratic (linear networks), and else a statement about small
    moves around these activities.

    Args:
        energy: of a batch.
        activities: where to look.
        steps: of Lanczos iteration.
    """
    return 2 / largest_eigenvalues(energy, activities, steps=steps)


@eqx.filter_jit
def measured_step_limit(
    energy: Energy,
    activities: Activities,
    guess: Float[Array, " batch"],
    *,
    steps: int = 200,
    size: float = 1e-3,
    bisections: int = 12,
    key: PRNGKeyArray | None = None,
) -> Float[Array, " batch"]:
    """Find the largest step of gradient descent under which a small disturbance does not grow.

    Two descents run side by side, from the activities and from next to them; a step is too large if
    they are further apart at the end than they were at first. It is sought by bisection (of the
    logarithm), between an eighth and eight times the guess, and is nan if it is not between them.

    Args:
        energy: of a batch.
        activities: where to begin, best an equilibrium.
        guess: a step of about the right size, `predicted_step_limit` say.
        steps: of gradient descent; more steps see a smaller growth.
        size: of the disturbance, as a fraction of the activities' norm.
        bisections: halvings of the interval; twelve leave a thousandth.
        key: draws the disturbance.
    """
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(activities))
    noise = tuple(
        jax.random.normal(k, z.shape, z.dtype) for k, z in zip(keys, activities, strict=True)
    )
    scale = size * sample_norms(activities) / sample_norms(noise)
    moved = jax.tree.map(lambda z, v: z + over_samples(scale, z) * v, activities, noise)

    def distance(step_size: Float[Array, " batch"]) -> Float[Array, " batch"]:
        def descend(z: Activities) -> Activities:
            gradient = energy.samples_and_gradient(z)[1]
            return jax.tree.map(lambda z, g: z - over_samples(step_size, z) * g, z, gradient)

        one, other = jax.lax.fori_loop(
            0, steps, lambda _, pair: (descend(pair[0]), descend(pair[1])), (activities, moved)
        )
        return sample_norms(jax.tree.map(jnp.subtract, one, other))

    began = sample_norms(jax.tree.map(jnp.subtract, activities, moved))

    def halve(_: Int[Array, ""], interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = jnp.sqrt(low * high)
        stable = distance(middle) <= began  # false if it is not finite
        return jnp.where(stable, middle, low), jnp.where(stable, high, middle)

    ends = (guess / _RANGE, guess * _RANGE)
    within = (distance(ends[0]) <= began) & ~(distance(ends[1]) <= began) & (began > 0)
    low, high = jax.lax.fori_loop(0, bisections, halve, ends)
    return jnp.where(within, jnp.sqrt(low * high), jnp.nan)
