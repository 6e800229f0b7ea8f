"""scikit-learn's own checks of estimators, and what they do not ask."""

import os
import pickle
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import estimator_checks_generator

from mupc import EquilibriumPropagation, PredictiveCoding
from mupc.sklearn import PCClassifier, PCRegressor
from mupc.sklearn.classifier import _nearest
from mupc.training.progress import Progress

SMALL = {"depth": 2, "width": 16, "epochs": 20, "batch_size": 16, "random_state": 0}
IRIS, LABELS = load_iris(return_X_y=True)
IRIS = StandardScaler().fit_transform(IRIS)


# Every shape of data compiles its own step, in a third of the time without inference. The rule is
# nothing to these checks; .ci/full makes them with the default one.
RULE = "predictive-coding" if FULL else "backpropagation"


def _name(check):
    """Return a check's name; those that are skipped are wrapped."""
    return getattr(check, "func", check).__name__


DRAWN = {
    f"check_sample_weight_equivalence_on_{kind}_data": "weights say how often samples are drawn"
    for kind in ("dense", "sparse")
}
CHECKS = [
    pytest.param(estimator, check, id=f"{make.__name__}-{_name(check)}-{i}")
    for make in (PCClassifier, PCRegressor)
    for i, (estimator, check) in enumerate(
        estimator_checks_generator(
            make(**SMALL, rule=RULE), mark="skip", expected_failed_checks=DRAWN
        )
    )
]


@pytest.mark.few(34)
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_weighted_samples_count_for_more():
    """Labels that contradict each other: the heavier ones are learned, in both ways of training."""
    x = np.repeat(IRIS[LABELS < 2], 2, axis=0)
    y = np.tile([0, 1], len(x) // 2)
    for heavy in (0, 1):
        weights = np.where(y == heavy, 5.0, 1.0)
        model = PCClassifier(**SMALL).fit(x, y, sample_weight=weights)
        assert np.all(model.predict(x) == heavy)
        model = PCClassifier(**SMALL)
        for _ in range(5):
            model.partial_fit(x, y, classes=[0, 1], sample_weight=weights)
        assert np.all(model.predict(x) == heavy)
    none = np.where(y == 0, 1.0, 0.0)
    model = PCRegressor(**SMALL).fit(x, np.where(y == 0, 3.0, np.linspace(0, 1e6, len(y))), none)
    np.testing.assert_allclose(model.predict(x), 3.0, atol=0.1)
    with pytest.raises(ValueError, match="one for each sample, and not all of them zero"):
        PCClassifier(**SMALL).fit(x, y, sample_weight=0 * weights)


def test_weights_of_labels_are_those_of_their_samples():
    x, y = IRIS[30:120], LABELS[30:120]  # twenty of the first, fifty and twenty of the others
    model = PCClassifier(**SMALL, class_weight="balanced").fit(x, y)
    same = PCClassifier(**SMALL).fit(x, y, sample_weight=compute_sample_weight("balanced", y))
    np.testing.assert_array_equal(model.predict_proba(x), same.predict_proba(x))
    given = {0: 1.0, 1: 0.0, 2: 1.0}
    model = PCClassifier(**SMALL, class_weight=given).fit(x, y, sample_weight=np.ones(len(x)))
    assert set(model.predict(x)) == {0, 2}
    assert clone(model).get_params()["class_weight"] == given
    with pytest.raises(ValueError, match="give a weight for each label"):
        PCClassifier(**SMALL, class_weight="balanced").partial_fit(x, y, classes=[0, 1, 2])


def test_iris_is_learned_in_a_pipeline_and_a_grid():
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    pipeline = make_pipeline(StandardScaler(), PCClassifier(**SMALL))
    search = GridSearchCV(pipeline, {"pcclassifier__learning_rate": [1e-6, 0.02]}, cv=3).fit(
        x, names
    )
    assert search.best_params_ == {"pcclassifier__learning_rate": 0.02}
    assert search.best_score_ > 0.93
    assert set(search.predict(x)) == set(names)


def test_a_regressor_predicts_in_the_units_of_its_targets():
    x, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), PCRegressor(**{**SMALL, "epochs": 10}))
    assert np.mean(cross_val_score(pipeline, x, 1000 * y, cv=3)) > 0.35
    both = pipeline.fit(x, np.stack([y, -10 * y], axis=1)).predict(x)
    assert both.shape == (442, 2)
    assert np.corrcoef(both[:, 0], both[:, 1])[0, 1] < -0.9


