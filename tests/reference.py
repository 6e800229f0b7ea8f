"""Slow, plain references in NumPy: loops over layers and samples, formulas written out."""

import jax
import numpy as np

ACTIVATIONS = {
    "relu": (jax.nn.relu, lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "tanh": (jax.numpy.tanh, np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


class Reference:
    """A residual MLP with a single stage, read off the library's network, layer by layer."""

    def __init__(self, network, activation="relu", skips=True):
        self.phi, self.slope = ACTIVATIONS[activation][1:] if activation else (_same, np.ones_like)
        stage = network.stages[0]
        layers = [
            (stage.entry.multiplier, stage.entry.weights, stage.entry.biases),
            *(
                (hidden.multiplier, w, None if hidden.biases is None else hidden.biases[i])
                for hidden in stage.blocks
                for i, w in enumerate(hidden.weights)
            ),
            (network.readout.multiplier, network.readout.weights, network.readout.biases),
        ]
        self.weights = [a * np.asarray(w, float) for a, w, _ in layers]
        self.biases = [0.0 if b is None else np.asarray(b, float) for *_, b in layers]
        self.skips = skips
        self.depth = len(layers) - 1

    def layer(self, i, z):
        """The prediction by layer i (from 0) from the activity before it, (batch, features)."""
        inner = z if i == 0 else self.phi(z)
        u = inner @ self.weights[i].T + self.biases[i]
        return z + u if self.skips and 0 < i < self.depth else u

    def pull_back(self, i, z, error):
        """(∂u/∂z)ᵀ error of layer i, written out."""
        back = (error @ self.weights[i]) * (1.0 if i == 0 else self.slope(z))
        return error + back if self.skips and 0 < i < self.depth else back

    def feedforward(self, x, errors=None):
        z, activities = x, []
        for i in range(self.depth):
            z = self.layer(i, z) + (0 if errors is None else errors[i])
            activities.append(z)
        return np.stack(activities), self.layer(self.depth, z)

    def errors(self, x, y, z):
        """Hidden errors z − u, and the output's y − ŷ."""
        below = [x, *z]
        hidden = [z[i] - self.layer(i, below[i]) for i in range(self.depth)]
        return hidden, y - self.layer(self.depth, z[-1])

    def activity_gradient(self, x, y, z, precision):
        """∂F/∂z_l = e_l − (∂u_{l+1}/∂z_l)ᵀ e_{l+1}."""
        hidden, output = self.errors(x, y, z)
        above = [*hidden[1:], precision * output]
        return np.stack(
            [hidden[i] - self.pull_back(i + 1, z[i], above[i]) for i in range(self.depth)]
        )

    def weight_gradients(self, x, y, z, precision):
        """∂F/∂(aW_l) = −e_l φ(z_{l−1})ᵀ, the batch mean."""
        hidden, output = self.errors(x, y, z)
        below = [x, *self.phi(z)]
        errors = [*hidden, precision * output]
        return [-e.T @ inner / len(x) for e, inner in zip(errors, below, strict=True)]

    def linear_equilibrium(self, x, y, precision):
        """Solve for z* of a deep linear network with one dense system per sample: A z = b."""
        width, size = self.weights[0].shape[0], self.depth
        A = np.zeros((size * width, size * width))
        b = np.zeros((len(x), size * width))
        eye = np.eye(width)
        for i in range(size):
            here = slice(i * width, (i + 1) * width)
            A[here, here] += eye
            b[:, here] += self.biases[i]
            if i == 0:
                b[:, here] += x @ self.weights[0].T
            if i + 1 < size:
                M = self.weights[i + 1] + (eye if self.skips else 0)
                there = slice((i + 1) * width, (i + 2) * width)
                A[here, here] += M.T @ M
                A[here, there] = -M.T
                A[there, here] = -M
                b[:, here] -= self.biases[i + 1] @ M if np.ndim(self.biases[i + 1]) else 0.0
            else:
                W = self.weights[size]
                A[here, here] += precision * W.T @ W
                b[:, here] += precision * (y - self.biases[size]) @ W
        z = np.linalg.solve(A, b.T).T
        return z.reshape(len(x), size, width).transpose(1, 0, 2), A


def _same(z):
    return z


def batch(inputs, outputs, size=5, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(size, inputs))
    y = np.eye(outputs)[generator.integers(0, outputs, size)]
    return x, y


def convolution(x, w, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """Sum over every pixel of output and kernel; x is (batch, height, width, channels)."""
    pads = []
    for n, k, s, d in zip(x.shape[1:3], w.shape[:2], strides, dilation, strict=True):
        seen = (k - 1) * d + 1
        total = max((-(-n // s) - 1) * s + seen - n, 0) if padding == "SAME" else 0
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [(0, 0), *(pads if isinstance(padding, str) else padding), (0, 0)])
    height, width = (
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:3], w.shape[:2], strides, dilation, strict=True)
    )
    y = np.zeros((len(x), height, width, w.shape[3]))
    for p in range(height):
        for q in range(width):
            for i in range(w.shape[0]):
                for j in range(w.shape[1]):
                    pixel = x[:, p * strides[0] + i * dilation[0], q * strides[1] + j * dilation[1]]
                    y[:, p, q] += pixel @ w[i, j]
    return y
