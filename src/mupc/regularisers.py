"""Regularisers: terms of the energy on weights (once a batch) or on activities (each sample)."""

from abc import abstractmethod
from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.arrays import Readable, as_not_negative, layer_square_norms
from mupc.networks import Activities, Network, is_scaled
from mupc.parameterisations import ROLES, Role


def _roles(roles: Iterable[str]) -> tuple[Role, ...]:
    roles = tuple(roles)
    known: tuple[Role, ...] = tuple(role for role in ROLES if role in roles)
    if set(known) != set(roles) or not known:
        raise ValueError(f"roles must be some of {', '.join(ROLES)}, not {roles}")
    return known


class Regulariser(Readable):
    """A term added to the energy, on the layers that have one of its roles."""

    strength: eqx.AbstractVar[Float[Array, ""]]
    roles: eqx.AbstractVar[tuple[Role, ...]]

    @abstractmethod
    def of_network(self, network: Network) -> Float[Array, ""]:
        """Return the term on the weights, a scalar."""

    @abstractmethod
    def of_activities(
        self, activities: Activities
    ) -> tuple[Float[Array, "_layer batch"], ...] | None:
        """Return the term on each layer's activity of each sample, by bank; None if none."""


class WeightDecay(Regulariser):
    r"""$\tfrac{\lambda}{2} \sum \|W\|^2$ over the stored weights, not the biases, of some roles."""

    strength: Float[Array, ""] = eqx.field(converter=as_not_negative)
    roles: tuple[Role, ...] = eqx.field(static=True, default=ROLES, converter=_roles)

    def of_network(self, network: Network) -> Float[Array, ""]:
        """Return the term on the weights, a scalar."""
        squares = [jnp.sum(w**2) for _, w, _ in _weights(self.roles, network)]
        return 0.5 * self.strength * sum(squares)

    def of_activities(self, activities: Activities) -> None:
        """Return None: this term does not see activities."""


class SpectralPenalty(Regulariser):
    r"""$\lambda \sum \|I - V^\top V\|_F^2$ with $V = aW$ the multiplied weight, for some roles.

    It pulls the singular values of the map that each layer really applies towards 1. The depth
    multiplier b of a residual layer is a part of a in a `mupc.Dense`; in a `mupc.Scaled` block it
    multiplies the branch as a whole, and is none. For weights
    with more than two dimensions (convolutions) V is the matrix (out, everything else).
    """

    strength: Float[Array, ""] = eqx.field(converter=as_not_negative)
    roles: tuple[Role, ...] = eqx.field(static=True, default=ROLES, converter=_roles)

    def of_network(self, network: Network) -> Float[Array, ""]:
        """Return the term on the weights, a scalar."""
        total = jnp.zeros(())
        for multiplier, w, stacked in _weights(self.roles, network):
            # Stacked blocks are one array with a leading layer axis: every matrix has its own term.
            matrices = w if stacked else w[None]
            v = multiplier * matrices.reshape(*matrices.shape[:2], -1)
            with jax.default_matmul_precision("highest"):
                gram = jnp.einsum("loi,loj->lij", v, v)
            total = total + jnp.sum((jnp.eye(gram.shape[-1]) - gram) ** 2)
        return self.strength * total

    def of_activities(self, activities: Activities) -> None:
        """Return None: this term does not see activities."""


class ActivityDecay(Regulariser):
    r"""$\tfrac{\lambda}{2} \sum_l \|z_l\|^2$ per sample, over activities of some roles.

    An activity has the role of the layer that predicts it: `input` is the first hidden activity,
    `hidden` all the others.
    """

    strength: Float[Array, ""] = eqx.field(converter=as_not_negative)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("input", "hidden"), converter=_roles)

    def __check_init__(self) -> None:
        if "readout" in self.roles:
            raise ValueError(
                "activity decay on the role readout has no effect: the output is not an activity; "
                "its roles are input and hidden"
            )

    def of_network(self, network: Network) -> Float[Array, ""]:
        """Return zero: this term does not see weights."""
        return jnp.zeros(())

    def of_activities(self, activities: Activities) -> tuple[Float[Array, "_layer batch"], ...]:
        """Return the term on each layer's activity of each sample, by bank: an entry is first."""
        strengths = (self.strengths(2)[min(i, 1)] for i in range(len(activities)))
        banks = zip(strengths, activities, strict=True)
        return tuple(0.5 * strength * layer_square_norms(z) for strength, z in banks)

    def strengths(self, depth: int) -> Float[Array, " depth"]:
        """Return λ of each of `depth` activities: zero for those of other roles."""
        first = jnp.arange(depth) == 0
        return self.strength * jnp.where(first, "input" in self.roles, "hidden" in self.roles)


def _weights(
    roles: tuple[Role, ...], network: Network
) -> list[tuple[float, Float[Array, "..."], bool]]:
    """Return the multiplier of each array of weights, the array, and whether it is a stack.

    An array that layers share counts once, where it comes first.
    """
    found: dict[int, tuple[float, Float[Array, ...], bool]] = {}
    for layer in network.layers:
        for parameter in layer.block.parameters if is_scaled(layer.block) else ():
            if parameter.scale.role in roles and parameter.scale.kind == "weight":
                own = parameter.multiplier, parameter.array, layer.stacked
                found.setdefault(id(parameter.array), own)
    return list(found.values())


def activity_terms(
    regularisers: Iterable[Regulariser], activities: Activities
) -> tuple[Float[Array, "_layer batch"], ...] | None:
    """Sum the regularisers' terms on each layer's activity, by bank; None if none has one."""
    all_terms = (regulariser.of_activities(activities) for regulariser in regularisers)
    terms = [term for term in all_terms if term is not None]
    return jax.tree.map(lambda *one: sum(one), *terms) if terms else None


def weight_terms(regularisers: Iterable[Regulariser], network: Network) -> Float[Array, ""]:
    """Sum the regularisers' terms on the weights."""
    return sum((regulariser.of_network(network) for regulariser in regularisers), jnp.zeros(()))
