"""The user's own arrays, from a file or as they are: their names, labels and targets."""

import numpy as np
import pytest

from mupc.data import DataError, Dataset, DataWarning, check_dataset, check_split, load


def save(tmp_path, **arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return str(path)


def test_arrays_keep_their_shape_and_labels_become_rows(tmp_path):
    x = np.arange(36, dtype=np.uint8).reshape(3, 3, 4) % 3
    path = save(tmp_path, x=x, y=[2, 0, 1], x_test=x[:1] / 2, y_test=[1], extra=[None])
    data = load(path, validation=0)
    assert (data.name, data.shape, data.inputs, data.outputs) == ("mine.npz", (3, 4), 12, 3)
    np.testing.assert_array_equal(data.train.x, x)
    np.testing.assert_array_equal(data.train.y, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(data.test.x, x[:1] / 2)
    np.testing.assert_array_equal(data.test.y, [[0, 1, 0]])
    assert data.classes == (0, 1, 2)
    # Whole numbers may be tokens, and stay such; all else is in single precision.
    assert data.train.x.dtype == np.uint8
    assert {array.dtype for array in (data.train.y, *data.test)} == {np.dtype(np.float32)}
    assert "not scaled" in data.normalisation


def test_targets_may_have_positions(tmp_path):
    y = np.eye(3)[np.array([[0, 2], [1, 1]])]  # two samples of two positions
    data = load(save(tmp_path, x=np.array([[5, 7], [0, 2**30]]), y=y), validation=0)
    np.testing.assert_array_equal(data.train.x, [[5, 7], [0, 2**30]])
    np.testing.assert_array_equal(data.train.y, y)
    assert (data.inputs, data.outputs) == (2, 3)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(2**31, np.int64), (-(2**31) - 1, np.int64), (2**32, np.uint64)]
)
def test_whole_numbers_that_jax_would_cut_short_are_no_tokens(largest, dtype, tmp_path):
    x = np.array([[1], [largest]], dtype)
    with pytest.warns(DataWarning, match="ranges from"):
        data = load(save(tmp_path, x=x, y=[0, 1]), validation=0)
    np.testing.assert_array_equal(data.train.x, x.astype(np.float32))
    check_split(data.train, "it")
    with pytest.raises(ValueError, match=r"^x of it has whole numbers of more than 32 bits"):
        check_split(data.train._replace(x=x), "it")


def test_arrays_with_a_matrix_of_targets_are_taken_as_they_are(tmp_path):
    y = np.array([[0.5, -2], [1e3, 4]])
    data = load(save(tmp_path, x=np.eye(2), y=y), validation=0)
    np.testing.assert_array_equal(data.train.y, y)
    assert data.test is None


