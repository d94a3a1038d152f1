import itertools
import multiprocessing
import os
import pickle
import random
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from des4.data import Loader, ViewsConfig
from des4.datasets import Folder, FolderConfig
from des4.images.cache import ABANDONED, PixelCache, cache_folder
from des4.types import DataError, ViewSpec

MIB = 1 << 20
ENTRY = 64 + 3 * 20 * 30  # bytes of an entry of `picture`


def picture(seed=0, height=20, width=30):
    """Pixels as a file is decoded: (3, H, W) in the memory of (H, W, 3)."""
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed)).byte().movedim(2, 0)


class Source:
    """Files of a data set, and how often each was decoded."""

    def __init__(self, root, count=5):
        self.root, self.decoded = root, []
        root.mkdir(exist_ok=True)
        for n in range(count):
            self.path(n).write_text(f"picture {n}")

    def path(self, n):
        return self.root / f"{n}.jpg"

    def get(self, cache, n):
        def decode():
            self.decoded.append(n)
            return picture(n)

        return cache.get(self.path(n), decode)


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "data")


def opened(source, tmp_path, limit=MIB):
    return PixelCache(tmp_path / "cache", source.root, limit)


def entries(tmp_path):
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file() and len(path.name) == 30)


def used(tmp_path):
    """Bytes of all entries, those being written among them."""
    total = 0
    for path in (tmp_path / "cache").rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            total += path.stat().st_size if path.is_file() and path.name != "ledger" else 0
    return total


def test_what_was_decoded_once_is_read_back_in_later_processes_too(source, tmp_path):
    for _ in range(2):
        cache = opened(source, tmp_path)
        for n in (0, 1, 0, 1):
            pixels = source.get(cache, n)
            assert torch.equal(pixels, picture(n))
            assert pixels.permute(1, 2, 0).is_contiguous()
    assert source.decoded == [0, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_images_of_any_size_come_back(tmp_path_factory, height, width):
    folder = tmp_path_factory.mktemp("any")
    (folder / "data").mkdir()
    (folder / "data" / "a").write_text("a")
    pixels = picture(1, height, width)
    cache = PixelCache(folder / "cache", folder / "data", MIB)
    assert cache.get(folder / "data" / "a", lambda: pixels) is pixels
    again = cache.get(folder / "data" / "a", lambda: pytest.fail("not cached"))
    assert torch.equal(again, pixels)
    assert again.stride() == pixels.stride() or min(height, width) == 1


def test_writing_into_what_it_returns_reaches_neither_the_cache_nor_others(source, tmp_path):
    cache = opened(source, tmp_path)
    source.get(cache, 0)
    source.get(cache, 0).zero_()
    assert torch.equal(source.get(cache, 0), picture(0))


def test_a_changed_file_is_decoded_anew(source, tmp_path):
    cache = opened(source, tmp_path)
    source.get(cache, 0)
    source.path(0).write_text("another picture")
    source.get(cache, 0)
    stat = source.path(0).stat()
    os.utime(source.path(0), ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    source.get(cache, 0)
    source.get(cache, 0)
    assert source.decoded == [0, 0, 0]
    assert len(entries(tmp_path)) == 1


def test_members_of_one_file_are_told_apart(source, tmp_path):
    cache = opened(source, tmp_path)
    for _ in range(2):
        for member in ("a", "b"):
            assert torch.equal(
                cache.get(source.path(0), lambda m=member: picture(ord(m)), member), picture(ord(member))
            )
    assert len(entries(tmp_path)) == 2


def test_a_failure_to_decode_passes_through_and_leaves_nothing(source, tmp_path):
    cache = opened(source, tmp_path)

    def fail():
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        cache.get(source.path(0), fail)
    with pytest.raises(DataError, match="broken"):
        cache.get(source.root / "missing.jpg", fail)
    assert not entries(tmp_path)


@pytest.mark.parametrize("damage", ["first", "header", "pixel", "last", "short", "header only", "empty"])
def test_damaged_entries_are_noticed_and_made_anew(source, tmp_path, damage):
    source.get(opened(source, tmp_path), 0)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    place = {"first": 0, "header": 26, "pixel": 999, "last": -1}.get(damage)
    if place is None:
        entry.write_bytes(whole[: {"short": -1, "header only": 64, "empty": 0}[damage]])
    else:
        flipped = bytearray(whole)
        flipped[place] ^= 4
        entry.write_bytes(flipped)
    cache = opened(source, tmp_path)
    for _ in range(2):
        assert torch.equal(source.get(cache, 0), picture(0))
    assert source.decoded == [0, 0]
    assert entry.read_bytes() == whole


def test_beyond_the_bound_nothing_is_added(source, tmp_path):
    cache = opened(source, tmp_path, limit=3 * ENTRY + 100)
    for _ in range(2):
        for n in range(5):
            assert torch.equal(source.get(cache, n), picture(n))
    assert source.decoded == [0, 1, 2, 3, 4, 3, 4]
    assert used(tmp_path) == 3 * ENTRY
    reopened = opened(source, tmp_path, limit=4 * ENTRY + 100)  # what is there counts
    for n in range(5):
        source.get(reopened, n)
    assert used(tmp_path) == 4 * ENTRY


def test_other_data_sets_make_room_unless_they_are_in_use(source, tmp_path):
    limit = 5 * ENTRY + 100
    others = [Source(tmp_path / f"other{n}", 2) for n in range(2)]
    caches = [opened(other, tmp_path, limit) for other in others]
    for other, cache in zip(others, caches, strict=True):
        for n in range(2):
            other.get(cache, n)
    cache = opened(source, tmp_path, limit)
    for n in range(4):
        source.get(cache, n)
    assert used(tmp_path) == 5 * ENTRY  # both others are open: one place was left
    del cache
    del caches[0]  # closed
    cache = opened(source, tmp_path, limit)
    for n in range(4):
        source.get(cache, n)
    assert used(tmp_path) == 5 * ENTRY
    assert source.decoded == [0, 1, 2, 3, 1, 2, 3]  # 1 and 2 have the room of the closed data set
    for n in range(2):
        others[1].get(caches[0], n)
    assert others[1].decoded == [0, 1]  # the one in use is whole
    others[0].get(opened(others[0], tmp_path, limit), 0)
    assert others[0].decoded == [0, 1, 0]


def test_what_a_dead_writer_left_is_removed_but_not_a_living_one_s(source, tmp_path):
    source.get(opened(source, tmp_path), 0)
    (entry,) = entries(tmp_path)
    for name, age in ((".dead.1", 2 * ABANDONED), (".alive.2", 0)):
        path = entry.with_name(name)
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    opened(source, tmp_path)
    assert sorted(path.name for path in entry.parent.iterdir()) == [".alive.2", entry.name]


def fill(folder, root, limit, seed):
    cache, source = PixelCache(folder, root, limit), Source(root, 0)
    order = list(range(40))
    random.Random(seed).shuffle(order)
    for n in order * 2:
        assert torch.equal(source.get(cache, n), picture(n))


def test_processes_share_the_cache_and_its_bound(tmp_path):
    source = Source(tmp_path / "data", 40)
    limit = 25 * ENTRY + 100
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=fill, args=(tmp_path / "cache", source.root, limit, seed)) for seed in range(4)]
    for job in jobs:
        job.start()
    highest = 0
    while any(job.is_alive() for job in jobs):
        highest = max(highest, used(tmp_path))
        time.sleep(0.005)
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    kept = used(tmp_path) // ENTRY
    assert 15 * ENTRY <= used(tmp_path) <= limit  # two that add the same entry at once book it twice
    assert highest <= limit
    cache = opened(source, tmp_path)
    for n in range(40):
        assert torch.equal(source.get(cache, n), picture(n))
    assert len(source.decoded) == 40 - kept