@pytest.mark.parametrize("made", ["fitted", "streamed"])
def test_a_pickled_estimator_is_the_same_and_goes_on(made):
    classifier = PCClassifier(**SMALL)
    if made == "fitted":
        classifier.fit(IRIS, LABELS)
    else:
        classifier.partial_fit(IRIS, LABELS, classes=[0, 1, 2])
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(IRIS), classifier.predict_proba(IRIS))
    for one in (classifier, again):
        one.partial_fit(IRIS[:100], LABELS[:100])
    np.testing.assert_array_equal(again.predict_proba(IRIS), classifier.predict_proba(IRIS))


def test_partial_fit_learns_from_pieces():
    classifier = PCClassifier(**SMALL)
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        classifier.partial_fit(IRIS, LABELS)
    order = np.random.default_rng(0).permutation(150)
    for _ in range(20):
        for piece in np.split(order, 3):
            classifier.partial_fit(IRIS[piece], LABELS[piece], classes=range(3))
    assert classifier.score(IRIS, LABELS) > 0.93
    with pytest.raises(ValueError, match=r"y holds \[7\]: the classes are \[0, 1, 2\]"):
        classifier.partial_fit(IRIS[:1], [7])


@pytest.mark.parametrize("samples", [10, 150])  # fewer than a batch of 16, and more
def test_the_regime_told_is_what_the_rule_measures_on_its_first_batch(samples):
    classifier = PCClassifier(**SMALL, rho=0.3)
    classifier.partial_fit(IRIS[:samples], LABELS[:samples], classes=range(3))
    measured = 0.3 / float(classifier._stream.state.rule.first)
    assert classifier.regime_.precision == pytest.approx(measured, rel=1e-4)


def test_a_warm_start_goes_on_from_the_network_before():
    cold = PCClassifier(**{**SMALL, "epochs": 3}).fit(IRIS, LABELS)
    warm = clone(cold).set_params(warm_start=True).fit(IRIS, LABELS)
    first = warm.loss_
    assert warm.fit(IRIS, LABELS).loss_ < 0.9 * first
    assert cold.fit(IRIS, LABELS).loss_ == first
    with pytest.raises(ValueError, match=r"fitted before is not what .* float32 8x4 here"):
        warm.set_params(width=8).fit(IRIS, LABELS)
    with pytest.raises(ValueError, match=r"is not what .*activation \(relu there, tanh here\)"):
        warm.set_params(width=16, activation="tanh").fit(IRIS, LABELS)
    with pytest.raises(ValueError, match=r"is not what .*\(float32 16x4 there, float32 16x2 he"):
        warm.set_params(activation="relu").fit(IRIS[:, :2], LABELS)


def test_what_goes_on_keeps_the_meaning_of_its_outputs():
    classifier = PCClassifier(**SMALL, warm_start=True).fit(IRIS, LABELS)
    with pytest.raises(ValueError, match=r"labels are \[1, 2, 3\], .* was trained on \[0, 1, 2\]"):
        classifier.fit(IRIS, LABELS + 1)
    with pytest.raises(ValueError, match=r"was trained on \[0, 1, 2\]"):
        classifier.partial_fit(IRIS, LABELS, classes=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"was trained on \[0, 1, 2\]"):
        classifier.partial_fit(IRIS, np.eye(3, dtype=int)[LABELS])
    assert classifier.score(IRIS, LABELS) > 0.9
    regressor = PCRegressor(**SMALL).partial_fit(IRIS, np.stack([LABELS, -LABELS], axis=1))
    with pytest.raises(ValueError, match="y has 1 outputs, and the network that goes on has 2"):
        regressor.partial_fit(IRIS, LABELS)
    assert regressor.predict(IRIS).shape == (150, 2)


