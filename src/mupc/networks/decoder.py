"""Generative networks: chains whose input is free, and has a prior."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from mupc import parameterisations
from mupc.kinds import check_kind, check_sizes
from mupc.networks.activations import Activation, identity
from mupc.networks.block import Block, Known
from mupc.networks.chain import Chain
from mupc.networks.convolutional import Convolution, Features, residual_blocks
from mupc.networks.mlp import residual_mlp
from mupc.networks.stage import Stage
from mupc.parameterisations import Parameterisation, Shape


class Prior(Block):
    r"""An end that is free: what it predicts is the mean of a Gaussian prior, zero.

    As the entry of a chain it makes the first activity z a latent variable: the energy has the term
    $\tfrac12 \|z\|^2$, the negative logarithm of $N(0, I)$ but for a constant. It reads nothing of
    x.
    """

    title: ClassVar[str] = "prior"
    free: ClassVar[bool] = True
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """True."""
        return True

    def __call__(self, z: Num[Array, "..."]) -> Float[Array, "..."]:
        """Return the mean."""
        del z
        return jnp.zeros(self.shape)


class PriorAboutInput(Prior):
    r"""A prior whose mean is x: the energy has the term $\tfrac12 \|z - x\|^2$."""

    about_input: ClassVar[bool] = True

    def __call__(self, z: Num[Array, "..."]) -> Float[Array, "..."]:
        """Return x."""
        return jnp.asarray(z, float)


class ClassPrior(Prior):
    r"""A prior of latent variables of which every class has some of its own.

    $z = (y, z_1, \ldots, z_C)$: of the class that x says, one-hot, y and all others' variables,
    zero, are known, and its own are free with the prior $N(0, I)$.
    """

    about_input: ClassVar[bool] = True
    each: int = eqx.field(static=True)

    @property
    def classes(self) -> int:
        """C."""
        return self.shape[0] // (1 + self.each)

    def known(self, x: Num[Array, " classes"]) -> Known:
        """Return what the class says."""
        x = jnp.asarray(x, float)
        others = jnp.repeat(1 - x, self.each)
        return Known(jnp.concatenate([jnp.ones_like(x), others]), self(x))

    def __call__(self, z: Num[Array, " classes"]) -> Float[Array, " latents"]:
        """Return the mean: the class, and zeros.

        Raises:
            ValueError: if z is no vector of as many numbers as there are classes.
        """
        if z.shape != (self.classes,):
            raise ValueError(
                f"this network takes a class of {self.classes} as a row of a one and zeros, not an "
                f"input of shape {z.shape}: give it data.reversed(), whose inputs are labels"
            )
        return jnp.concatenate([jnp.asarray(z, float), jnp.zeros(self.classes * self.each)])


class Upsampling(Convolution):
    """A convolution whose channels become 2 × 2 pixels of a quarter of them (arXiv 1609.05158)."""

    title: ClassVar[str] = "upsampling"

    def __call__(self, z: Num[Array, "height width channels"]) -> Features:
        """Predict the next activity of one example."""
        u = super().__call__(z)
        height, width, channels = u.shape
        parts = u.reshape(height, width, 2, 2, channels // 4).transpose(0, 2, 1, 3, 4)
        return parts.reshape(2 * height, 2 * width, channels // 4)


def with_prior(network: Chain, shape: tuple[int, ...], *, about_input: bool = False) -> Chain:
    r"""Return a network whose input is free: a latent variable, inferred from the output.

    $$F(z) = \tfrac12 \|z_0\|^2 + \sum_{l=1}^{H} \tfrac12 \|z_l - u_l(z_{l-1})\|^2
      + \ell(y, \hat y(z_H))$$

    An end that is free is one more layer, whose prediction is the mean of the prior: every energy,
    solver and rule takes it as it is. Its own x is the datum y itself, which nothing reads, so that
    `rule.predict(network, x)` is the datum as the network generates it from the latent variables
    that it infers; training takes batches (y, y). Of a network from labels to images the labels
    are inferred in this way.

    With `about_input` x is an input whose numbers are known in part: those that
    `mupc.FreeEnergy(…, given=…)` says are as x has them, and the others free, with x as the mean of
    their prior.

    Args:
        network: what is to generate.
        shape: of one of its inputs.
        about_input: whether x is the mean of the prior; else it is zero.

    Raises:
        TypeError: if the network is no `mupc.Chain`, or the shape no tuple of whole numbers.
        ValueError: if its input is free already, or the shape is not that of an input.
    """
    check_kind("network", network, Chain, "a mupc.Chain, e.g. mupc.residual_mlp(…)")
    check_kind("shape", shape, tuple, "the shape of an input, e.g. (64,)")
    if network.generates:
        raise ValueError("the input of this network is free already")
    check_sizes(**{f"shape[{i}]": size for i, size in enumerate(shape)})
    jax.eval_shape(network.feedforward, jax.ShapeDtypeStruct((1, *shape), float))  # does it fit?
    prior = PriorAboutInput if about_input else Prior
    return Chain((Stage(prior(tuple(shape))), *network.stages), network.readout)


def decoder(
    latents: int,
    outputs: int,
    *,
    width: int,
    depth: int,
    activation: Activation = jnp.tanh,
    skips: bool = True,
    biases: bool = True,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    """Build a fully connected network that generates data from latent variables.

    It is `mupc.with_prior` of a `mupc.residual_mlp`.

    Args:
        latents: how many latent variables there are.
        outputs: the width of a datum.
        width: of every hidden layer.
        depth: the number of hidden layers between the latent variables and the output.
        activation: φ; one without a derivative at zero, such as relu, would keep latent variables
            at zero, where inference begins.
        skips: whether hidden layers are residual.
        biases: whether layers have biases.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or the activation is not a function.
    """
    network = residual_mlp(
        latents,
        outputs,
        width=width,
        depth=depth,
        activation=activation,
        skips=skips,
        biases=biases,
        parameterisation=parameterisation,
        key=key,
    )
    return with_prior(network, (latents,))


def class_decoder(
    classes: int,
    outputs: int,
    *,
    latents: int,
    width: int,
    depth: int,
    activation: Activation = jnp.tanh,
    skips: bool = True,
    biases: bool = True,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    r"""Build a fully connected network that generates data of a class.

    $$F(z) = \tfrac12 \|z_c\|^2 + \sum_{l=1}^{H} \tfrac12 \|z_l - u_l(z_{l-1})\|^2
      + \ell(y, \hat y(z_H)), \quad z_0 = (c, 0, \ldots, z_c, \ldots, 0)$$

    Every class c has latent variables $z_c$ of its own, and those of the others are zero, so that
    each has a manifold of its own, of a shared network. That is what makes an inferred class
    tell: where all share the latent variables, these explain a datum of any class nearly as well.
    The class of a datum is the one whose energy, with the latent variables inferred, is least
    (`mupc.recall`).

    Args:
        classes: C; the input is one of them, one-hot.
        outputs: the width of a datum.
        latents: how many latent variables each class has.
        width: of every hidden layer.
        depth: the number of hidden layers between the latent variables and the output.
        activation: φ.
        skips: whether hidden layers are residual.
        biases: whether layers have biases.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or the activation is not a function.
    """
    check_sizes(classes=classes, latents=latents)
    network = residual_mlp(
        classes * (1 + latents),
        outputs,
        width=width,
        depth=depth,
        activation=activation,
        skips=skips,
        biases=biases,
        parameterisation=parameterisation,
        key=key,
    )
    prior = ClassPrior((classes * (1 + latents),), latents)
    return Chain((Stage(prior), *network.stages), network.readout)


def conv_decoder(
    latents: int,
    shape: tuple[int, int, int],
    *,
    doublings: int = 2,
    blocks: int = 1,
    channels: int = 16,
    activation: Activation = jnp.tanh,
    error_kernels: bool = False,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    r"""Build a convolutional network that generates images from latent variables.

    Latent variables are a small image of `latents` channels. Each stage begins with a convolution,
    which in all but the first doubles the sides of the image and halves its channels, and goes on
    with residual blocks, $u = z + b\, a W * \phi(z)$; the readout is a convolution to the colours.
    It is `mupc.with_prior` of a `mupc.conv_resnet` run backwards, with the same multipliers.

    Args:
        latents: channels of the latent image, whose sides are those of an image over 2^doublings.
        shape: of an image, (height, width, channels).
        doublings: how often the sides are doubled, one less than there are stages.
        blocks: how many residual blocks each stage has.
        channels: of the last stage.
        activation: φ; without error kernels one with a derivative at zero, where inference begins.
        error_kernels: whether errors go back by kernels of their own, which learn what the others
            do, and without φ′, as in convolutional neural generative coding (arXiv 2211.12047);
            else by the exact gradient. It is for `mupc.GradientDescent` with a number as its step.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number, or `error_kernels` no truth value.
        ValueError: if a size is impossible, or the sides of an image cannot be halved so often.
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be (height, width, channels), not {shape}")
    height, width, colours = shape
    check_kind("error_kernels", error_kernels, bool, "True or False")
    check_sizes(latents=latents, blocks=blocks, channels=channels, doublings=doublings)
    check_sizes(height=height, width=width, colours=colours)
    times = 2**doublings
    if height % times or width % times:
        raise ValueError(
            f"images of {height} × {width} pixels cannot be halved {doublings} times: their sides "
            f"must be multiples of {times}"
        )
    laws = parameterisation or parameterisations.mupc()
    length = (doublings + 1) * (blocks + 1) + 1
    stages, before = list[Stage](), latents
    *keys, readout_key = jax.random.split(key, doublings + 2)
    for i, stage_key in enumerate(keys):
        own = channels * 2 ** (doublings - i)
        there = Shape(own, length)
        entry_key, blocks_key = jax.random.split(stage_key)
        if i == 0:
            make, size, role, reads = Convolution.initialise, (before, own), "input", identity
        else:
            make, size, role, reads = Upsampling.initialise, (before, 4 * own), "hidden", activation
        entry = make(size, role, reads, laws, there, error_kernels=error_kernels, key=entry_key)
        stack = residual_blocks(
            own, blocks, activation, blocks_key, laws, there, error_kernels=error_kernels
        )
        stages.append(Stage(entry, stack))
        before = own
    end, there = (before, colours), Shape(before, length)
    readout = Convolution.initialise(
        end, "readout", activation, laws, there, error_kernels=error_kernels, key=readout_key
    )
    inner = Chain(tuple(stages), readout)
    return with_prior(inner, (height // times, width // times, latents))
