"""Where files of data sets are found, and how those of MNIST and Fashion-MNIST are checked.

No test uses the network: pooch's downloader is replaced. Tests on the real MNIST run when the
environment variable MUPC_DATA names a folder that has it.
"""

import colorsys
import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pooch.core
import pytest
import requests

from mupc.data import DataError, available, load
from mupc.data.color_mnist import coloured
from mupc.data.sources import Source, files

REAL = os.environ.get("MUPC_DATA")  # unset or empty: no folder
real_mnist = pytest.mark.skipif(not REAL, reason="MUPC_DATA does not name a folder with MNIST")

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def use_downloader(monkeypatch, download):
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: download)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache and no network: what requests raises on a machine without one."""

    def offline(url, output_file, pooch):
        raise requests.exceptions.ConnectionError("Failed to resolve")

    use_downloader(monkeypatch, offline)
    monkeypatch.delenv("MUPC_DATA", raising=False)
    monkeypatch.setenv("MUPC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def idx(*shape, data=b"", code=0x08):
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + data


def gz(data):
    return gzip.compress(data, mtime=0)  # the same bytes in every process that collects the tests


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


# Where files are found


def test_data_dir_must_have_every_file(tmp_path):
    touch(tmp_path / "mnist", TRAIN_IMAGES + ".gz", TEST_LABELS)
    words = (
        f"mnist is not complete in {tmp_path}: expected {TRAIN_LABELS}.gz, {TEST_IMAGES}.gz "
        f".{TRAIN_LABELS}.gz may also be {TRAIN_LABELS}, train-labels.idx1-ubyte, .*"
        f"there or in {tmp_path / 'mnist'}, {tmp_path / 'MNIST' / 'raw'}"
    )
    with pytest.raises(DataError, match=words):
        load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("folder", [".", "fashion-mnist", "FashionMNIST/raw", "raw"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_may_lie_in_the_folder_or_its_subfolder_zipped_or_not(
    folder, ending, tmp_path, monkeypatch
):
    touch(tmp_path / folder, *(name + ending for name in IDX_FILES))
    assert available(tmp_path)["fashion-mnist"] == f"found in {tmp_path}"
    assert available(tmp_path)["cifar10"] == f"not in {tmp_path}"
    with pytest.raises(DataError, match=f"{ending} is not an IDX file"):  # found, and empty
        load("fashion-mnist", data_dir=tmp_path)
    monkeypatch.setenv("MUPC_DATA", str(tmp_path))
    assert available()["fashion-mnist"] == f"found in {tmp_path}"
    with pytest.raises(DataError, match=f"{tmp_path}.*is not an IDX file"):
        load("fashion-mnist")


@pytest.mark.parametrize("folder", [".", "mnist", "MNIST/raw"])
def test_the_names_that_7_zip_and_kaggle_give_are_known(folder, tmp_path):
    seven = [name.replace("-idx", ".idx") for name in IDX_FILES]
    assert seven[0] == "train-images.idx3-ubyte"
    touch(tmp_path / "7" / folder, *seven)
    assert available(tmp_path / "7")["mnist"] == f"found in {tmp_path / '7'}"
    for name in IDX_FILES:
        touch(tmp_path / "kaggle" / name, name)  # a folder of the file's own name
    assert available(tmp_path / "kaggle")["mnist"] == f"found in {tmp_path / 'kaggle'}"
    with pytest.raises(DataError, match=f"{seven[1]} is not an IDX file"):
        load("mnist", data_dir=tmp_path / "7")


def test_a_data_dir_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    touch(tmp_path / "d" / "mnist", *IDX_FILES)
    assert available("~/d")["mnist"] == f"found in {tmp_path / 'd'}"
    monkeypatch.setenv("MUPC_DATA", "~/d")
    assert available()["mnist"] == f"found in {tmp_path / 'd'}"
    monkeypatch.setenv("MUPC_CACHE", "~/c")
    with pytest.raises(DataError, match=f"not complete in {tmp_path / 'd'}"):
        load("cifar10", data_dir="~/d")
    with pytest.raises(DataError, match=f"{tmp_path / 'd' / 'mnist' / TRAIN_LABELS} is not an IDX"):
        load("mnist", data_dir="~/d")
    touch(tmp_path / "c" / "cifar10", "cifar-10-binary.tar.gz")
    assert available()["cifar10"] == "in the cache"


def test_data_dir_comes_before_the_environment_and_the_subfolder_first(tmp_path, monkeypatch):
    for folder in ("a", "a/mnist", "b"):
        touch(tmp_path / folder, *IDX_FILES)
    monkeypatch.setenv("MUPC_DATA", str(tmp_path / "b"))
    with pytest.raises(DataError, match=str(tmp_path / "a" / "mnist" / TRAIN_LABELS)):
        load("mnist", data_dir=tmp_path / "a")


def toy():
    return Source("toy", "https://example.org/", {"toy.gz": hashlib.md5(b"toy").hexdigest()}, {})


def test_a_file_in_the_cache_is_used_without_a_network(cache, tmp_path, monkeypatch):
    touch(cache / "toy")
    (cache / "toy" / "toy.gz").write_bytes(b"toy")
    assert files(toy(), None) == {"toy.gz": cache / "toy" / "toy.gz"}
    monkeypatch.setenv("MUPC_DATA", str(tmp_path / "nowhere"))  # falls through
    assert files(toy(), None) == {"toy.gz": cache / "toy" / "toy.gz"}


def test_a_file_is_downloaded_into_the_cache(cache, monkeypatch):
    asked = []

    def download(url, output_file, pooch):
        asked.append(url)
        Path(output_file).write_bytes(b"toy")

    use_downloader(monkeypatch, download)
    assert files(toy(), None) == {"toy.gz": cache / "toy" / "toy.gz"}
    assert files(toy(), None)["toy.gz"].read_bytes() == b"toy"
    assert asked == ["https://example.org/toy.gz"]


def test_the_cache_is_the_systems_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("MUPC_CACHE")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "system" / project)
    touch(tmp_path / "system" / "mupc" / "cifar10", "cifar-10-binary.tar.gz")
    assert available()["cifar10"] == "in the cache"


def test_a_wrong_checksum_is_reported_and_nothing_kept(cache, monkeypatch):
    use_downloader(monkeypatch, lambda url, output_file, pooch: Path(output_file).write_bytes(b"?"))
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz arrived with a wrong checksum"):
        load("cifar10")
    assert list((cache / "cifar10").iterdir()) == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_without_a_network_the_sentence_says_what_to_do(name, tmp_path, monkeypatch):
    words = r"could not be downloaded .*ConnectionError.*by hand .* set MUPC_DATA or --data-dir"
    with pytest.raises(DataError, match=f"{name} is not on this machine.*http.*{words} to it.$"):
        load(name)
    monkeypatch.setenv("MUPC_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"MUPC_DATA is {tmp_path}, which has 0 of {name}'s"):
        load(name)


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MUPC_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=f"could not be downloaded to {tmp_path / 'file'}"):
        load("mnist")


# The contents of IDX files


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"<html>", "not an IDX file.*begins with 0x3c68746d, not 0x00000801"),
        (idx(60_000, code=0x0D), "not an IDX file of unsigned bytes.*0x00000d01"),
        (idx(60_000, 28, 28), "not an IDX file.*in 1 dimensions.*0x00000803"),
        (idx()[:3] + b"\x01\x00", "truncated within its header"),
        (idx(10_000, data=bytes(10_000)), r"another data set.*\(10000,\), not \(60000,\)"),
        (idx(60_000, data=bytes(59_999)), "truncated: it holds 60007 bytes.*not 60008"),
        (idx(60_000, data=bytes(60_001)), "too long: it holds 60009 bytes.*not 60008"),
        (
            idx(60_000, data=bytes(60_000)),
            "holds other data .*md5 a25bea736e30d166cdddb491f175f624",
        ),
        (gz(idx(60_000, data=bytes(60_000)))[:-9], "cannot be read .*end-of-stream"),
        (gz(bytes(99))[:10] + b"\xff" * 20, "cannot be read .*Error -3"),
        (gz(bytes(99))[:-8] + bytes(8), "cannot be read .*CRC"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_damaged_or_wrong_idx_file_is_refused(contents, words, ending, tmp_path):
    touch(tmp_path, *IDX_FILES)
    (tmp_path / TRAIN_LABELS).unlink()
    (tmp_path / (TRAIN_LABELS + ending)).write_bytes(contents)
    with pytest.raises(DataError, match=f"{TRAIN_LABELS}{ending} .*{words}"):
        load("mnist", data_dir=tmp_path)


def write_fashion(folder, train_labels, test_labels):
    """Black images but for the first pixel of the first, in sparse files."""
    for name, n in ((TRAIN_IMAGES, 60_000), (TEST_IMAGES, 10_000)):
        with (folder / name).open("wb") as file:
            file.write(idx(n, 28, 28, data=b"\xff"))
            file.truncate(16 + n * 784)
    (folder / TRAIN_LABELS).write_bytes(idx(60_000, data=train_labels.astype(np.uint8).tobytes()))
    packed = gzip.compress(idx(10_000, data=test_labels.astype(np.uint8).tobytes()))
    (folder / (TEST_LABELS + ".gz")).write_bytes(packed)


def test_fashion_mnist_is_scaled_and_told_by_its_labels(tmp_path):
    balanced = np.arange(60_000) % 10
    write_fashion(tmp_path, balanced, balanced[:10_000])
    data = load("fashion-mnist", data_dir=tmp_path, validation=0)
    assert (data.inputs, data.outputs, data.validation) == (784, 10, None)
    assert (data.shape, data.classes[0], data.classes[9]) == (
        (28, 28, 1),
        "T-shirt/top",
        "Ankle boot",
    )
    for split, n in ((data.train, 60_000), (data.test, 10_000)):
        assert split.x.shape == (n, 28, 28, 1)
        assert split.x[0, 0, 0, 0] == pytest.approx((1 - 0.2860) / 0.3530)
        assert split.x[0, 0, 1, 0] == split.x.min() == pytest.approx(-0.2860 / 0.3530)
        np.testing.assert_array_equal(split.y.argmax(1), balanced[:n])
    for labels in (np.arange(60_000) % 11, np.minimum(balanced, 8)):
        write_fashion(tmp_path, labels, balanced[:10_000])
        with pytest.raises(DataError, match=f"{TRAIN_LABELS} holds other data than fashion-mnist"):
            load("fashion-mnist", data_dir=tmp_path)


@real_mnist
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("MUPC_DATA", str(REAL))
    data = load("mnist", validation=0.1)
    assert [len(split.x) for split in (data.train, data.validation, data.test)] == [
        54_000,
        6_000,
        10_000,
    ]
    # Published: the number of each digit, and the first ten test labels.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(data.train.y.sum(0) + data.validation.y.sum(0), counts)
    assert (data.shape, data.inputs, data.classes) == ((28, 28, 1), 784, tuple(range(10)))
    assert data.test.y[:10].argmax(1).tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert abs(data.train.x.mean(dtype=float)) < 1e-2
    assert abs(data.train.x.std(dtype=float) - 1) < 1e-2
    with pytest.raises(DataError, match=r"not complete|holds other data than fashion-mnist"):
        load("fashion-mnist", data_dir=Path(str(REAL)) / "mnist")


@real_mnist
def test_real_mnist_is_the_same_decompressed(tmp_path):
    for name in IDX_FILES:
        packed = next(Path(str(REAL)).glob(f"**/{name}.gz"))
        (tmp_path / name).write_bytes(gzip.decompress(packed.read_bytes()))
    ours = load("mnist", data_dir=tmp_path, validation=0)
    theirs = load("mnist", data_dir=REAL, validation=0)
    for a, b in zip((*ours.train, *ours.test), (*theirs.train, *theirs.test), strict=True):
        np.testing.assert_array_equal(a, b)


@real_mnist
def test_color_mnist_is_mnist_in_colours():
    """The largest channel is the grey value, and of a colour one channel is 1 and one 0."""
    ours, grey = load("color-mnist", data_dir=REAL), load("mnist", data_dir=REAL, scale="unit")
    for a, b in ((ours.train, grey.train), (ours.test, grey.test)):
        np.testing.assert_allclose(a.x.max(axis=-1), b.x[..., 0], atol=1e-6)
        np.testing.assert_array_equal(a.y, b.y)
        assert not a.x.min(axis=-1).any()
    shown = ours.train.x[:1000].max(axis=(1, 2))
    assert not np.allclose(shown[0], shown[1], atol=0.01)
    # Hues are uniform: each channel is as bright on average, (1/3 · 1 + 1/3 · 1/2) of the largest.
    np.testing.assert_allclose(shown.mean(axis=0), 0.5, atol=0.05)


def test_colours_are_those_of_the_hues():
    found = coloured(50, 1)
    hues = np.random.default_rng((0, 1)).random(50)
    wanted = [colorsys.hsv_to_rgb(hue, 1, 1) for hue in hues]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(coloured(10, 1), found[:10])
