"""CIFAR-10 and CIFAR-100, binary and Python version; pickles that would run something.

Where the size does not matter, a batch has two images a class in the place of 10,000.
"""

import dataclasses
import io
import pickle
import tarfile
from typing import ClassVar

import numpy as np
import pytest

from mupc.data import DataError, available, cifar, load
from mupc.data.array_pickle import read_array_pickle


@pytest.fixture(autouse=True)
def _nowhere_else(monkeypatch, tmp_path):
    monkeypatch.delenv("MUPC_DATA", raising=False)
    monkeypatch.setenv("MUPC_CACHE", str(tmp_path / "cache"))


CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


def write_cifar(folder, contents, mode="w:gz"):
    ending = ".gz" if mode == "w:gz" else ""
    path = folder / f"cifar-10-binary.tar{ending}"
    compression = {"compresslevel": 1} if ending else {}
    with tarfile.open(path, mode, **compression) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def few(monkeypatch):
    for name in ("_CIFAR10", "_CIFAR100"):
        which = getattr(cifar, name)
        size = 2 * len(which.classes)
        parts = {"train": dict.fromkeys(which.train, size), "test": dict.fromkeys(which.test, size)}
        monkeypatch.setattr(cifar, name, dataclasses.replace(which, **parts))


def records(n=10_000):
    """Black images with labels 0, 1, … 9, 0, …; the first has one bright pixel a channel."""
    batch = np.zeros((n, 1 + 3 * 1024), np.uint8)
    batch[:, 0] = np.arange(n) % 10
    batch[0, [1 + 0, 1 + 1024 + 33, 1 + 2048 + 1023]] = 255
    return batch