TWO = np.ones((2, 3))
LABELS = np.array([0, 1])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": LABELS}, "lacks the array 'x': .*two, x and y. The file holds y.$"),
        ({"x": TWO}, "lacks the array 'y': .*two, x and y. The file holds x.$"),
        ({"images": TWO, "y": LABELS}, "lacks the array 'x'.* The file holds images, y.$"),
        ({"x": TWO, "y": LABELS, "x_test": TWO}, "lacks the array 'y_test'.*holds x, y, x_test.$"),
        ({"x": TWO, "y": LABELS, "y_val": LABELS}, "'x_validation'.*holds x, y, y_val.$"),
        ({"x": TWO, "X_train": TWO, "y": LABELS}, "has both x and X_train: keep one"),
        ({"x": TWO, "y": LABELS, "y_test": LABELS}, "lacks the array 'x_test'"),
        ({"x": TWO, "y": np.arange(3)}, "2 samples in x but 3 in y"),
        ({"x": TWO, "y": LABELS, "x_test": TWO, "y_test": [0]}, "2 samples in x_test but 1 in y"),
        ({"x": np.array([["a"], ["b"]]), "y": LABELS}, "^x of .*<U1.*real numbers"),
        ({"x": TWO * 1j, "y": LABELS}, "^x of .*complex128.*real numbers"),
        ({"x": np.array([[None], [1]]), "y": LABELS}, "^x of .*cannot be read .Object arrays"),
        ({"x": [[1, np.nan]], "y": [0]}, "^x of .*NaN or infinite"),
        ({"x": [[1, 2]], "y": [[np.inf]]}, "^y of .*NaN or infinite"),
        ({"x": [[1e300]], "y": [0]}, "^x of .*infinite.*float32"),
        ({"x": np.ones((0, 3)), "y": np.ones(0, int)}, "^x of .*empty .shape .0, 3."),
        ({"x": np.ones((2, 0)), "y": LABELS}, "^x of .*empty .shape .2, 0."),
        ({"x": np.ones(2), "y": LABELS}, "^x of .*shape .2,.*one row for each sample"),
        ({"x": TWO, "y": [0.0, np.nan]}, "^y of .*NaN or infinite"),
        ({"x": TWO, "y": [[0], [1]]}, "^y of .*int64 of shape .2, 1.*labels of shape .n,.*y.:, 0."),
        ({"x": TWO, "y": TWO * 1j}, "^y of .*complex128 of shape .2, 3.*expected labels"),
        ({"x": TWO, "y": np.array([["a"], ["b"]])}, "^y of .*<U1 of shape .2, 1.*expected labels"),
        (
            {"x": TWO, "y": LABELS, "x_test": TWO, "y_test": np.eye(2)},
            "y of .* is labels of whole numbers and y_test is numbers to predict",
        ),
        (
            {"x": TWO, "y": LABELS, "x_test": np.ones((2, 4)), "y_test": LABELS},
            r"^x_test .*shape \(4,\), .*shape \(3,\)",
        ),
        ({"x": TWO, "y": TWO, "x_test": TWO, "y_test": np.eye(2)}, r"^y_test .*\(2,\), .*\(3,\)"),
        ({"x": TWO, "y": LABELS, "x_test": TWO, "y_test": [1, 2]}, "^y_test .*no training .*, 2: "),
        ({"x": TWO, "y": ["a", "b"], "x_test": TWO, "y_test": ["c", "a"]}, "^y_test .*has, c: "),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, words, tmp_path):
    with pytest.raises(DataError, match=words):
        load(save(tmp_path, **arrays), validation=0)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine.npz does not exist"):
        load(str(path))
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"mine.npz is not an .npz file"):
        load(str(path))
    save(tmp_path, x=TWO, y=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])  # without the end of the table of contents
    with pytest.raises(DataError, match=r"mine.npz is not an .npz file, or a truncated one"):
        load(str(path))
    path.write_bytes(whole.replace(TWO.tobytes(), (2 * TWO).tobytes()))
    with pytest.raises(DataError, match=r"^x of .*mine.npz cannot be read .Bad CRC"):
        load(str(path))


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),  # Keras's are such
        ("X", "y", "x_validation", "y_validation", "X_test", "y_test"),
        ("X_train", "Y_train", "X_valid", "Y_valid", "X_test", "Y_test"),
    ],
)
def test_the_usual_names_of_arrays_are_known(names, tmp_path):
    arrays = [
        np.full((2, 3), 0.1),
        LABELS,
        np.full((3, 3), 0.2),
        [1, 1, 0],
        np.full((1, 3), 0.3),
        [1],
    ]
    path = save(tmp_path, **dict(zip(names, arrays, strict=True)))
    data = load(path)
    for split, x, y in zip(
        (data.train, data.validation, data.test), arrays[::2], arrays[1::2], strict=True
    ):
        np.testing.assert_array_equal(split.x, np.float32(x))
        np.testing.assert_array_equal(split.y, np.eye(2)[y])
    with pytest.raises(DataError, match="has a validation split of its own"):
        load(path, validation=0.1)


def test_a_path_may_begin_at_home_and_be_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = save(tmp_path, x=TWO, y=LABELS)
    for name in ("~/mine.npz", tmp_path / "mine.npz"):
        assert load(name).fingerprint == load(path).fingerprint


# Labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([7, 5, 6, 7], (5, 6, 7)),
        ([1, -1, 1, 1], (-1, 1)),
        ([0, 2**62, 0, 0], (0, 2**62)),
        (np.array([3, 200, 3, 3], np.uint8), (3, 200)),
    ],
)
def test_classes_are_the_labels_that_occur(labels, classes, tmp_path):
    """A gap makes no class that nothing belongs to, and is said."""
    listed = ", ".join(map(str, classes))
    x = np.ones((4, 2))
    with pytest.warns(
        DataWarning, match=f"y of .*mine.npz, {listed}, are not 0 to .* without gaps"
    ):
        data = load(save(tmp_path, x=x, y=labels, x_test=x[:1], y_test=labels[-1:]))
    assert (data.classes, data.outputs) == (classes, len(classes))
    assert [classes[i] for i in data.train.y.argmax(1)] == list(labels)
    assert [classes[i] for i in data.test.y.argmax(1)] == [labels[-1]]
    np.testing.assert_array_equal(data.train.y.sum(1), 1)


