"""A quasi-Newton method that needs no step size: limited-memory BFGS, each sample by itself."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mupc.arrays import (
    as_count,
    choose,
    over_samples,
    ratio,
    reduced,
    sample_norms,
    sample_products,
)
from mupc.energies import Energy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities, kept_as_banks

# The step is accepted if the energy falls by this fraction of what its slope promises (Armijo).
_DECREASE = 1e-4

# Powell's damping: a pair's curvature y·s counts as at least this fraction of ‖s‖². In errors the
# hidden part of the Hessian is the identity, so one is the natural scale.
_DAMPING = 0.1


class _State(NamedTuple):
    """Where the position given to `step` is known to lie, and where to go next from there.

    `steps` and `changes` hold the last moves s and gradient changes y, (history, layer, batch,
    ...), `inverse` 1 / (y·s) or zero for a slot without a pair.
    """

    energy: Float[Array, " batch"]
    gradient: Activities
    direction: Activities
    size: Float[Array, " batch"]
    steps: Activities
    changes: Activities
    inverse: Float[Array, "history batch"]
    scale: Float[Array, " batch"]
    made: Int[Array, ""]


class LBFGS(Solver):
    r"""Limited-memory BFGS (Nocedal and Wright, *Numerical Optimization*, Algorithm 7.4).

    $$d = -H_k \nabla F, \qquad z \leftarrow z + t\, d$$

    with $H_k$ the BFGS inverse Hessian of the last pairs $s = \Delta z$, $y = \Delta \nabla F$
    (with Powell's damping where the curvature is small or negative). A sample's step is tried at
    $t = 1$, accepted if its energy falls enough, else shrunk at the next step; so a sample's energy
    never rises. Every step costs one gradient: two sweeps. The first direction is the gradient,
    scaled by the curvature along it.

    In errors, `mupc.InErrors(mupc.LBFGS())`, it is the solver for a minimum to round-off.

    Args:
        history: how many pairs to keep. A pair takes the memory of two copies of the activities,
            and each step reads all of them.
    """

    history: int = eqx.field(default=8, static=True)

    def __check_init__(self) -> None:
        as_count(self.history, least=1)

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Return four sweeps to look at the start, and two a step."""
        return 4.0 + 2.0 * steps

    def init(self, energy: Energy, position: Activities) -> _State:
        """Look at the start, and along its gradient."""
        (samples, gradient), hessian = jax.linearize(energy.samples_and_gradient, position)
        _, turned = hessian(gradient)
        square = sample_products(gradient, gradient)
        scale = ratio(square, jnp.abs(sample_products(gradient, turned)))
        room = lambda z: jnp.zeros((self.history, *z.shape), z.dtype)  # noqa: E731
        return _State(
            energy=samples,
            gradient=gradient,
            direction=_scaled(-scale, gradient),
            size=jnp.ones_like(samples),
            steps=jax.tree.map(room, position),
            changes=jax.tree.map(room, position),
            inverse=jnp.zeros((self.history, *samples.shape), samples.dtype),
            scale=scale,
            made=jnp.zeros((), int),
        )

    def step(
        self, energy: Energy, position: Activities, state: _State, keys: Keys
    ) -> tuple[Move, _State, Progress]:
        """Try a step, move the samples that accept it, and learn the curvature from all."""
        seen = Progress(state.energy, sample_norms(state.gradient))
        step = _scaled(state.size, state.direction)
        tried = jax.tree.map(jnp.add, position, step)
        samples, gradient = energy.samples_and_gradient(tried)
        slope = sample_products(state.gradient, state.direction)
        accepted = _accepts(state, samples, slope, sample_products(gradient, state.direction))
        change = jax.tree.map(jnp.subtract, gradient, state.gradient)
        change, good, scale = _damped(step, change, accepted)
        slot = state.made % self.history
        keep = lambda room, new: room.at[slot].set(  # noqa: E731
            jnp.where(over_samples(good, new), new, 0)
        )
        products = sample_products(step, change)
        inverse = state.inverse.at[slot].set(jnp.where(good, ratio(1.0, products), 0))
        new = state._replace(
            energy=jnp.where(accepted, samples, state.energy),
            gradient=choose(accepted, gradient, state.gradient),
            steps=kept_as_banks(jax.tree.map(keep, state.steps, step)),
            changes=kept_as_banks(jax.tree.map(keep, state.changes, change)),
            inverse=inverse,
            scale=jnp.where(good, scale, state.scale),
            made=state.made + 1,
        )
        new = new._replace(
            direction=choose(accepted, self._direction(new), state.direction),
            size=jnp.where(accepted, 1.0, reduced(state.size, samples - state.energy, slope)),
        )
        move = lambda active: choose(active & accepted, tried, position)  # noqa: E731
        return move, new, seen

    def _direction(self, state: _State) -> Activities:
        """Return −H∇F by the two-loop recursion, over the pairs from the newest to the oldest."""
        order = (state.made - 1 - jnp.arange(self.history)) % self.history
        pair = lambda room, i: jax.tree.map(lambda r: r[i], room)  # noqa: E731

        def newest_first(q: Activities, i: Array) -> tuple[Activities, Array]:
            weight = state.inverse[i] * sample_products(pair(state.steps, i), q)
            return _plus(q, -weight, pair(state.changes, i)), weight

        def oldest_first(
            q: Activities, i_and_weight: tuple[Array, Array]
        ) -> tuple[Activities, None]:
            i, weight = i_and_weight
            other = state.inverse[i] * sample_products(pair(state.changes, i), q)
            return _plus(q, weight - other, pair(state.steps, i)), None

        q, weights = jax.lax.scan(newest_first, state.gradient, order)
        q, _ = jax.lax.scan(oldest_first, _scaled(state.scale, q), (order, weights), reverse=True)
        return _scaled(-jnp.ones_like(state.scale), q)


def _accepts(
    state: _State,
    samples: Float[Array, " batch"],
    slope: Float[Array, " batch"],
    new_slope: Float[Array, " batch"],
) -> Bool[Array, " batch"]:
    """Return whether the energy falls enough; where it is flat, the slope must fall."""
    lower = samples <= state.energy + _DECREASE * state.size * slope
    noise = 16 * jnp.finfo(samples.dtype).eps * jnp.abs(state.energy)
    flat = (samples <= state.energy + noise) & (jnp.abs(new_slope) <= 0.9 * jnp.abs(slope))
    return (lower | flat) & jnp.isfinite(samples)


def _damped(
    step: Activities, change: Activities, accepted: Bool[Array, " batch"]
) -> tuple[Activities, Bool[Array, " batch"], Float[Array, " batch"]]:
    """Return y with a curvature that is large enough, whether to keep the pair, and y·s / y·y."""
    product, square = sample_products(step, change), sample_products(step, step)
    enough = product >= _DAMPING * square
    share = jnp.where(enough, 1.0, ratio((1 - _DAMPING) * square, square - product))
    mixed = _plus(_scaled(share, change), 1 - share, step)
    product = sample_products(step, mixed)
    good = accepted & (product > 0)
    return mixed, good, ratio(product, sample_products(mixed, mixed))


def _scaled(factor: Float[Array, " batch"], v: Activities) -> Activities:
    return jax.tree.map(lambda leaf: over_samples(factor, leaf) * leaf, v)


def _plus(v: Activities, factor: Float[Array, " batch"], w: Activities) -> Activities:
    return jax.tree.map(lambda a, b: a + over_samples(factor, b) * b, v, w)
