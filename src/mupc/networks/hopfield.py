"""Hopfield networks: layers that are coupled both ways, and settle together."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from mupc import parameterisations
from mupc.arrays import AnyArray
from mupc.networks.activations import Activation, identity
from mupc.networks.bank import belows, sums, sums_down
from mupc.networks.block import Activities, Dense, over_batch
from mupc.networks.chain import Chain
from mupc.networks.mlp import residual_mlp
from mupc.networks.network import Feedforward, Layer, Network
from mupc.parameterisations import Parameterisation

# A step of `feedforward`, and what it keeps of the one before.
_STEP, _MOMENTUM = 0.6, 0.3


class Hopfield(Network):
    r"""Layers coupled symmetrically, whose states settle to a minimum of an energy.

    $$E(s) = \sum_{l=1}^{H} \tfrac12 \|s_l - k s_{l-1}\|^2
      - \langle \phi(s_l), d_l(s_{l-1}) \rangle, \quad s_0 = x$$

    with the drives $d_l$ that the blocks give, $a W_l \phi(s_{l-1})$ for `mupc.Dense`. Without
    skips, k = 0, it is the layered energy of equilibrium propagation (arXiv 1602.05179, Eq. 1);
    with them, k = 1 but for the entry of a stage, a *residual chain*. For the first layer φ is the
    identity and k is 0, so that $s_1$ is drawn to $d_1(x)$; for a last one that is the output φ is
    the identity, too. The output is what the readout makes of
    $s_H$.

    There is no feedforward pass. What has that name settles the states by a fixed number of steps,
    through which backpropagation can go.

    States may be kept on a box instead, each from 0 to 1, with φ the identity there (arXiv
    2312.15103): the minimum of a layer while its neighbours stay is then what they drive it to, cut
    to the box.

    Args:
        chain: the blocks, without skips of their own, and the readout.
        activation: φ of the states; blocks apply their own to what they read.
        skips: whether each layer is drawn to the state of the one below.
        steps: how many `feedforward` makes.
        inside: whether the last state is the output, which φ leaves as it is; the last stage is
            then an entry alone.
        box: whether states are kept on it, all but the output, which is then among them.

    Raises:
        ValueError: if a pattern has more than one block, or a block a skip of its own; if the
            output is a state, and its stage has other layers; or if there is a box, and φ is not
            the identity, a layer has a skip, a stage more than one, or the output is no state.
    """

    chain: Chain
    activation: Activation = eqx.field(static=True)
    skips: bool = eqx.field(static=True, default=True)
    steps: int = eqx.field(static=True, default=20)
    inside: bool = eqx.field(static=True, default=False)
    box: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        for stage in self.chain.stages:
            if len(stage.blocks) > 1:
                raise ValueError("a mupc.Hopfield takes stages whose pattern is a single block")
            if any(getattr(block, "skip", False) for block in (stage.entry, *stage.blocks)):
                raise ValueError(
                    "a mupc.Hopfield has the skips of its layers itself: give it blocks without"
                )

        if self.inside and self.chain.stages[-1].blocks:
            raise ValueError("a last state that is the output needs a stage of its own")
        if not self.box:
            return
        if self.activation is not identity:
            raise ValueError("on a box, states are what other layers read: give it no activation")
        if not self.inside:
            raise ValueError("on a box, the output must be the last state: give inside=True")
        if self.skips or any(stage.blocks for stage in self.chain.stages):
            raise ValueError("a box is for layers without skips, each a stage of its own")

    @property
    def depth(self) -> int:
        """H, the number of states."""
        return self.chain.depth

    @property
    def linear(self) -> bool:
        """Whether every layer is affine: closed forms of predictions do not hold for it."""
        return False

    @property
    def layers(self) -> list[Layer]:
        """The blocks in the order of the banks, and the readout."""
        return self.chain.layers

    @property
    def structure(self) -> str:
        """How it is built."""
        return self.chain.structure

    def in_order(self, banks: Sequence[Array]) -> Array:
        """Join one array (layer, ...) per bank to one of all layers, from input to output."""
        return self.chain.in_order(banks)

    def in_banks(self, layers: AnyArray) -> tuple[Array, ...]:
        """Part an array of all layers, from input to output, into one for each bank."""
        return self.chain.in_banks(layers)

    def couplings(
        self, x: Num[AnyArray, "batch ..."], states: Activities
    ) -> tuple[Float[Array, "_layer batch"], ...]:
        r"""Return $-\langle \phi(s_l), d_l(s_{l-1}) \rangle$ of each layer, by bank.

        What E is besides is the half square of the increments.
        """
        drives, _ = self.chain.predictions(x, states)
        last = identity if self.inside else self.activation
        phis = (identity, *(self.activation for _ in states[1:-1]), last)[: len(states)]

        def part(state: Array, drive: Array, phi: Activation) -> Array:
            return -jnp.sum(phi(state) * drive, axis=tuple(range(2, state.ndim)))

        return tuple(part(*bank) for bank in zip(states, drives, phis, strict=True))

    def output(self, states: Activities) -> Float[Array, "batch ..."]:
        """Return what the readout makes of the last state."""
        with jax.default_matmul_precision("highest"):
            return over_batch(self.chain.top)(states[-1][-1])

    def states(self, increments: Activities) -> Activities:
        """Return the states of these increments, $s_l = k s_{l-1} + e_l$."""
        return self._by_stages(increments, lambda first, bank: (first, sums(first[0], bank)))

    def increments(self, states: Activities) -> Activities:
        """Return what each state adds, $e_l = s_l - k s_{l-1}$."""
        return self._by_stages(states, lambda first, bank: (first, bank - belows(first[0], bank)))

    def by_increments(self, gradient: Activities) -> Activities:
        """Return the gradient by the increments of what has this gradient by the states."""

        def down(first: Array, bank: Array) -> tuple[Array, Array]:
            bank = sums_down(bank)
            return first + bank[:1], bank

        return self._by_stages(gradient, down)

    def rest(self, x: Num[AnyArray, "batch ..."]) -> Activities:
        """Return the increments of the states that inference begins at.

        Those without couplings; on a box, those without couplings back.
        """
        if self.box:
            return self._forwards(x)
        shapes = jax.eval_shape(self.chain.feedforward, x).activities
        zeros = jax.tree.map(lambda z: jnp.zeros(z.shape, z.dtype), shapes)
        with jax.default_matmul_precision("highest"):
            first = over_batch(self.chain.stages[0].entry)(jnp.asarray(x))
        return (first[None], *zeros[1:])

    def feedforward(
        self, x: Num[AnyArray, "batch ..."], errors: Activities | None = None
    ) -> Feedforward:
        r"""Settle the states without a target by descent in increments, and read out.

        $$v \leftarrow \mu v - \eta \frac{\partial E}{\partial e}, \quad e \leftarrow e + v$$

        A step on increments moves all layers of a chain at once. On a box, every other layer goes
        to its minimum, and then the others (`alternately`).

        Args:
            x: the input, (batch, ...).
            errors: increments to return the states of, as they are; nothing settles then.
        """
        if errors is not None:
            states = self.states(errors)
            return Feedforward(states, self.output(states))

        def coupling(states: Activities) -> Float[Array, ""]:
            return sum(map(jnp.sum, self.couplings(x, states)), jnp.zeros(()))

        if self.box:

            def changes(states: Activities) -> Activities:
                slopes = jax.tree.map(jnp.add, states, jax.grad(coupling)(states))
                return self.projected(states, slopes)

            def relax(states: Activities, _: None) -> tuple[Activities, None]:
                return alternately(states, changes), None

            return self.feedforward(x, jax.lax.scan(relax, self.rest(x), None, self.steps)[0])

        def descend(carry: tuple[Activities, Activities], _: None) -> tuple[Any, None]:
            position, velocity = carry
            slopes = self.by_increments(jax.grad(coupling)(self.states(position)))
            velocity = jax.tree.map(
                lambda v, e, g: _MOMENTUM * v - _STEP * (e + g), velocity, position, slopes
            )
            return (jax.tree.map(jnp.add, position, velocity), velocity), None

        begin = self.rest(x)
        still = jax.tree.map(jnp.zeros_like, begin)
        (settled, _), _ = jax.lax.scan(descend, (begin, still), None, self.steps)
        return self.feedforward(x, settled)

    def predictions(
        self, x: Num[AnyArray, "batch ..."], activities: Activities
    ) -> tuple[Activities, Float[Array, "batch ..."]]:
        """Refuse: layers that settle together predict nothing.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "the layers of a mupc.Hopfield settle together, and none predicts another: train it "
            "by mupc.EquilibriumPropagation()"
        )

    def projected(self, states: Activities, slopes: Activities) -> Activities:
        """Return how far a step against these slopes goes, if it ends on the border of a box."""
        if not self.box:
            return slopes
        kept = jax.tree.map(lambda s, g: s - _clipped(s - g), states[:-1], slopes[:-1])
        return (*kept, slopes[-1])

    def on_box(self, states: Activities) -> Activities:
        """Return the states that are nearest to these on a box, if there is one."""
        return (*map(_clipped, states[:-1]), states[-1]) if self.box else states

    def _forwards(self, x: Num[AnyArray, "batch ..."]) -> Activities:
        """Return the states that each layer's neighbour below alone drives it to."""
        states: Activities = ()
        before = jnp.asarray(x)
        with jax.default_matmul_precision("highest"):
            for i, stage in enumerate(self.chain.stages):
                before = over_batch(stage.entry)(before)
                output = i == len(self.chain.stages) - 1
                before = before if output else _clipped(before)
                states = (*states, before[None])
        return states

    def _by_stages(
        self, banks: Activities, along: Callable[[Array, Array], Activities]
    ) -> Activities:
        """Apply a map along depth to the banks of every stage, if layers have skips.

        Of a stage that is an entry alone it changes nothing.
        """
        if not self.skips:
            return banks
        done: Activities = ()
        begin = 0
        for stage in self.chain.stages:
            own = banks[begin : begin + len(stage.sizes)]
            begin += len(own)
            done = (*done, *(along(*own) if stage.blocks else own))
        return done


