"""Two networks over one set of activities: one predicts the target, one the input."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float, Num, PRNGKeyArray

from mupc.arrays import AnyArray
from mupc.kinds import check_kind
from mupc.networks.activations import Activation
from mupc.networks.block import Activities
from mupc.networks.chain import Chain
from mupc.networks.mlp import residual_mlp
from mupc.networks.network import Feedforward, Layer, Network
from mupc.parameterisations import Parameterisation


class Bidirectional(Network):
    r"""Two networks that share their hidden activities (arXiv 2505.23415).

    `up` predicts the target from the input, $u_l(z_{l-1})$ with $z_0 = x$, and `down` the input
    from the target, $d_l(z_{l+1})$ with $z_{H+1} = y$. By itself it is `up`: its activities, its
    layers and its output are those; `mupc.BidirectionalEnergy` is made of both. Images are what
    `network.down.feedforward(y).output` makes of targets.

    Args:
        up: from input to target.
        down: from target to input, with as many layers; all activities of both are of one shape.

    Raises:
        TypeError: if one is no `mupc.Chain`.
        ValueError: if they do not have as many layers.
    """

    up: Chain
    down: Chain

    def __check_init__(self) -> None:
        for name in ("up", "down"):
            check_kind(name, getattr(self, name), Chain, "a mupc.Chain, e.g. mupc.residual_mlp(…)")
        if self.up.depth != self.down.depth:
            raise ValueError(
                "up and down must have as many hidden layers, whose activities they share, not "
                f"{self.up.depth} and {self.down.depth}"
            )

    @property
    def depth(self) -> int:
        """H, the number of hidden activities."""
        return self.up.depth

    @property
    def linear(self) -> bool:
        """Whether every layer is affine: closed forms of one direction do not hold for two."""
        return False

    @property
    def layers(self) -> list[Layer]:
        """Those of `up`."""
        return self.up.layers

    @property
    def structure(self) -> str:
        """That of `up`."""
        return self.up.structure

    def in_order(self, banks: Sequence[Array]) -> Array:
        """Join one array (layer, ...) per bank to one of all layers, from input to output."""
        return self.up.in_order(banks)

    def in_banks(self, layers: AnyArray) -> tuple[Array, ...]:
        """Part an array of all layers, from input to output, into one for each bank."""
        return self.up.in_banks(layers)

    def feedforward(
        self, x: Num[AnyArray, "batch ..."], errors: Activities | None = None
    ) -> Feedforward:
        """Run `up`."""
        return self.up.feedforward(x, errors)

    def predictions(
        self, x: Num[AnyArray, "batch ..."], activities: Activities
    ) -> tuple[Activities, Float[Array, "batch ..."]]:
        """Predict each activity from the one below, and the output."""
        return self.up.predictions(x, activities)

    def pushforward(
        self, x: Num[AnyArray, "batch ..."], activities: Activities, changes: Activities
    ) -> Float[Array, "batch ..."]:
        """Return how the output changes with the errors of `up`."""
        return self.up.pushforward(x, activities, changes)

    def pullback(
        self,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        output: Float[Array, "batch ..."],
        gradients: Activities | None = None,
    ) -> Activities:
        """Return gradients by the errors of `up`."""
        return self.up.pullback(x, activities, output, gradients)

    def downwards(self, activities: Activities) -> Activities:
        """Return what `up` calls so as the activities of `down`, which begins at the target."""
        return self.down.in_banks(self.up.in_order(activities)[::-1])

    def upwards(self, activities: Activities) -> Activities:
        """Return activities of `down` as those of `up`."""
        return self.up.in_banks(self.down.in_order(activities)[::-1])


def bidirectional_mlp(
    inputs: int,
    outputs: int,
    *,
    width: int,
    depth: int,
    activation: Activation = jax.nn.relu,
    skips: bool = True,
    biases: bool = False,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Bidirectional:
    """Build a residual MLP in either direction, over one set of activities.

    Args:
        inputs: D, the width of x.
        outputs: O, the width of y.
        width: N, the width of every activity.
        depth: H, the number of hidden activities.
        activation: φ.
        skips: whether hidden layers have skip connections.
        biases: whether layers have biases.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or the activation is not a function.
    """

    def one(ends: tuple[int, int], key: PRNGKeyArray) -> Chain:
        return residual_mlp(
            *ends,
            width=width,
            depth=depth,
            activation=activation,
            skips=skips,
            biases=biases,
            parameterisation=parameterisation,
            key=key,
        )

    up, down = jax.random.split(key)
    return Bidirectional(one((inputs, outputs), up), one((outputs, inputs), down))
