"""Gauss–Newton in error space: one small linear system per sample, whatever width and depth."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mupc.arrays import (
    any_sample,
    as_count,
    over_rows,
    over_samples,
    ratio,
    reduced,
    sample_norms,
    sample_products,
)
from mupc.energies import Energy, ErrorEnergy, GaussNewtonMaps, Point
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities

# How often a step that does not lower a sample's energy is shrunk before the sample stays.
_SHRINKS = 6


class _State(NamedTuple):
    """The gradient by errors where the first step begins, and whether that is still to be made."""

    gradient: Activities
    first: Bool[Array, ""]


class GaussNewton(Solver):
    r"""Gauss–Newton steps on the hidden errors, each solved in output space (per sample).

    With $h = \partial F / \partial e$, J the Jacobian of the output by the errors, D the hidden
    precisions (1, unless the energy has others) and $\Lambda = B B^\top$ the likelihood's Hessian
    by the output, a step solves

    $$(D + J^\top \Lambda J)\, \delta = -h, \qquad
      \delta = D^{-1} (-h + J^\top B s), \quad
      (I + B^\top J D^{-1} J^\top B)\, s = B^\top J D^{-1} h,$$

    a system as small as the output (Woodbury's identity; for a Gaussian likelihood
    $B = \sqrt\pi I$, for a categorical one $B B^\top = \pi(\text{diag}\, p - p p^\top)$; nudged
    away from its target a sample has $\Lambda = -B B^\top$, and the products with $B^\top J$ change
    their sign), by `cg_steps` conjugate gradient steps.

    The first of them is along the likelihood's own residual r, $B r = \partial \ell / \partial
    \hat y$, and costs no sweep, as $J^\top B r$ is known from h. From the feedforward pass, with
    D = I, it gives

    $$\delta = -\frac{h}{1 \pm \|h\|^2 / \|r\|^2},$$

    a gradient step whose length is right where r is an eigenvector of $B^\top J J^\top B$, or that
    has small eigenvalues, and else too long: so it is for regimes near backpropagation, and a
    larger `cg_steps` for others. The further ones are conjugate to r and to one another (deflated
    conjugate gradients, doi 10.1137/S1064829598339761). As many steps as there are outputs solve
    the system exactly; fewer still give a direction in which the energy falls, and where
    $I - B^\top J D^{-1} J^\top B$ has no positive curvature the direction is that of steepest
    descent. A step that does not lower a sample's energy is shrunk until it does. Near a minimum,
    where energies differ by round-off alone, nothing shrinks one that goes too far: only what
    solves the system exactly is sure to reach residuals below the square root of round-off.

    One iteration takes 2 · `cg_steps` sweeps, and one more whenever a step was shrunk.

    Args:
        cg_steps: conjugate gradient steps per iteration, at least 1.
    """

    takes: ClassVar[type[Energy]] = ErrorEnergy
    in_activities: ClassVar[bool] = False
    cg_steps: int = eqx.field(default=1, static=True)

    def __check_init__(self) -> None:
        as_count(self.cg_steps, least=1)

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Return the sweeps of iterations none of which was shrunk."""
        return 2.0 * self.cg_steps * steps

    def enter(self, energy: ErrorEnergy, point: Point) -> Point:
        """Return the point: what its activities know, its errors need not compute."""
        del energy
        return point

    def leave(self, energy: ErrorEnergy, position: Point) -> Point:
        """Return the point."""
        del energy
        return position

    def init(self, energy: ErrorEnergy, position: Point) -> _State:
        """Differentiate where the first step begins.

        Outside of the loop over steps: a rule that has measured the same there (the regime number
        is that gradient's norm) shares it, since the compiler computes what is equal once.
        """
        return _State(energy.error_gradient(position), jnp.ones((), bool))

    def step(
        self, energy: ErrorEnergy, position: Point, state: _State, keys: Keys
    ) -> tuple[Move, _State, Progress]:
        """Prepare one iteration."""
        samples = energy.samples(position)
        gradient = jax.lax.cond(
            state.first, lambda: state.gradient, lambda: energy.error_gradient(position)
        )
        maps = energy.gauss_newton(position)
        inner = maps.whiten(gradient)
        correction = self._correction(maps, inner, gradient)
        step = maps.whiten(jax.tree.map(jnp.subtract, correction, inner))
        slope = sample_products(gradient, step)
        move = lambda active: _descend(energy, position, samples, step, slope, active)  # noqa: E731
        state = state._replace(first=jnp.zeros((), bool))
        return move, state, Progress(samples, sample_norms(gradient))

    def _correction(
        self, maps: GaussNewtonMaps, inner: Activities, gradient: Activities
    ) -> Activities:
        """Return ±JᵀBs after conjugate gradient steps on (I ± BᵀJJᵀB) s = BᵀJh, all whitened."""
        first = _Direction.along(maps, *maps.residual(gradient))
        size = _size(sample_products(first.w, inner), first)
        total = _scaled(maps.sign * size, first.w)
        if self.cg_steps == 1:
            return total
        # What the system leaves of BᵀJh, in one sweep.
        left = jax.tree.map(jnp.subtract, inner, total)
        residual = maps.up(left) - over_rows(size, first.d) * first.d
        begin = _Conjugate(total, residual, residual)

        def iterate(_: Int[Array, ""], carry: _Conjugate) -> _Conjugate:
            carry, (d, w, _), size = _advance(maps, first, carry)
            push = maps.up(w)
            product = d + over_rows(maps.sign, push) * push
            residual = carry.residual - over_rows(size, product) * product
            turn = ratio(_products(residual, residual), _products(carry.residual, carry.residual))
            return _Conjugate(carry.total, residual, residual + over_rows(turn, d) * d)

        if self.cg_steps > 2:  # an empty loop would still be compiled
            begin = jax.lax.fori_loop(0, self.cg_steps - 2, iterate, begin)
        return _advance(maps, first, begin)[0].total