def test_a_full_disk_is_a_bound_like_the_other(source, tmp_path, monkeypatch):
    cache = opened(source, tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", full)
        for n in (0, 1):
            assert torch.equal(source.get(cache, n), picture(n))
    assert not list((tmp_path / "cache").rglob(".*"))
    assert not entries(tmp_path)


def test_a_cache_can_be_sent_to_a_worker(source, tmp_path):
    cache = opened(source, tmp_path)
    source.get(cache, 0)
    source.get(pickle.loads(pickle.dumps(cache)), 0)  # noqa: S301
    assert source.decoded == [0]


@pytest.mark.parametrize("settings", [{"cache": 1}, {"shards": "shards"}])
@pytest.mark.parametrize("place", [".", "cache"])
def test_nothing_is_kept_in_the_data_folder(folder, settings, place):
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=r"would lie in the data folder .*; name another"):
        Folder(FolderConfig(root=folder, cache_dir=folder / place, **settings))
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def folder(tmp_path):
    """A data folder: five images, three of them with masks."""
    rng = np.random.default_rng(0)
    for side in ("images", "masks"):
        (tmp_path / "data" / side).mkdir(parents=True)
    for n in range(5):
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{n}.jpg")
        if n < 3:
            Image.fromarray(pixels[..., 0] // 128).save(tmp_path / "data" / "masks" / f"{n}.png")
    return tmp_path / "data"


def batches(dataset, workers):
    spec = ViewSpec(strong=1, cutmix="french", photometric="french")
    loader = Loader(
        dataset, ViewsConfig(crop_size=24), spec, labeled_batch=2, unlabeled_batch=2, seed=1, workers=workers,
        fill=(0, 0, 0),
    )  # fmt: skip
    return [
        (batch.labeled.image, batch.labeled.label, batch.unlabeled.weak, batch.unlabeled.strong[0].image)
        for batch in itertools.islice(loader.batches(), 6)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_the_same_from_a_cold_cache_a_warm_one_and_none(tmp_path, folder, workers):
    settings = {"cache": 0.001, "cache_dir": tmp_path / "cache"}
    expected = batches(Folder(FolderConfig(root=folder)), 0)
    for temperature in ("cold", "warm"):
        for one, other in zip(batches(Folder(FolderConfig(root=folder, **settings)), workers), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)), temperature
    assert len(entries(tmp_path)) >= 4


def test_a_cached_image_is_not_decoded_again(tmp_path, folder):
    config = FolderConfig(root=folder, cache=0.001, cache_dir=tmp_path / "cache")
    before = Folder(config).image("4")
    path = folder / "images" / "4.jpg"
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))  # not an image any more, but nobody can tell
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert torch.equal(Folder(config).image("4"), before)
    with pytest.raises(DataError, match="cannot be read"):
        Folder(FolderConfig(root=folder)).image("4")


def test_a_place_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cache: the cache cannot be kept there .* data\.cache_dir"):
        PixelCache(tmp_path / "file" / "cache", source.root, MIB)


def test_the_default_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None, tmp_path / "data") == tmp_path / "des4"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None, tmp_path / "data") == tmp_path / ".cache" / "des4"
    assert cache_folder(tmp_path / "here", tmp_path / "data") == tmp_path / "here"
