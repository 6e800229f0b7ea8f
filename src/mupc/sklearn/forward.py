"""What a network predicts of any number of samples, by one program."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from mupc.learning import LearningRule
from mupc.networks import Network

# Samples that are predicted at once: always as many, so that one program serves every number of
# them, and what is predicted of a sample does not depend on the others.
_AT_ONCE = 256


def outputs(
    network: Network, rule: LearningRule, x: Float32[np.ndarray, "n ..."]
) -> Float[np.ndarray, "n outputs"]:
    """Return what a network predicts by its rule."""
    count = len(x)
    whole = np.zeros((-(-count // _AT_ONCE) * _AT_ONCE, *x.shape[1:]), np.float32)
    whole[:count] = x
    parts = whole.reshape(-1, _AT_ONCE, *x.shape[1:])
    found = [np.asarray(_run(network, rule, jnp.asarray(part, float))) for part in parts]
    return np.concatenate(found)[:count].astype(np.float64)


@eqx.filter_jit
def _run(
    network: Network, rule: LearningRule, x: Float[Array, "batch ..."]
) -> Float[Array, "batch outputs"]:
    return rule.predict(network, x)