@pytest.mark.parametrize("make", [PCClassifier, PCRegressor])
def test_inputs_that_are_all_zero_are_refused_in_the_words_of_an_estimator(make):
    with pytest.raises(
        ValueError, match=r"^no precision gives this rho, .* or choose regime fixed and"
    ):
        make(**SMALL).fit(np.zeros((20, 3)), np.arange(20) % 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handled_as_anywhere(number, monkeypatch):
    class Stopping(Progress):
        def __call__(self, record):
            os.kill(os.getpid(), number)

    monkeypatch.setattr("mupc.sklearn.estimator.Progress", Stopping)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            PCClassifier(**SMALL, verbose=True).fit(IRIS, LABELS)
    finally:
        signal.signal(number, before)


def test_a_hopfield_network_settles_to_predict():
    """By its rule; descent of a fixed length, which a feedforward pass of it is, ends elsewhere."""
    options = {**SMALL, "epochs": 5, "network": "residual-hopfield", "depth": 6}
    classifier = PCClassifier(**options, learning_rate=0.05).fit(IRIS, LABELS)
    network, x = classifier.network_, jnp.asarray(IRIS, float)
    settled = np.asarray(EquilibriumPropagation().predict(network, x))
    np.testing.assert_array_equal(classifier.predict(IRIS), np.argmax(settled, axis=1))
    assert np.max(np.abs(settled - network.feedforward(x).output)) > 1e-3
    assert classifier.score(IRIS, LABELS) > 0.9


def test_early_stopping_returns_the_best_network_and_ends():
    options = {**SMALL, "epochs": 200, "early_stopping": True, "validation_fraction": 0.3}
    classifier = PCClassifier(**options, n_iter_no_change=4).fit(IRIS, LABELS)
    scores = classifier.validation_scores_
    assert classifier.n_iter_ == len(scores) < 200
    assert classifier.best_validation_score_ == max(scores) > 0.85


@pytest.mark.few(1)
@pytest.mark.parametrize("likelihood", ["gaussian", "categorical"])
def test_probabilities_are_distributions(likelihood):
    classifier = PCClassifier(**SMALL, likelihood=likelihood).fit(IRIS, LABELS)
    proba = classifier.predict_proba(IRIS)
    assert np.all(proba >= 0)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(np.argmax(proba, axis=1), classifier.predict(IRIS))
    assert classifier.score(IRIS, LABELS) > 0.9


def test_the_nearest_distribution_is_the_nearest():
    """By the condition of optimality: the row minus its projection is constant where it is > 0."""
    rows = np.random.default_rng(0).normal(scale=2, size=(50, 5))
    nearest = _nearest(rows)
    np.testing.assert_allclose(nearest.sum(axis=1), 1)
    for row, found in zip(rows, nearest, strict=True):
        shift = row - found
        inside = shift[found > 0]
        np.testing.assert_allclose(inside, inside[0])
        assert np.all(shift <= inside[0] + 1e-12)


def test_what_is_predicted_of_a_sample_does_not_depend_on_others():
    x = np.random.default_rng(0).normal(size=(600, 4))
    classifier = PCClassifier(**SMALL).fit(IRIS, LABELS)
    whole = classifier.predict_proba(x)
    np.testing.assert_array_equal(classifier.predict_proba(x[250:300]), whole[250:300])
    assert jnp.shape(classifier.network_.readout.weights) == (3, 16)


def test_progress_is_printed_if_asked_for(capsys):
    PCClassifier(**{**SMALL, "epochs": 2}, verbose=True).fit(IRIS, LABELS)
    assert "step 18/18: accuracy " in capsys.readouterr().out


@pytest.mark.parametrize("refused", [{"batch_size": 0}, {"warmup": 10**6}])
def test_a_fit_that_is_refused_leaves_what_was_fitted_before(refused):
    classifier, regressor = PCClassifier(**SMALL), PCRegressor(**SMALL)
    for estimator, y in [(classifier, LABELS + 5), (regressor, 1.0 * LABELS)]:
        before = estimator.fit(IRIS, y).predict(IRIS)
        usual = estimator.get_params()
        with pytest.raises(ValueError, match="must be"):
            estimator.set_params(**refused).fit(IRIS[:, :2], 9.0 + (LABELS > 1))
        np.testing.assert_array_equal(estimator.set_params(**usual).predict(IRIS), before)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).predict(IRIS), before)