def alternately(states: Activities, changes: Callable[[Activities], Activities]) -> Activities:
    """Take from every other layer what it is to change by, and then from those between them."""
    for first in (0, 1):
        by = changes(states)
        states = tuple(
            s - c if i % 2 == first else s for i, (s, c) in enumerate(zip(states, by, strict=True))
        )
    return states


def _clipped(states: Array) -> Array:
    return jnp.clip(states, 0, 1)


def residual_hopfield(
    inputs: int,
    outputs: int,
    *,
    width: int,
    depth: int,
    activation: Activation = jnp.tanh,
    skips: bool = True,
    biases: bool = False,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Hopfield:
    r"""Build a fully connected Hopfield network, of any depth if it has skips.

    $$E(s) = \tfrac12 \|s_1 - a_1 W_1 x\|^2 + \sum_{l=2}^{H} \tfrac12 \|s_l - s_{l-1}\|^2
      - a b \langle \phi(s_l), W_l \phi(s_{l-1}) \rangle, \quad \hat y = a_L W_L \phi(s_H)$$

    A force on layer j moves layer l by $\min(l, j)$ times itself, and H random forces add up to
    $H^{3/2}$: hence $b = L^{-3/2}$ in `mupc.hopfield()`.

    Args:
        inputs: D, the width of x.
        outputs: O, the width of y.
        width: N, the width of every state.
        depth: H, the number of states.
        activation: φ; with one that is not bounded E has a minimum only while couplings are weak.
        skips: whether each state is drawn to the one below.
        biases: whether layers have biases.
        parameterisation: `mupc.hopfield()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or the activation is not a function.
    """
    chain = residual_mlp(
        inputs,
        outputs,
        width=width,
        depth=depth,
        activation=activation,
        skips=skips,
        biases=biases,
        parameterisation=parameterisation or parameterisations.hopfield(),
        key=key,
    )

    def drive(node: Any) -> Any:
        return dataclasses.replace(node, skip=False) if isinstance(node, Dense) else node

    chain = jax.tree.map(drive, chain, is_leaf=lambda node: isinstance(node, Dense))
    return Hopfield(chain, activation, skips)