class _Direction(NamedTuple):
    """A direction d of the outputs, w = JᵀBd, and d·(I ± BᵀJJᵀB)d = ‖d‖² ± ‖w‖²."""

    d: Float[Array, "batch ..."]
    w: Activities
    curvature: Float[Array, " batch"]

    @classmethod
    def along(
        cls, maps: GaussNewtonMaps, d: Float[Array, "batch ..."], w: Activities
    ) -> "_Direction":
        return cls(d, w, _products(d, d) + maps.sign * sample_norms(w) ** 2)


class _Conjugate(NamedTuple):
    """The correction so far, what it leaves of the right-hand side, and where to go next."""

    total: Activities
    residual: Float[Array, "batch ..."]
    direction: Float[Array, "batch ..."]


def _advance(
    maps: GaussNewtonMaps, first: _Direction, carry: _Conjugate
) -> tuple[_Conjugate, _Direction, Float[Array, " batch"]]:
    """Go along the next direction, less its part along the first, with which it is coupled."""
    d, w = carry.direction, maps.down(carry.direction)
    coupled = _products(d, first.d) + maps.sign * sample_products(w, first.w)
    back = _size(coupled, first)
    d = d - over_rows(back, d) * first.d
    w = jax.tree.map(jnp.subtract, w, _scaled(back, first.w))
    direction = _Direction.along(maps, d, w)
    size = _size(_products(carry.residual, d), direction)
    total = jax.tree.map(jnp.add, carry.total, _scaled(maps.sign * size, w))
    return carry._replace(total=total), direction, size


def _size(product: Float[Array, " batch"], along: _Direction) -> Float[Array, " batch"]:
    """Return how far to go along a direction: not at all where that has no positive curvature."""
    return jnp.where(along.curvature > 0, ratio(product, along.curvature), 0)


def _scaled(size: Float[Array, " batch"], w: Activities) -> Activities:
    """Multiply by a number of each sample."""
    return jax.tree.map(lambda w: over_samples(size, w) * w, w)


class _Trial(NamedTuple):
    tries: Array
    size: Float[Array, " batch"]
    position: Point
    accepted: Bool[Array, " batch"]


def _descend(
    energy: ErrorEnergy,
    position: Point,
    samples: Float[Array, " batch"],
    step: Activities,
    slope: Float[Array, " batch"],
    active: Bool[Array, " batch"],
) -> Point:
    """Move each active sample by its step, shrunk until its energy falls; else it stays."""

    def advance(e: Array, d: Array, size: Float[Array, " batch"]) -> Array:
        size = over_samples(size, d)
        return e + jnp.where(size == 0, 0, size * d)  # d may be infinite

    def attempt(trial: _Trial) -> _Trial:
        errors = jax.tree.map(lambda e, d: advance(e, d, trial.size), position.errors, step)
        point = energy.run(errors)
        reached = energy.samples(point)
        accepted = trial.accepted | (reached <= ceiling)
        smaller = reduced(trial.size, reached - samples, slope)
        smaller = jnp.where(trial.tries < _SHRINKS, smaller, 0)
        size = jnp.where(accepted, trial.size, smaller)
        return _Trial(trial.tries + 1, size, point, accepted)

    def failed(trial: _Trial) -> Bool[Array, ""]:
        return (trial.tries <= _SHRINKS + 1) & any_sample(~trial.accepted)

    # At a minimum energies differ by round-off alone.
    ceiling = samples + 8 * jnp.finfo(samples.dtype).eps * jnp.abs(samples)
    size = jnp.where(active, 1.0, 0.0)
    begin = _Trial(jnp.zeros((), int), size, position, ~active)
    return jax.lax.while_loop(failed, attempt, begin).position


def _products(v: Float[Array, "batch ..."], w: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    return jnp.sum(v * w, axis=tuple(range(1, v.ndim)))