@pytest.mark.parametrize(
    "labels",
    [
        ["dog", "cat", "übel", "cat"],
        np.array(["dog", "cat", "übel", "cat"], object),
        np.char.encode(["dog", "cat", "übel", "cat"], "utf-8"),
    ],
)
def test_labels_may_be_text(labels):
    data = Dataset.from_arrays(np.ones((4, 2)), labels, np.ones((1, 2)), labels[-1:])
    assert data.classes == ("cat", "dog", "übel")
    np.testing.assert_array_equal(data.train.y, np.eye(3)[[1, 0, 2, 0]])
    np.testing.assert_array_equal(data.test.y, np.eye(3)[[0]])


def test_text_is_read_from_a_file(tmp_path):
    data = load(save(tmp_path, x=np.ones((3, 2)), y=["b", "a", "b"]))
    assert data.classes == ("a", "b")
    np.testing.assert_array_equal(data.train.y.argmax(1), [1, 0, 1])


def test_truth_values_are_labels():
    data = Dataset.from_arrays(np.ones((3, 2)), np.array([True, False, True]))
    assert data.classes == (0, 1)
    np.testing.assert_array_equal(data.train.y.argmax(1), [1, 0, 1])


def test_a_held_out_class_keeps_its_column():
    data = Dataset.from_arrays(np.ones((5, 2)), np.arange(5), validation=0.2)
    assert data.classes == (0, 1, 2, 3, 4)
    assert data.validation.y.sum(0).tolist() == (1 - data.train.y.sum(0)).tolist()


def test_quantities_are_no_labels():
    """A column for each of 1,500 prices would be a table of two million zeros."""
    with pytest.raises(DataError, match="y of arrays has 1500 different labels in 1500 samples"):
        Dataset.from_arrays(np.ones((1500, 2)), 3 * np.arange(1500))


def test_numbers_with_a_decimal_point_are_targets(tmp_path):
    y = np.array([0.5, -2, 1e3])
    data = load(save(tmp_path, x=np.ones((3, 2)), y=y, x_test=np.ones((1, 2)), y_test=y[:1]))
    np.testing.assert_array_equal(data.train.y, y[:, None].astype(np.float32))
    np.testing.assert_array_equal(data.test.y, [[0.5]])
    assert (data.classes, data.outputs) == (None, 1)


def test_labels_with_a_decimal_point_are_asked_about():
    labels = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    with pytest.warns(
        DataWarning, match=r"if they are labels, .*y.astype\(int\); if not, .*\(n, 1\)"
    ):
        data = Dataset.from_arrays(np.ones((6, 2)), labels)
    np.testing.assert_array_equal(data.train.y, labels[:, None])
    assert Dataset.from_arrays(np.ones((6, 2)), labels[:, None]).classes is None  # and no warning


# Arrays without a file


def test_arrays_and_their_file_make_one_data_set(tmp_path):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 3)), draw.integers(0, 3, 40)
    arrays = {"x": x[:30], "y": y[:30], "x_test": x[30:], "y_test": y[30:]}
    options = {"validation": 0.2, "scale": "standardise", "seed": 3}
    here = Dataset.from_arrays(*arrays.values(), **options)
    there = load(save(tmp_path, **arrays), **options)
    check_dataset(here)
    assert (here.name, there.name) == ("arrays", "mine.npz")
    assert here.fingerprint == there.fingerprint
    assert (here.normalisation, here.classes) == (there.normalisation, there.classes)


def test_arrays_that_do_not_fit_are_refused_by_name():
    with pytest.raises(DataError, match=r"^mine has 2 samples in x but 3 in y"):
        Dataset.from_arrays(TWO, np.arange(3), name="mine")
    with pytest.raises(DataError, match=r"^arrays lacks the array 'y_test'"):
        Dataset.from_arrays(TWO, LABELS, TWO)
    with pytest.raises(DataError, match=r"^x of arrays has NaN .* in 1 of 2 samples, .* number 1"):
        Dataset.from_arrays([[1.0], [np.nan]], LABELS)


def test_lists_and_other_byte_orders_are_taken():
    data = Dataset.from_arrays([[0.5, 1], [2, 3]], [0, 1])
    np.testing.assert_array_equal(data.train.x, np.float32([[0.5, 1], [2, 3]]))
    for dtype in (">i4", ">f8"):
        data = Dataset.from_arrays(np.arange(4).reshape(2, 2).astype(dtype), [0, 1])
        assert data.train.x.dtype.isnative
        np.testing.assert_array_equal(data.train.x, [[0, 1], [2, 3]])