def test_cifar10_is_scaled_by_channel(tmp_path):
    write_cifar(tmp_path, dict.fromkeys(CIFAR_FILES, records().tobytes()) | {"readme.html": b"<>"})
    data = load("cifar10", data_dir=tmp_path, validation=0)
    assert (data.train.x.shape, data.test.x.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert (data.inputs, data.classes[0], data.classes[9]) == (3072, "airplane", "truck")
    assert data.train.x.flags.c_contiguous
    np.testing.assert_array_equal(data.train.y.argmax(1), np.arange(50_000) % 10)
    first = data.test.x[0].transpose(2, 0, 1)
    for channel, (row, column), mean, std in (
        (0, (0, 0), 0.4914, 0.2470),
        (1, (1, 1), 0.4822, 0.2435),
        (2, (31, 31), 0.4465, 0.2616),
    ):
        assert (
            first[channel].max() == first[channel, row, column] == pytest.approx((1 - mean) / std)
        )
        assert first[channel].min() == pytest.approx(-mean / std)


@pytest.mark.usefixtures("few")
def test_cifar10_with_other_labels_is_refused(tmp_path):
    wrong = records(20)
    wrong[0, 0] = 1
    contents = dict.fromkeys(CIFAR_FILES, records(20).tobytes())
    contents["test_batch.bin"] = wrong.tobytes()
    write_cifar(tmp_path, contents, "w")
    with pytest.raises(DataError, match=r"holds other data than cifar10: .*with 2 of each"):
        load("cifar10", data_dir=tmp_path)


def test_a_damaged_or_incomplete_archive_is_refused(tmp_path):
    whole = records().tobytes()
    path = write_cifar(tmp_path, {"data_batch_1.bin": whole, "data_batch_2.bin": whole})
    with pytest.raises(DataError, match=r"lacks data_batch_3, .*test_batch; download"):
        load("cifar10", data_dir=tmp_path)
    packed = path.read_bytes()
    for broken in (packed[: len(packed) // 2], b"no archive", b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"tar.gz cannot be read as a tar archive .*again from"):
            load("cifar10", data_dir=tmp_path)
    write_cifar(tmp_path, {"data_batch_1.bin": whole[:-1]})
    with pytest.raises(DataError, match=r"data_batch_1.bin holds 30729999 bytes, not 30730000"):
        load("cifar10", data_dir=tmp_path)
    path.unlink()
    path = write_cifar(tmp_path, {"data_batch_1.bin": whole}, "w")
    path.write_bytes(path.read_bytes()[:20_000_000])
    with pytest.raises(
        DataError, match=r"cannot be read as a tar archive .*unexpected end of data"
    ):
        load("cifar10", data_dir=tmp_path)


# The Python version


class Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its text, which is how the published files are."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2(value):
    file = io.BytesIO()
    Python2(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python_batch(**other):
    batch = records(20)
    return {
        b"batch_label": b"training batch 1 of 5",
        b"labels": batch[:, 0].tolist(),
        b"data": batch[:, 1:].copy(),
        b"filenames": [b"leptodactylus_pentadactylus_s_000004.png"],
        **{key.encode(): value for key, value in other.items()},
    }


def write_python(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name in PYTHON_FILES:
        (folder / name).write_bytes(contents)
    (folder / "batches.meta").write_bytes(b"not read")


PYTHON_FILES = tuple(name.removesuffix(".bin") for name in CIFAR_FILES)


@pytest.mark.usefixtures("few")
def test_both_versions_are_one_data_set_in_every_layout(tmp_path):
    binary, packed, unpacked = (tmp_path / name for name in ("binary", "packed", "unpacked"))
    write_python(unpacked / "cifar-10-batches-py", python2(python_batch()))
    packed.mkdir()
    with tarfile.open(packed / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(unpacked / "cifar-10-batches-py", "cifar-10-batches-py")
    (binary / "cifar-10-batches-bin").mkdir(parents=True)
    for name in CIFAR_FILES:
        (binary / "cifar-10-batches-bin" / name).write_bytes(records(20).tobytes())
    prints = set()
    for folder in (binary, packed, unpacked):
        assert available(folder)["cifar10"] == f"found in {folder}"
        prints.add(load("cifar10", data_dir=folder).test.x.tobytes())
    assert len(prints) == 1
    first = np.frombuffer(prints.pop(), np.float32).reshape(20, 32, 32, 3)[0]
    assert first[1, 1, 1] == pytest.approx((1 - 0.4822) / 0.2435)


@pytest.mark.usefixtures("few")
def test_cifar100_has_the_fine_labels(tmp_path):
    """Of both versions: the coarse label comes first in the binary one."""
    labels, pixels = np.arange(200) % 100, np.zeros((200, 3072), np.uint8)
    pixels[:, 0] = labels
    binary, python = tmp_path / "cifar-100-binary", tmp_path / "other" / "cifar-100-python"
    rows = np.concatenate([labels[:, None] // 5, labels[:, None], pixels], axis=1)
    batch = {b"coarse_labels": (labels // 5).tolist(), b"fine_labels": labels.tolist()}
    for folder, ending, contents in (
        (binary, ".bin", rows.astype(np.uint8).tobytes()),
        (python, "", python2({**batch, b"data": pixels})),
    ):
        folder.mkdir(parents=True)
        for name in ("train", "test"):
            (folder / f"{name}{ending}").write_bytes(contents)
        data = load("cifar100", data_dir=folder.parent)
        assert (data.train.x.shape, data.outputs) == ((200, 32, 32, 3), 100)
        assert (data.classes[0], data.classes[99]) == ("apple", "worm")
        np.testing.assert_array_equal(data.test.y.argmax(1), labels)
        first = data.test.x[:, 0, 0, 0]
        np.testing.assert_allclose(first, (labels / 255 - 0.5071) / 0.2673, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (
            {"data": np.zeros((3, 3072), np.uint8)},
            r"does not hold the arrays data, of shape \(20, 3072",
        ),
        ({"labels": [0] * 19}, "does not hold the arrays"),
        ({"labels": np.zeros(20, np.uint8)}, "does not hold the arrays"),
        ({"labels": [10] * 20}, "labels of its .* are not 0 to 9"),
        ({"labels": ["0"] * 20}, "labels of its .* are not 0 to 9"),
        ({"labels": [1] * 20}, "holds other data than cifar10: .*with 10 of each"),
    ],
)
@pytest.mark.usefixtures("few")
def test_other_batches_are_refused(batch, words, tmp_path):
    contents = pickle.dumps(python_batch(**batch))
    write_python(tmp_path / "cifar-10-batches-py", contents)
    with pytest.raises(DataError, match=f"cifar-10-batches-py .*{words}"):
        load("cifar10", data_dir=tmp_path)


class Malicious:
    """Runs something when it is unpickled by Python's own unpickler."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_something_is_refused(protocol, tmp_path):
    folder, mark = tmp_path / "cifar-10-batches-py", tmp_path / "it ran"
    contents = pickle.dumps(Malicious(open, str(mark), "w"), protocol)
    pickle.loads(contents).close()
    assert mark.exists()  # it is dangerous
    mark.unlink()
    write_python(folder, contents)
    with pytest.raises(DataError, match=r"not to be trusted: .*it would call .*io\.open"):
        load("cifar10", data_dir=tmp_path)
    hidden = python_batch(filenames=[Malicious(open, str(mark), "w")])
    write_python(folder, pickle.dumps(hidden, protocol=4))
    with pytest.raises(DataError, match=r"not to be trusted: .*it would call .*io\.open"):
        load("cifar10", data_dir=tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        Malicious(eval, "1"),
        Malicious(getattr, np.ndarray, "dump"),
        Malicious(np.load, "x"),
        np.array([{}], object),
        np.zeros(2),
        np.dtype("O"),
        len,
    ],
)
def test_nothing_but_arrays_of_bytes_is_made(value):
    with pytest.raises(pickle.UnpicklingError, match=r"it would call|array of '(O8?|f8)'"):
        read_array_pickle(pickle.dumps(value))


@pytest.mark.parametrize("contents", [b"", b"x", b"\x80\x02}", b"cos\n", pickle.dumps([1])[:-2]])
def test_a_damaged_pickle_is_an_error_of_one_kind(contents):
    with pytest.raises(pickle.UnpicklingError):
        read_array_pickle(contents)


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_bytes_are_read_whatever_wrote_them(protocol):
    value = {b"a": np.arange(6, dtype=np.uint8).reshape(2, 3), b"b": [1, "text", b"bytes", None]}
    for contents in (pickle.dumps(value, protocol), python2({**value, b"b": []})):
        read = read_array_pickle(contents)
        np.testing.assert_array_equal(read[b"a"], value[b"a"])
        assert read[b"a"].dtype == np.uint8
        assert read[b"b"] in ([], value[b"b"])