@pytest.mark.few(1)
@pytest.mark.parametrize("early_stopping", [True, False])
def test_divergence_is_a_warning_that_says_so(early_stopping):
    options = {**SMALL, "learning_rate": 1e4, "early_stopping": early_stopping}
    classifier = PCClassifier(**options, parameterisation="standard")
    with pytest.warns(ConvergenceWarning, match="diverged at step"):
        classifier.fit(IRIS, LABELS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 0}, "^width must be at least 1, not 0"),
        ({"activation": "sine"}, "^activation must be one of relu, tanh, .*, not sine"),
        ({"wdth": 3}, "^there is no setting wdth: did you mean width"),
        ({"validation": 0.3}, "^an estimator has no parameter validation"),
        ({"solver": "linear-solve"}, "^solver linear-solve is for activation linear: use l-bfgs"),
        ({"history": 3}, "^history is a setting of the solver l-bfgs, and the solver is gauss"),
        ({"depth": 1, "skips": False}, "^skips would have no effect, since a depth of 1"),
        (
            {"early_stopping": True, "validation_fraction": 0.01},
            "early_stopping cannot hold out validation_fraction=0.01 of 150 samples: ",
        ),
        ({"early_stopping": True, "n_iter_no_change": 0}, "^n_iter_no_change must be a whole nu"),
        ({"n_iter_no_change": "a"}, "^n_iter_no_change must be a whole number, .* not 'a'"),
        ({"warmup": 500}, "^warmup must be smaller than the 100 steps"),
        ({"early_stopping": "no"}, "^early_stopping must be true or false, not 'no'"),
    ],
)
def test_impossible_parameters_get_a_sentence_when_fitted(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        PCClassifier(**options).fit(IRIS, LABELS)


def test_several_labels_and_numbers_need_the_gaussian_likelihood():
    with pytest.raises(ValueError, match="several labels a sample need the likelihood gaussian"):
        PCClassifier(likelihood="categorical").fit(IRIS, np.stack([LABELS > 0, LABELS > 1], axis=1))
    with pytest.raises(ValueError, match="a regressor needs the likelihood gaussian"):
        PCRegressor(likelihood="categorical").fit(IRIS, LABELS)


def test_chunks_of_any_size_share_one_program(monkeypatch):
    """The last batch of a call is filled up: another size would compile a step of its own."""
    traces, real = [], PredictiveCoding.gradients

    def gradients(self, *args, **options):
        traces.append(1)
        return real(self, *args, **options)

    monkeypatch.setattr(PredictiveCoding, "gradients", gradients)
    # Of a width that no other test has: what is compiled already is not traced.
    classifier = PCClassifier(**{**SMALL, "width": 17})
    for size in (150, 50, 33, 47, 3):
        classifier.partial_fit(IRIS[:size], LABELS[:size], classes=range(3))
    assert sum(traces) == 1


def test_probabilities_of_large_outputs_sum_to_one():
    np.testing.assert_allclose(_nearest(np.array([[1e20, 0.0, -1e20], [3.0, 3.0, 0.0]])).sum(1), 1)


def test_sparse_labels_are_labels():
    several = np.stack([LABELS > 0, LABELS > 1], axis=1).astype(int)
    dense, other = (PCClassifier(**SMALL).fit(IRIS, y) for y in (several, csr_matrix(several)))
    np.testing.assert_array_equal(dense.predict_proba(IRIS), other.predict_proba(IRIS))


def test_a_class_too_rare_for_early_stopping_is_named():
    y = np.array(["often"] * 149 + ["rare"])
    with pytest.raises(ValueError, match="rare"):
        PCClassifier(**SMALL, early_stopping=True).fit(IRIS, y)


def test_a_grid_goes_over_kinds_and_their_own_settings():
    grid = [{"solver": ["l-bfgs"], "history": [2, 4]}, {"rule": ["backpropagation"]}]
    small = {**SMALL, "epochs": 2}
    search = GridSearchCV(PCClassifier(**small), grid, cv=2, error_score="raise").fit(IRIS, LABELS)
    assert len(search.cv_results_["params"]) == 3


def test_images_are_taken_by_networks_of_images():
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = generator.normal(size=(60, 6, 5, 1)) + 3 * (y == 1)[:, None, None, None]
    small = {"blocks": 1, "channels": 8, "stages": 2, "epochs": 20, "batch_size": 20}
    classifier = PCClassifier(network="conv-resnet", random_state=0, **small)
    assert classifier.fit(X, y).score(X, y) > 0.95
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
    with pytest.raises(ValueError, match=r"X has images of shape \(6, 4, 1\), and fit saw \(6, 5"):
        classifier.predict(X[:, :, :4])
    with pytest.raises(ValueError, match=r"takes images, .*, and X has shape \(60, 30\)"):
        classifier.fit(X.reshape(60, -1), y)
    with pytest.raises(ValueError, match="takes tokens"):
        PCClassifier(network="transformer").fit(X.reshape(60, -1), y)
    # Of a network of rows, images are refused as scikit-learn does.
    with pytest.raises(ValueError, match="dim 4"):
        PCClassifier().fit(X, y)
