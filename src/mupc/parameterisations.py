r"""Parameterisations as data: initial scales, forward multipliers and rate factors by parameter.

A weight $W$ is drawn with standard deviation `std` and enters the forward pass as $aW$ with
`multiplier` $a$, from its own fan-in; a residual branch has one depth multiplier b besides,
$u = z + b f(z)$, however many matrices f holds. What distinguishes `standard`, `ntk` and `mupc` is
how these, and the learning-rate factors, scale with the size of the network; each entry of the
table is a power law, $\text{width}^{p}\,\text{depth}^{q}\,\gamma^{r}$.

- a and `std` are laws in the weight's fan-in and $\gamma$, b is one in the number L of weight
  layers (of branches, in a transformer).
- rate factors are laws in $N / N_0$, $L / L_0$ and $\gamma$, with a base shape of $N_0 = 128$,
  $L_0 = 129$ unless given, so that a rate tuned at 128 hidden layers of width 128 means the same
  elsewhere.

Source: μPC (arXiv 2505.13124), Table 1; Depth-μP (arXiv 2310.02244) for the rate factors; CompleteP
(arXiv 2505.01618), Table 1, for branches with another depth exponent.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Role = Literal["input", "hidden", "readout"]
"""What a layer is for: it reads the data, lies between activities, or makes the output."""

ROLES: tuple[Role, ...] = ("input", "hidden", "readout")

Kind = Literal["weight", "bias"]
"""A weight multiplies its input; all else is a bias: offsets, and the gains of norms."""

Initialiser = Callable[[PRNGKeyArray, tuple[int, int], float], Float[Array, "out in"]]
"""Draws a matrix whose entries have mean 0 and the given standard deviation."""


def normal(key: PRNGKeyArray, shape: tuple[int, int], std: float) -> Float[Array, "out in"]:
    """Draw independent Gaussian entries of standard deviation `std`."""
    return std * jax.random.normal(key, shape)


def orthogonal(key: PRNGKeyArray, shape: tuple[int, int], std: float) -> Float[Array, "out in"]:
    r"""Draw a scaled semi-orthogonal matrix, $\text{std}\,\sqrt{\max(\text{out}, \text{in})}\,Q$.

    The entries have the same variance as those of `normal`; all singular values are equal.
    """
    return jax.nn.initializers.orthogonal(std * max(shape) ** 0.5)(key, shape, jnp.zeros(()).dtype)


class Law(NamedTuple):
    r"""The power law $\text{width}^{p}\,\text{depth}^{q}\,\gamma^{r}$, by its exponents."""

    width: float = 0.0
    depth: float = 0.0
    gamma: float = 0.0

    def __call__(self, width: float, depth: float, gamma: float) -> float:
        """Evaluate the law."""
        return width**self.width * depth**self.depth * gamma**self.gamma


_ONE = Law()


class Laws(NamedTuple):
    """How every number of a parameter scales: `std` and `multiplier` with its fan-in."""

    std: Law = _ONE
    multiplier: Law = _ONE
    adam: Law = _ONE
    sgd: Law = _ONE


class Row(NamedTuple):
    """The weights and the biases of a kind of layer."""

    weight: Laws
    bias: Laws = Laws()


class Base(NamedTuple):
    """The shape at which the rate factors of *mup* are 1: a width and a number of weight layers."""

    width: int = 128
    length: int = 129


# Bounds of the uniform rule, which are measured, not derived. It is about many hidden layers: in
# shallow networks, or with branches of L^−1, it would let them diverge. In the largest it would
# starve entry and readout (10,000 layers of width 64 reach 92 % on the digits in 5 epochs where
# their factor is a sixth, and 96 % where it is 1). In a transformer of characters readout and
# tables want more than branches (4 pairs of width 128, Adam .02, 200 batches, ρ = .05: 2.43 nats
# with factors of 8 and √8, 2.44 with 8 and 4, 2.52 with 4 and √8).
_LARGEST_OF_DEPTH, _LARGEST_HIDDEN, _LARGEST_OUTER = 8**0.5, 4.0, 8.0


@dataclass(frozen=True)
class Scale:
    """The numbers of one parameter, fixed when the network is built.

    `multiplier` scales weights alone. `adam` and `sgd` are learning-rate factors under the *mup*
    rule, `uniform` under the *uniform* rule (see `mupc.scale_adam`, `mupc.scale_sgd` and
    `mupc.scale_uniform`).
    """

    role: Role
    kind: Kind = "weight"
    std: float = 1.0
    multiplier: float = 1.0
    adam: float = 1.0
    sgd: float = 1.0
    uniform: float = 1.0


@dataclass(frozen=True)
class Shape:
    """The network that a parameter belongs to: its width N, and its number of weight layers L."""

    width: int
    length: int


@dataclass(frozen=True)
class Parameterisation:
    r"""A table of laws: rows for the entry, residual branches, plain hidden layers, the readout.

    Args:
        name: what it is called.
        input, branch, plain, readout: the rows.
        beside: laws of a bias that is added beside a branch, not multiplied with it.
        depth: law of the branch multiplier b, in L.
        reach: the power of L by which what one branch adds is multiplied along depth, besides what
            the other branches add: 0 where a layer acts on those above it, 1 where each acts on
            its neighbours both ways.
        slower: what the *uniform* rule's rates of residual branches are divided by.
        ends: a factor of the *uniform* rule's rates of input and readout, in place of the one that
            depends on depth.
        gamma: $\gamma$.
        base: the shape at which the rate factors of *mup* are 1.
        initialise: draws the weights.
    """

    name: str
    input: Row
    branch: Row
    plain: Row
    readout: Row
    beside: Laws = field(default=Laws())
    depth: Law = field(default=_ONE)
    reach: float = 0.0
    slower: float = 1.0
    ends: float | None = None
    gamma: float = 1.0
    base: Base = field(default=Base())
    initialise: Initialiser = field(default=normal)

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, not {self.gamma}")
        if min(self.base) < 1:
            raise ValueError(f"a base shape has sizes of at least 1, not {self.base}")

    def branch_multiplier(self, length: int) -> float:
        """Return b of a residual branch, in a network of `length` weight layers."""
        return self.depth(1, length, self.gamma)

    def scale(
        self, role: Role, shape: Shape, fan_in: int | None = None, *, skip: bool = False
    ) -> Scale:
        """Evaluate the table for a weight.

        Args:
            role: what its layer is for.
            shape: of the network.
            fan_in: how many inputs each of its outputs sums over; the width unless given.
            skip: whether it lies in a residual branch.
        """
        fan_in = shape.width if fan_in is None else fan_in
        return self._scale(self._row(role, skip=skip).weight, role, "weight", shape, fan_in)

    def bias_scale(
        self, role: Role, shape: Shape, *, skip: bool = False, beside: bool = False
    ) -> Scale:
        """Evaluate the table for a bias, which in a residual layer may lie `beside` the branch."""
        laws = self.beside if skip and beside else self._row(role, skip=skip).bias
        return self._scale(laws, role, "bias", shape, shape.width)

    def _row(self, role: Role, *, skip: bool) -> Row:
        hidden = self.branch if skip else self.plain
        return {"input": self.input, "hidden": hidden, "readout": self.readout}[role]

    def _scale(self, laws: Laws, role: Role, kind: Kind, shape: Shape, fan_in: int) -> Scale:
        length = shape.length / self.base.length
        # An update by Adam adds up over the weight's own inputs; a gradient falls with the width
        # of the network, as the readout divides by it.
        own = (fan_in / self.base.width, length, self.gamma)
        whole = (shape.width / self.base.width, length, self.gamma)
        summed = own if role == "hidden" else whole
        # L branches of L^−α change the output by L^(1−α) times what one of them changes; at the
        # base shape, whose α is ½, that is √L₀.
        along = 1 + self.reach + self.depth.depth if self.depth.depth else 0.5
        deep, wide = self.base.length**0.5 * shape.length**-along, summed[0] ** -0.5
        hidden = min(wide * min(deep, _LARGEST_OF_DEPTH), _LARGEST_HIDDEN)
        outer = min(max(wide * (self.ends or deep), 1.0), _LARGEST_OUTER)
        return Scale(
            role=role,
            kind=kind,
            std=laws.std(fan_in, 1, self.gamma),
            multiplier=laws.multiplier(fan_in, 1, self.gamma),
            adam=laws.adam(*own),
            sgd=laws.sgd(*whole),
            uniform=hidden / self.slower if role == "hidden" else outer,
        )


# Measured, not derived: on the digits with 128 layers of width 64, Adam .02, 20 epochs, 95.6 % with
# 2 and 96.7 % with 4; Adam .04, 95.0 % with 4 and 96.4 % with 8 (one seed).
_SLOWER_COUPLINGS = 4.0

# What input and readout change of the output does not depend on depth. On 300 batches of MNIST,
# 128 layers of width 64, 90.9 % with 1, 91.7 % with 2 and 92.2 % with 4 (one seed).
_RATES_AT_ENDS = 4.0

_FAN_IN = Law(width=-0.5)
_GAMMA = Law(gamma=1)
_SGD = Law(width=1, gamma=2)
_ROOT_OF_DEPTH = Law(depth=-0.5)


def standard(*, initialise: Initialiser = normal) -> Parameterisation:
    r"""Weights from $N(0, 1/\text{fan-in})$, no multipliers: what most networks use."""
    row = Row(Laws(std=_FAN_IN))
    return Parameterisation("standard", row, row, row, row, initialise=initialise)


def ntk(*, initialise: Initialiser = normal) -> Parameterisation:
    r"""Weights from $N(0, 1)$, multiplier $1/\sqrt{\text{fan-in}}$, branches $1/\sqrt{L}$."""
    row = Row(Laws(multiplier=_FAN_IN))
    return Parameterisation("ntk", row, row, row, row, depth=_ROOT_OF_DEPTH, initialise=initialise)


def mupc(
    gamma: float = 1.0,
    *,
    exponent: float = 0.5,
    base: Base | None = None,
    initialise: Initialiser = normal,
) -> Parameterisation:
    r"""Depth-μP for predictive coding (arXiv 2505.13124, Table 1).

    As `ntk`, but with a readout multiplier of $1/(\gamma\,\text{fan-in})$. The rate factors keep
    the change of every layer's activity, per update by exact gradients, independent of width and
    depth: within a branch of multiplier $L^{-\alpha}$ those of Adam are $L^{\alpha-1}$ (and for
    weights $1/\sqrt{\text{fan-in}}$), those of SGD $N L^{2\alpha-1}$; a bias beside a branch adds
    up coherently along depth, hence its $1/L$.

    Args:
        gamma: $\gamma$; larger means more feature learning. The paper's is 1.
        exponent: α, ½ as in Depth-μP; 1 as in CompleteP (arXiv 2505.01618), meant for branches of
            several matrices.
        base: the shape at which the rate factors of *mup* are 1.
        initialise: draws the weights; `normal` or `orthogonal`.
    """
    if not 0 <= exponent <= 1:
        raise ValueError(f"exponent must be at least 0 and at most 1, not {exponent}")
    outer = Laws(multiplier=_FAN_IN, adam=_GAMMA, sgd=_SGD)
    adam, sgd = exponent - 1, 2 * exponent - 1
    return Parameterisation(
        "mupc",
        input=Row(outer, Laws(adam=_GAMMA, sgd=_SGD)),
        branch=Row(
            Laws(
                multiplier=_FAN_IN,
                adam=Law(width=-0.5, depth=adam, gamma=1),
                sgd=Law(width=1, depth=sgd, gamma=2),
            ),
            Laws(adam=Law(depth=adam, gamma=1), sgd=Law(width=1, depth=sgd, gamma=2)),
        ),
        plain=Row(
            Laws(multiplier=_FAN_IN, adam=Law(width=-0.5, gamma=1), sgd=_SGD),
            Laws(adam=_GAMMA, sgd=_SGD),
        ),
        readout=Row(Laws(multiplier=Law(width=-1, gamma=-1), adam=_GAMMA, sgd=_SGD)),
        beside=Laws(adam=Law(depth=-1, gamma=1), sgd=Law(width=1, depth=-1, gamma=2)),
        depth=Law(depth=-exponent),
        gamma=gamma,
        base=base or Base(),
        initialise=initialise,
    )


def generative(*, initialise: Initialiser = normal) -> Parameterisation:
    r"""`ntk` for networks that generate (`mupc.decoder`): *uniform* rates in $1/L$.

    Changes of L residual layers multiply in the curvature of the energy by the latent variables. At
    the *uniform* rates of a network that classifies, $1/\sqrt L$, it grows a thousandfold within 40
    updates of 64 layers, and nothing is learned. Those of input and readout do not depend on depth.

    Args:
        initialise: draws the weights; `normal` or `orthogonal`.
    """
    laws = ntk(initialise=initialise)
    return dataclasses.replace(
        laws, name="generative", reach=0.5, ends=laws.base.length**0.5 / _LAYERS**0.5
    )


# Of two hidden layers and a readout, with which a decoder's rates were chosen.
_LAYERS = 3


def hopfield(
    gamma: float = 1.0, *, base: Base | None = None, initialise: Initialiser = normal
) -> Parameterisation:
    r"""`mupc` for layers coupled both ways (`mupc.residual_hopfield`): branches $L^{-3/2}$.

    The energy $\sum_l \tfrac12 \|s_l - s_{l-1}\|^2$ of a chain has the Green's function
    $\min(l, j)$: a force on any layer moves all of them, those above it by L times itself. Forces
    of L random couplings then add up to $L^{3/2}$, where those of a feedforward chain add up to
    $L^{1/2}$. A change of all weights along their gradients adds up to $L^2$, so that Adam's rate
    factors are those of `mupc`: $L^{-1/2}$, and $1/\sqrt{\text{fan-in}}$. Those of *uniform* are a
    quarter of them within branches: couplings that grow together also bend the energy, whose
    minimum is then found more slowly, and no longer one. Those of input and readout, whose changes
    move the output by as much at any depth, do not depend on it.

    Args:
        gamma: $\gamma$, by which the readout is divided.
        base: the shape at which the rate factors of *mup* are 1.
        initialise: draws the weights; `normal` or `orthogonal`.
    """
    laws = mupc(gamma, base=base, initialise=initialise)
    return dataclasses.replace(
        laws,
        name="hopfield",
        depth=Law(depth=-1.5),
        reach=1.0,
        slower=_SLOWER_COUPLINGS,
        ends=_RATES_AT_ENDS,
    )
