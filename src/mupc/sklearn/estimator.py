"""What the estimators share: parameters, training, pickling, and running forwards."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Self, cast

import numpy as np
from jaxtyping import Float, Float32
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mupc.data import Dataset, Split, Weights, steps_per_epoch
from mupc.networks import Network
from mupc.records import Ended, Regime, TrainRecord, ValidationRecord
from mupc.runs.setup import Setup, member_of, set_up
from mupc.settings import ConfigError, Configuration
from mupc.settings.configuration import KINDS, check_name
from mupc.settings.network import NetworkKind
from mupc.sklearn.forward import outputs
from mupc.sklearn.inputs import as_weights, checked
from mupc.sklearn.parameters import DEFAULTS, setting_names, show_settings
from mupc.sklearn.stream import Stream, as_batch, batches, first_state, one_pass
from mupc.training.fit import fit_together
from mupc.training.plan import Plan
from mupc.training.progress import Progress
from mupc.training.session import first_batch
from mupc.training.step import copy_arrays
from mupc.training.trees import fill, named_arrays, named_settings, require_same


class Estimator(BaseEstimator):
    """What classifier and regressor share; the parameters are described in `PCClassifier`."""

    network_: Network
    n_features_in_: int
    _config: Configuration
    _outputs: int
    _shape: tuple[int, ...]
    _stream: Stream | None

    def __init__(
        self,
        *,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
        **settings: Any,
    ) -> None:
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        for name in setting_names():
            setattr(self, name, settings.pop(name, None))
        if settings:
            check_name(next(iter(settings)))  # says which is meant
            raise ConfigError(f"an estimator has no parameter {next(iter(settings))}")

    def __sklearn_tags__(self) -> Any:
        tags = cast(Any, super()).__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # JAX's functions cannot be pickled, so networks go as arrays.
        state = cast(dict[str, Any], super().__getstate__())
        if (stream := state.get("_stream")) is not None:
            held = named_arrays(stream.state)
            state = state | {"_stream": (stream.setup.regime, held, stream.steps)}
        if "network_" in state:
            state = state | {"network_": named_arrays(state["network_"])}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        cast(Any, super()).__setstate__(state)
        if not hasattr(self, "network_"):
            return
        refusal = "this estimator was pickled by another version of mupc"
        setup = self._set_up(self._config, Regime(1.0, None))
        self.network_ = fill(setup.member.network, cast(Any, self.network_), refusal)
        if self._stream is not None:
            regime, held, steps = cast(Any, self._stream)
            setup = self._set_up(self._config, regime)
            self._stream = Stream(setup, fill(first_state(setup), held, refusal), steps)

    def _fit(
        self,
        x: Any,
        y: Float32[np.ndarray, "n outputs"],
        weights: Weights | None,
        labels: Any = None,
    ) -> Self:
        """Train, from the beginning unless `warm_start` says otherwise."""
        network = getattr(self, "network_", None) if self.warm_start else None
        seed, train, validation = self._seed(), Split(x, y), None
        if self.early_stopping:
            train, validation, weights = self._parted(x, y, weights, labels, seed)
        self._outputs = y.shape[1]
        config = self._configured(seed)
        size = min(config.training.batch_size, len(train.x))
        config = config.changed({"batch_size": size})
        data = Dataset(type(self).__name__, train, validation, None, "none", weights=weights)
        epoch = steps_per_epoch(len(train.x), size)
        steps = max(1, round(config.training.epochs * epoch))
        setup = self._begin(config, data, steps, network, None)
        # Where it would come too late to end anything, it would be refused.
        stops = validation is not None and (self.n_iter_no_change + 1) * epoch < steps
        progress = Progress(steps, size) if self.verbose else None
        plan = Plan(
            steps=steps,
            batch_size=size,
            early_stopping=self.n_iter_no_change if stops else None,
            log_every=epoch,
        )
        (result,) = fit_together([setup.member._replace(callback=progress)], data, plan)
        if progress is not None:
            progress.close(result.message)
        if result.ended is Ended.DIVERGED:
            warnings.warn(result.message, ConvergenceWarning, stacklevel=3)
        self._config, self.network_, self._stream = config, result.network, None
        self.regime_, self.n_iter_ = setup.regime, max(1, round(result.steps / epoch))
        self._keep_curves(result.records, validated=validation is not None)
        return self

    def _keep_curves(self, records: Sequence[Any], *, validated: bool) -> None:
        """Show what the records of a fit say, as attributes."""
        self.loss_curve_ = [r.loss for r in records if isinstance(r, TrainRecord)]
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else float("nan")
        if validated:
            seen = [r for r in records if isinstance(r, ValidationRecord)]
            self.validation_scores_ = [-r.loss if r.accuracy is None else r.accuracy for r in seen]
            self.best_validation_score_ = max(self.validation_scores_, default=float("nan"))

    def _partial_fit(
        self, x: Any, y: Float32[np.ndarray, "n outputs"], weights: Weights | None
    ) -> Self:
        """Make one pass through some data, from where the last call ended."""
        stream = cast(Stream | None, getattr(self, "_stream", None))
        if stream is None:
            config = self._configured(self._seed(), schedule="constant")
            data = Dataset(type(self).__name__, Split(x, y), None, None, "none")
            first = tuple(part[batches(config, 0, len(x), weights)[0]] for part in (x, y))
            setup = self._begin(config, data, 1, getattr(self, "network_", None), first)
            stream = Stream(setup, first_state(setup), 0)
            self._config, self._outputs = config, y.shape[1]
            self.regime_, self.n_iter_ = setup.regime, 0
        stream, self.loss_ = one_pass(stream, self._config, x, y, weights)
        state = stream.state
        if int(state.failed) >= 0:
            warnings.warn(
                f"training diverged at step {int(state.failed) + 1}, and no step is made after it: "
                "begin again with a smaller learning rate",
                ConvergenceWarning,
                stacklevel=3,
            )
        self._stream = stream
        # Steps consume the buffers of the state: what predicts has its own.
        self.network_ = copy_arrays(state.network)
        self.n_iter_ += 1
        return self

    def _parted(
        self, x: Any, y: Any, weights: Weights | None, labels: Any, seed: int
    ) -> tuple[Split, Split, Weights | None]:
        """Hold a part of the data out."""
        fraction = self.validation_fraction
        if labels is not None:
            names, counts = np.unique(labels, return_counts=True)
            if rare := names[counts < 2].tolist():
                raise ValueError(
                    f"early_stopping holds out some samples of every class, and there is a single "
                    f"one of {', '.join(map(str, rare))}"
                )
        split = {"test_size": fraction, "random_state": seed, "stratify": labels}
        try:
            train, held = cast(Any, train_test_split)(np.arange(len(x)), **split)
        except ValueError as error:
            raise ValueError(
                f"early_stopping cannot hold out validation_fraction={fraction} of {len(x)} "
                f"samples: {error}"
            ) from error
        kept = None if weights is None else Weights(weights.values[train])
        return Split(x[train], y[train]), Split(x[held], y[held]), kept

    @contextmanager
    def _whole(self) -> Generator[None]:
        """Leave the estimator as it was if a fit is refused or interrupted."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _begin(
        self,
        config: Configuration,
        data: Dataset,
        steps: int,
        network: Network | None,
        first: tuple[np.ndarray, ...] | None,
    ) -> Setup:
        """Set training up, of a new network or of one that was trained before.

        Its regime is that of its `first` batch, which is that of `fit` if none is given.

        Raises:
            ConfigError: if the learning rate would still rise when training ends.
            RunError: if that one is not of the sizes and functions that the parameters name.
        """
        config.optimiser.schedule.check_length(steps)
        config.network.check_data(data)
        if network is not None:
            named = config.network.shapes(data.shape, data.outputs)
            refusal = (
                "the network that was fitted before is not what the parameters and the data say"
            )
            fill(named, named_arrays(network), refusal)
            require_same(named_settings(network), named_settings(named), refusal)
        member, _ = set_up(config, data, steps, Regime(1.0, None))
        if network is not None:
            member = member_of(config, network, steps, member.key)
        batch = (
            first_batch(data, config.training.batch_size, member.key)
            if first is None
            else as_batch(*first)
        )
        return Setup(member, config.rule.measure(member.network, batch))

    def _set_up(self, config: Configuration, regime: Regime) -> Setup:
        """Give the parts of training that a configuration names; their arrays do not matter."""
        x, y = (np.zeros((1, *n), np.float32) for n in (self._shape, (self._outputs,)))
        data = Dataset("", Split(x, y), None, None, "")
        return set_up(config, data, 1, regime)

    def _seen(self) -> bool:
        """Say whether there is a network that may go on."""
        return hasattr(self, "network_")

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _configured(self, seed: int, **fixed: Any) -> Configuration:
        """Return the configuration that the parameters name.

        Raises:
            ConfigError: if one is impossible.
        """
        for name in ("early_stopping", "warm_start", "verbose"):
            if not isinstance(value := getattr(self, name), bool | np.bool_ | Integral):
                raise ConfigError(f"{name} must be true or false, not {value!r}")
        patience = self.n_iter_no_change
        if not isinstance(patience, Integral) or patience < 1:
            raise ConfigError(
                f"n_iter_no_change must be a whole number, at least 1, not {patience!r}"
            )
        given = {name: getattr(self, name) for name in setting_names()}
        given = {name: value for name, value in given.items() if value is not None}
        config = DEFAULTS.changed({**given, **fixed, "seed": seed})
        if config.network.generates:
            raise ConfigError(
                f"an estimator predicts y from X, and `network` {config.network.kind} generates X: "
                "train it by mupc.fit, or by the command"
            )
        return config

    def _checked(self, X: Any, y: Any = None, *, reset: bool, **options: Any) -> Any:
        """Give X, and y if it is given, as dense arrays of finite numbers."""
        kind = KINDS["network"].get(str(getattr(self, "network", None)))
        images = kind is not None and issubclass(kind, NetworkKind) and kind.images
        x, *rest = checked(self, X, y, images=images, reset=reset, **options)
        if reset:
            self._shape = x.shape[1:]
        elif x.shape[1:] != self._shape:
            raise ValueError(f"X has images of shape {x.shape[1:]}, and fit saw {self._shape}")
        return (x, *rest) if rest else x

    def _weighted(self, sample_weight: Any, x: Any, y: Any) -> Weights | None:
        """Return the weights of samples; None if there are none."""
        del y  # a classifier has weights of labels too
        return as_weights(sample_weight, len(x))

    def _predicted(self, X: Any) -> Float[np.ndarray, "n outputs"]:
        """Let the network predict, by the rule that trained it."""
        check_is_fitted(self, "network_")
        rule = self._config.rule.build(self._config.network.hidden)
        return outputs(self.network_, rule, self._checked(X, reset=False))


show_settings(Estimator)
