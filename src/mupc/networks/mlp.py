"""The residual multilayer perceptron of the μPC paper."""

import functools

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from mupc import parameterisations
from mupc.kinds import check_sizes
from mupc.networks.activations import Activation, identity
from mupc.networks.block import Dense
from mupc.networks.chain import Chain
from mupc.networks.stage import Stage
from mupc.parameterisations import Parameterisation, Shape


def residual_mlp(
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
) -> Chain:
    r"""Build a fully connected network of `depth` hidden layers (arXiv 2505.13124, Eq. 1).

    $$u_1 = a_1 W_1 x, \quad u_l = z_{l-1} + a W_l \phi(z_{l-1}), \quad \hat y = a_L W_L \phi(z_H)$$

    for $l = 2 \ldots H$, without the $z_{l-1}$ if `skips` is false. Biases start at zero.

    Args:
        inputs: D, the width of x.
        outputs: O, the width of y.
        width: N, the width of every hidden layer.
        depth: H, the number of hidden layers; there are L = H + 1 weight layers.
        activation: φ; pass `mupc.identity` for a deep linear network.
        skips: whether hidden layers are residual.
        biases: whether layers have biases.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or the activation is not a function.
    """
    check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
    if not callable(activation):
        raise ValueError(f"activation must be a function such as jax.nn.relu, not {activation!r}")
    make = functools.partial(
        Dense.initialise,
        parameterisation=parameterisation or parameterisations.mupc(),
        shape=Shape(width, depth + 1),
        biases=biases,
    )

    def block(key: Array) -> Dense:
        return make((width, width), "hidden", activation, skip=skips, key=key)

    entry_key, blocks_key, readout_key = jax.random.split(key, 3)
    entry = make((width, inputs), "input", identity, skip=False, key=entry_key)
    readout = make((outputs, width), "readout", activation, skip=False, key=readout_key)
    keys = jax.random.split(blocks_key, depth - 1)
    blocks = (eqx.filter_vmap(block)(keys),) if depth > 1 else ()
    return Chain(stages=(Stage(entry, blocks),), readout=readout)
