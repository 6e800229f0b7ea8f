r"""Parameterisations as data: one table of initial scales, forward multipliers and rate factors.

A layer's weight $W$ is drawn with standard deviation `std` and enters the forward pass as
$aW$ with `multiplier` $a$. What distinguishes `standard`, `ntk` and `mupc` is how these, and the
layer's learning-rate factors, scale with the size of the network; each entry of the table is a
power law, $\text{width}^{p}\,\text{depth}^{q}\,\gamma^{r}$.

- $a$ and `std` are laws in the layer's fan-in, the number of weight layers $L = H + 1$, and
  $\gamma$.
- rate factors are laws in $N / N_0$, $L / L_0$ and $\gamma$, with the base shape $N_0 = 128$,
  $L_0 = 129$, so that a rate tuned at 128 hidden layers of width 128 means the same elsewhere.

Source: μPC (arXiv 2505.13124), Table 1; Depth-μP (arXiv 2310.02244) for the rate factors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Role = Literal["input", "hidden", "readout"]
"""What a layer is for: it reads the data, lies between activities, or makes the output."""

ROLES: tuple[Role, ...] = ("input", "hidden", "readout")

BASE_WIDTH = 128
BASE_LENGTH = 129

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
    """One row of the table: how every number of a layer scales."""

    std: Law
    multiplier: Law
    adam_weight: Law = _ONE
    adam_bias: Law = _ONE
    sgd_weight: Law = _ONE
    sgd_bias: Law = _ONE


class Factors(NamedTuple):
    """Learning-rate factors of a layer's weights and of its biases."""

    weight: float
    bias: float


_UNSCALED = Factors(1.0, 1.0)

# The rule is about hidden layers. The effect of entry and readout on the output does not fall with
# N or L: in small networks the rule would let them diverge, and in the largest starve them (10,000
# layers of width 64 reach 92 % on the digits in 5 epochs where their factor is a sixth, and 96 %
# where it is 1).
_LARGEST_UNIFORM = 4.0


@dataclass(frozen=True)
class Scale:
    """The numbers of one layer, fixed when the network is built.

    `std` and `multiplier` scale the weight alone, never a bias. `adam` and `sgd` are the layer's
    learning-rate factors under the *mup* rule, `uniform` under the *uniform* rule (see
    `mupc.scale_adam`, `mupc.scale_sgd` and `mupc.scale_uniform`).
    """

    role: Role
    std: float = 1.0
    multiplier: float = 1.0
    adam: Factors = _UNSCALED
    sgd: Factors = _UNSCALED
    uniform: Factors = _UNSCALED


@dataclass(frozen=True)
class Parameterisation:
    r"""A table of laws by role; hidden layers have one row with skips and one without."""

    name: str
    input: Laws
    residual: Laws
    plain: Laws
    readout: Laws
    gamma: float = 1.0
    initialise: Initialiser = field(default=normal)

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, not {self.gamma}")

    def scale(self, role: Role, fan_in: int, *, width: int, length: int, skips: bool) -> Scale:
        """Evaluate the row of `role` for a layer of a network.

        Args:
            role: what the layer is for.
            fan_in: its number of inputs.
            width: the network's hidden width N.
            length: the network's number of weight layers, L = H + 1.
            skips: whether hidden layers have skip connections.
        """
        hidden = self.residual if skips else self.plain
        laws = {"input": self.input, "hidden": hidden, "readout": self.readout}[role]
        shape = (fan_in, length, self.gamma)
        relative = (width / BASE_WIDTH, length / BASE_LENGTH, self.gamma)
        uniform = min((relative[0] * relative[1]) ** -0.5, _LARGEST_UNIFORM)
        if role != "hidden":
            uniform = max(uniform, 1.0)
        return Scale(
            role=role,
            std=laws.std(*shape),
            multiplier=laws.multiplier(*shape),
            adam=Factors(laws.adam_weight(*relative), laws.adam_bias(*relative)),
            sgd=Factors(laws.sgd_weight(*relative), laws.sgd_bias(*relative)),
            uniform=Factors(uniform, uniform),
        )


_FAN_IN = Law(width=-0.5)
_FAN_IN_AND_DEPTH = Law(width=-0.5, depth=-0.5)
_GAMMA = Law(gamma=1)
_SGD = Law(width=1, gamma=2)


def standard(*, initialise: Initialiser = normal) -> Parameterisation:
    r"""Weights from $N(0, 1/\text{fan-in})$, no multipliers: what most networks use."""
    row = Laws(std=_FAN_IN, multiplier=_ONE)
    return Parameterisation("standard", row, row, row, row, initialise=initialise)


def ntk(*, initialise: Initialiser = normal) -> Parameterisation:
    r"""Weights from $N(0, 1)$, multiplier $1/\sqrt{\text{fan-in}}$, with skips $1/\sqrt{L}$ too."""
    row = Laws(std=_ONE, multiplier=_FAN_IN)
    residual = Laws(std=_ONE, multiplier=_FAN_IN_AND_DEPTH)
    return Parameterisation("ntk", row, residual, row, row, initialise=initialise)


def mupc(gamma: float = 1.0, *, initialise: Initialiser = normal) -> Parameterisation:
    r"""Depth-μP for predictive coding (arXiv 2505.13124, Table 1).

    As `ntk`, but with a readout multiplier of $1/(\gamma\,\text{fan-in})$. The rate factors keep
    the change of every layer's activity, per update by exact gradients, independent of width and
    depth; residual biases add up coherently along depth, hence their $1/L$.

    Args:
        gamma: $\gamma$; larger means more feature learning. The paper's is 1.
        initialise: draws the weights; `normal` or `orthogonal`.
    """
    return Parameterisation(
        "mupc",
        input=Laws(
            std=_ONE,
            multiplier=_FAN_IN,
            adam_weight=_GAMMA,
            adam_bias=_GAMMA,
            sgd_weight=_SGD,
            sgd_bias=_SGD,
        ),
        residual=Laws(
            std=_ONE,
            multiplier=_FAN_IN_AND_DEPTH,
            adam_weight=Law(width=-0.5, depth=-0.5, gamma=1),
            adam_bias=Law(depth=-1, gamma=1),
            sgd_weight=_SGD,
            sgd_bias=Law(width=1, depth=-1, gamma=2),
        ),
        plain=Laws(
            std=_ONE,
            multiplier=_FAN_IN,
            adam_weight=Law(width=-0.5, gamma=1),
            adam_bias=_GAMMA,
            sgd_weight=_SGD,
            sgd_bias=_SGD,
        ),
        readout=Laws(
            std=_ONE,
            multiplier=Law(width=-1, gamma=-1),
            adam_weight=_GAMMA,
            sgd_weight=_SGD,
        ),
        gamma=gamma,
        initialise=initialise,
    )
