"""Text from a network that predicts the next character."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mupc.networks import Network
from mupc.records import DataSummary, RunError


def generate(
    network: Network,
    data: DataSummary,
    prompt: str,
    *,
    length: int,
    temperature: float = 1.0,
    key: PRNGKeyArray,
) -> str:
    r"""Return a prompt and the characters that a network lets follow, one drawn after the other.

    Each is drawn from the softmax of the output at the last position, divided by the temperature;
    the network sees the last characters, as many as it takes.

    Args:
        network: predicts the next of `data.classes` at every position.
        data: what it was trained on: `mupc.runs.load_trained` reads both.
        prompt: at least one character.
        length: how many characters are drawn.
        temperature: below 1 for likelier ones.
        key: draws them.

    Raises:
        RunError: if the data are no text, or the prompt has characters that they have not.
    """
    characters = _characters(data)
    numbers = {character: i for i, character in enumerate(characters)}
    if unknown := sorted(set(prompt) - numbers.keys()):
        raise RunError(f"the text that the network knows has no {', '.join(map(repr, unknown))}")
    if not prompt:
        raise RunError("a prompt has at least one character")
    (context,) = data.shape
    drawn = [numbers[character] for character in prompt]
    for one in jax.random.split(key, length):
        seen = drawn[-context:]
        window = jnp.zeros(context, int).at[: len(seen)].set(jnp.asarray(seen))
        last, warmth = jnp.asarray(len(seen) - 1), jnp.asarray(temperature)
        drawn.append(int(_next(network, window, last, warmth, one)))
    return "".join(characters[number] for number in drawn)


def _characters(data: DataSummary) -> Sequence[str]:
    classes = [str(name) for name in data.classes or ()]
    if data.targets[:-1] != data.shape or not classes:
        raise RunError(f"{data.name} is no text, and the network makes no pictures")
    return classes


@eqx.filter_jit
def _next(
    network: Network,
    window: Int[Array, " context"],
    last: Int[Array, ""],
    temperature: Float[Array, ""],
    key: PRNGKeyArray,
) -> Int[Array, ""]:
    logits = network.feedforward(window[None]).output[0, last]
    return jax.random.categorical(key, logits / temperature)
