import io
import itertools
import os
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from des4.data import Loader, ViewsConfig
from des4.data_tools.shard_writer import write_shards
from des4.datasets import Folder, FolderConfig
from des4.datasets.shards import Shards
from des4.datasets.tar_index import build_index, index_of, index_path, load_index, save_index
from des4.images.pictures import read_image
from des4.types import DataError, ViewSpec


def content(name):
    """What the member of this name holds: something of its own, of its own length."""
    return name.encode() * (1 + sum(name.encode()) % 700)


def packed(path, names, **options):
    """Write a tar file of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content(name))
            tar.addfile(info, io.BytesIO(content(name)))
    return path


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "indexes"


NAMES = ["b/2.jpg", "b/1.png", "a.jpeg", "z.webp", "b/10.JPG"]


def test_ids_are_shard_and_key_in_sorted_order_and_each_gives_its_bytes(tmp_path, kept):
    packed(tmp_path / "two.tar", NAMES)
    packed(tmp_path / "two-b.tar", ["x.jpg", "w.jpg"])
    packed(tmp_path / "empty.tar", [])
    shards = Shards([tmp_path], kept)
    ids = [f"two/{name.rpartition('.')[0]}" for name in NAMES] + ["two-b/x", "two-b/w"]
    assert list(shards) == list(shards[:]) == sorted(ids)
    assert (len(shards), shards.num_shards) == (7, 3)
    for name, sample_id in zip([*NAMES, "x.jpg", "w.jpg"], ids, strict=True):
        assert shards.read(sample_id) == content(name)
        assert shards.tar(sample_id).stem == sample_id.partition("/")[0]
        assert sample_id in shards
    for missing in ("two/b/3", "two/", "three/a", "two", "", 5):
        assert missing not in shards
    with pytest.raises(DataError, match=r"^two/b/3: no shard holds this image"):
        shards.read("two/b/3")


def test_webdataset_s_names_are_understood(tmp_path):
    names = ["a.jpg", "a.json", "a.seg.png", "./b.PNG", "c.cls", ".hidden.jpg", "d.png", "d.jpg", "e.f/g.jpg", "h"]
    index = build_index(packed(tmp_path / "a.tar", names))
    assert [index.key(i) for i in range(len(index))] == ["a", "b", "d", "e.f/g"]
    with (tmp_path / "a.tar").open("rb") as file:
        file.seek(int(index.offsets[2]))
        assert file.read(int(index.lengths[2])) == content("d.jpg")  # a JPEG goes before a PNG, which may be a mask


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_of_tar_are_read(tmp_path, kept, format):
    names = ["dir/plain.jpg", "d" * 90 + "/" + "n" * 60 + ".jpg"]
    if format != tarfile.USTAR_FORMAT:
        names += ["x" * 300 + ".png", "größe/日本語.jpg"]
    path = packed(tmp_path / "a.tar", names, format=format)
    with tarfile.open(path, "a", format=format) as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"other{kind.decode()}.jpg")
            info.type, info.linkname = kind, "dir/plain.jpg"
            tar.addfile(info)
    for _ in range(2):  # built, then as it was kept
        shards = Shards([path], kept)
        assert {shards.read(sample_id) for sample_id in shards} == {content(name) for name in names}


@settings(max_examples=30, deadline=None)
@given(st.sets(st.text("ab/é", min_size=1, max_size=6).filter(lambda s: not s.endswith("/")), max_size=25))
def test_any_key_is_found_and_no_other(tmp_path_factory, keys):
    keys = {os.path.normpath(key.lstrip("/")) for key in keys if key.strip("/")}
    folder = tmp_path_factory.mktemp("any")
    index = build_index(packed(folder / "a.tar", [f"{key}.jpg" for key in sorted(keys, reverse=True)]))
    assert [index.key(i) for i in range(len(index))] == sorted(keys)
    assert [index.find(key) for key in sorted(keys)] == list(range(len(keys)))
    assert all(index.find(other) is None for other in {"", "a", "zz", "é"} - keys)
    save_index(index, folder / "index")
    again = load_index(folder / "index")
    assert all(
        np.array_equal(getattr(again, name), getattr(index, name)) for name in ("offsets", "lengths", "ends", "keys")
    )
    assert again.size == index.size


def test_an_index_is_kept_and_not_made_twice(tmp_path, kept, monkeypatch):
    path = packed(tmp_path / "a.tar", NAMES)
    first = index_of(path, kept)
    monkeypatch.setattr("des4.datasets.tar_index.build_index", None)
    assert index_of(path, kept).key(0) == first.key(0)
    assert sorted(tmp_path.iterdir()) == [path, kept]  # nothing was written beside the tar
    save_index(first, index_path(path))
    for file in kept.iterdir():
        file.unlink()
    assert index_of(path, kept).key(0) == first.key(0)  # one that lies there serves
    os.utime(path, (2e9, 2e9))  # a copy with another date is the same tar
    assert index_of(path, kept).key(0) == first.key(0)


def test_an_index_that_does_not_fit_is_made_anew(tmp_path, kept):
    path = packed(tmp_path / "a.tar", NAMES)
    index_of(path, kept)
    size = path.stat().st_size
    other = NAMES[::-1]
    packed(path, other)
    assert path.stat().st_size == size
    assert {Shards([path], kept).read(sample_id) for sample_id in Shards([path], kept)} == {content(n) for n in other}
    packed(path, [*NAMES, *(f"new{n}.jpg" for n in range(9))])
    assert path.stat().st_size > size
    assert len(index_of(path, kept)) == 14
    path.write_bytes(bytes(path.stat().st_size))  # blocks that are no headers
    assert len(index_of(path, kept)) == 0


def test_an_index_of_a_tar_with_members_of_other_lengths_is_made_anew(tmp_path, kept):
    path = tmp_path / "a.tar"
    for lengths in ([100, 200], [300, 400], [300, 400, 20_000]):  # in the first two all members begin at the same bytes
        with tarfile.open(path, "w") as tar:
            for number, length in enumerate(lengths):
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = length
                tar.addfile(info, io.BytesIO(bytes(length)))
        assert index_of(path, kept).lengths.tolist() == lengths


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_index_belongs_to_the_names_of_its_tar(tmp_path, kept, monkeypatch, form):
    path = tmp_path / "a.tar"

    def write(*names):
        with tarfile.open(path, "w", format=form) as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 10
                tar.addfile(info, io.BytesIO(bytes(10)))
        return index_of(path, kept)

    assert write("./x.jpg").find("x") == 0
    assert write("./y.jpg").find("x") is None
    names = (
        "d/" * 30 + "a.jpeg",
        "d/" * 45 + "b.png",
        "d/é.jpg",
        *([] if form == tarfile.USTAR_FORMAT else ["e" * 150 + ".jpg"]),
    )
    assert len(write(*names)) == len(names)
    monkeypatch.setattr("des4.datasets.tar_index.build_index", None)  # the one that is kept fits
    assert len(index_of(path, kept)) == len(names)


@pytest.mark.parametrize("place", [4, 300, -3, None])
def test_a_damaged_index_is_made_anew(tmp_path, kept, place):
    path = packed(tmp_path / "a.tar", NAMES)
    index_of(path, kept)
    (file,) = kept.iterdir()
    damaged = bytearray(file.read_bytes() if place is not None else file.read_bytes()[:100])
    if place is not None:
        damaged[place] ^= 8
    file.write_bytes(damaged)
    assert load_index(file) is None
    assert index_of(path, kept).find("b/10") == load_index(file).find("b/10") == 2


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, kept):
    whole = packed(tmp_path / "whole.tar", NAMES).read_bytes()
    second = whole.index(b"b/1.png")
    broken = bytearray(whole)
    broken[second] ^= 1  # the header's checksum is wrong, which `tarfile` alone would take for the end
    cases = {
        "header.tar": (bytes(broken), f"damaged at byte {second}"),
        "cut.tar": (whole[: whole.index(b"b/10.JPG") + 600], "cannot be read as a tar file"),
        "text.tar": (b"not a tar file" * 100, "cannot be read as a tar file"),
        "nothing.tar": (b"", "cannot be read as a tar file"),
    }
    for name, (data, _) in cases.items():
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    packed(tmp_path / "twice.tar", ["a.jpg", "a.jpeg"])
    (tmp_path / "bytes.tar").write_bytes(whole.replace(b"a.jpeg", b"\xff.jpeg"))
    cases |= {
        "packed.tar": (b"", "not compressed"),
        "twice.tar": (b"", "two images of the sample 'a'"),
        "missing.tar": (b"", "no such shard"),
    }
    for name, (_, reason) in cases.items():
        with pytest.raises(DataError, match=reason) as error:
            Shards([tmp_path / name], kept)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_an_index_that_cannot_be_kept_is_said_to_be_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/indexes: the index of a\.tar cannot be kept there .* data\.cache_dir"):
        Shards([packed(tmp_path / "a.tar", NAMES)], tmp_path / "file" / "indexes")


def test_members_that_do_not_lie_in_one_piece_are_refused(tmp_path, kept):
    data = packed(tmp_path / "a.tar", ["a.jpg"]).read_bytes()
    header = tarfile.TarInfo("a.jpg")
    header.size = 5 << 30
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + data[512:])
    os.truncate(tmp_path / "a.tar", 6 << 30)  # a hole: no byte of it is written
    with pytest.raises(DataError, match=r"'a\.jpg' is larger than 4 GiB or sparse"):
        Shards([tmp_path / "a.tar"], kept)


def test_names_that_are_not_utf_8_are_refused(tmp_path, kept):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("größe.jpg"))
    with pytest.raises(DataError, match="is not UTF-8"):
        Shards([tmp_path / "a.tar"], kept)


def test_a_shard_that_shrinks_while_it_is_in_use_is_named(tmp_path, kept):
    path = packed(tmp_path / "a.tar", NAMES)
    shards = Shards([path], kept)
    os.truncate(path, 1000)
    with pytest.raises(DataError, match=r"a\.tar: ends within 'a/z'"):
        shards.read("a/z")
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tar: cannot be read"):
        shards.read("a/z")


def test_places_must_hold_shards_of_different_names(tmp_path, kept):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds no \.tar files"):
        Shards([tmp_path / "none"], kept)
    packed(tmp_path / "empty" / "e.tar", ["a.txt"])
    with pytest.raises(DataError, match="no shard holds an image"):
        Shards([tmp_path / "empty"], kept)
    for folder in ("one", "other"):
        packed(tmp_path / folder / "a.tar", ["a.jpg"])
    packed(tmp_path / "one" / "._a.tar", ["a.jpg"])  # what macOS leaves behind
    with pytest.raises(DataError, match=r"other/a\.tar: has the name of .*one/a\.tar"):
        Shards([tmp_path / "one", tmp_path / "other"], kept)
    assert list(Shards([tmp_path / "one"], kept)) == ["a/a"]


def pictures(folder, names):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_what_is_packed_is_what_is_read(tmp_path, kept):
    names = ["b.jpg", "sub/a.png", "sub/c.bmp", "frame.0001.jpg"]
    source = pictures(tmp_path / "photos", names)
    (source / "broken.jpg").write_bytes(b"not an image")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    done = write_shards(source, tmp_path / "out", 3000)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    assert (done.images, len(done.skipped)) == (4, 1)
    assert "broken.jpg: cannot be read" in done.skipped[0]
    assert [path.name for path in done.shards] == [f"photos-0000{n}.tar" for n in range(len(done.shards))]
    assert len(done.shards) > 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        name for path in done.shards for name in (path.name, f"{path.name}.index")
    )
    shards = Shards([tmp_path / "out"], kept)
    assert not kept.exists()  # the indexes beside the shards serve
    by_key = {sample_id.partition("/")[2]: shards.read(sample_id) for sample_id in shards}
    assert by_key == {name.rpartition(".")[0].replace(".", "_"): (source / name).read_bytes() for name in names}
    with tarfile.open(done.shards[0]) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert np.array_equal(read_image(tmp_path / "unpacked" / "b.jpg"), read_image(source / "b.jpg"))


def test_of_a_data_folder_the_images_are_packed_and_not_the_masks(tmp_path):
    pictures(tmp_path / "data", ["images/a.jpg", "masks/a.png"])
    done = write_shards(tmp_path / "data", tmp_path / "out", 10**6)
    assert list(Shards([tmp_path / "out"], tmp_path)) == ["data-00000/a"]
    assert (done.images, done.spared) == (1, 0)


def test_of_a_data_folder_what_is_not_trained_on_is_not_packed(tmp_path):
    pictures(tmp_path / "data", ["images/a.jpg", "images/val/b.jpg", "images/day/Test/c.jpg", "images/valid/d.jpg"])
    done = write_shards(tmp_path / "data", tmp_path / "out", 10**6)
    assert list(Shards([tmp_path / "out"], tmp_path)) == ["data-00000/a"]
    assert (done.images, done.spared) == (1, 3)
    plain = write_shards(tmp_path / "data" / "images", tmp_path / "plain", 10**6)
    assert (plain.images, plain.spared) == (4, 0), "a folder of photos has no splits"
    (tmp_path / "data/images/a.jpg").unlink()
    with pytest.raises(DataError, match="all its 3 images lie in folders of val or test"):
        write_shards(tmp_path / "data", tmp_path / "none", 10**6)


def test_links_that_lead_nowhere_are_left_out_and_named(tmp_path):
    source = pictures(tmp_path / "photos", ["a.jpg"])
    (source / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    done = write_shards(source, tmp_path / "out", 10**6)
    assert (done.images, len(done.skipped)) == (1, 1)
    assert "b.jpg: no such file" in done.skipped[0]


def test_what_cannot_be_packed_is_said_in_one_line(tmp_path):
    source = pictures(tmp_path / "photos", ["a.b.jpg", "a_b.jpg"])
    (tmp_path / "bare").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "full" / "x").mkdir(parents=True)
    good = pictures(tmp_path / "good", ["a.jpg"])
    for place, out, reason in [
        (source, "out", "would be packed as 'a_b'"),
        (tmp_path / "bare", "out", "holds no images"),
        (tmp_path / "bad", "out", r"none of its 1 images can be read. The first: .*x\.jpg"),
        (tmp_path / "nowhere", "out", "no such folder"),
        (good, "full", "is not empty"),
        (good, "good/out", "lies in the folder that is packed"),
        (good, "file/out", "no folder can be made there"),
    ]:
        with pytest.raises(DataError, match=reason) as error:
            write_shards(place, tmp_path / out, 1000)
        assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """A data folder with one labeled, one val and two unlabeled images; six more in shards, one of them broken."""
    pictures(tmp_path / "data", ["images/a.jpg", "images/val/b.jpg", "images/m.jpg", "images/z.jpg"])
    for name in ("a", "val/b"):
        (tmp_path / "data/masks" / name).parent.mkdir(parents=True, exist_ok=True)
        mask = np.indices((20, 30)).sum(0).astype(np.uint8) % 2
        Image.fromarray(mask).save(tmp_path / "data/masks" / f"{name}.png")
    pictures(tmp_path / "more", ["1.jpg", "2.png", "3.jpg", "4.jpg", "5.jpg"])
    write_shards(tmp_path / "more", tmp_path / "shards", 3000)
    with tarfile.open(tmp_path / "shards" / "broken.tar", "w") as tar:
        info = tarfile.TarInfo("x.jpg")
        info.size = 100
        tar.addfile(info, io.BytesIO(bytes(100)))
    return tmp_path / "data"


def with_shards(tmp_path, folder, **settings):
    config = {"root": folder, "shards": tmp_path / "shards", "cache_dir": tmp_path / "kept", **settings}
    return Folder(FolderConfig(**config))


def test_images_in_shards_come_to_those_in_files(tmp_path, folder):
    data = with_shards(tmp_path, folder)
    assert (data.labeled, data.val) == (("a",), ("val/b",))
    assert list(data.unlabeled) == sorted(data.unlabeled)
    assert len(data.unlabeled) == 8
    assert {"m", "z", "broken/x", "more-00000/1"} <= set(data.unlabeled)
    place = next(sample_id for sample_id in data.unlabeled if sample_id.endswith("/2"))
    assert np.array_equal(data.image(place), read_image(tmp_path / "more" / "2.png"))
    assert any("6 unlabeled images in" in note for note in data.notes)
    with pytest.raises(DataError, match=r"broken\.tar/x: cannot be read as an image"):
        data.image("broken/x")
    with pytest.raises(DataError, match="has no image 'more-00000/9'"):
        data.image("more-00000/9")
    with pytest.raises(DataError, match="neither a labeled nor a val image"):
        data.label(place)
    listed = with_shards(tmp_path, folder, shards=(tmp_path / "shards" / "broken.tar",), unlabeled=None)
    assert list(listed.unlabeled) == ["broken/x", "m", "z"]


def test_a_worker_that_is_not_forked_gets_all_it_needs(tmp_path, folder):
    spec = ViewSpec(strong=1, cutmix="french", photometric="french")
    loader = Loader(
        with_shards(tmp_path, folder, cache=0.001), ViewsConfig(crop_size=16), spec, labeled_batch=1,
        unlabeled_batch=8, seed=2, workers=0, fill=(0, 0, 0),
    )  # fmt: skip
    sent = pickle.loads(pickle.dumps(loader))  # noqa: S301  # as multiprocessing does
    assert sent[0].unlabeled.ids == loader[0].unlabeled.ids
    assert np.array_equal(sent[0].unlabeled.weak, loader[0].unlabeled.weak)


def test_shards_alone_may_be_all_that_is_unlabeled(tmp_path, folder):
    for name in ("m", "z"):
        (folder / "images" / f"{name}.jpg").unlink()
    data = with_shards(tmp_path, folder)
    assert all("/" in sample_id for sample_id in data.unlabeled)


def test_an_id_that_is_a_file_s_as_well_is_refused(tmp_path, folder):
    pictures(folder, ["images/broken/x.jpg"])
    with pytest.raises(DataError, match=r"broken\.tar: 'broken/x' is an image under .*data as well; rename the shard"):
        with_shards(tmp_path, folder)


@pytest.mark.parametrize("extra", [{}, {"cache": 0.001}])
def test_training_from_shards_does_not_depend_on_workers_or_resuming(tmp_path, folder, extra):
    def batches(start, count, workers):
        spec = ViewSpec(strong=1, cutmix="french", photometric="french")
        loader = Loader(
            with_shards(tmp_path, folder, **extra), ViewsConfig(crop_size=16), spec, labeled_batch=1,
            unlabeled_batch=3, seed=2, workers=workers, fill=(0, 0, 0),
        )  # fmt: skip
        for batch in itertools.islice(loader.batches(start), count):
            un = batch.unlabeled
            yield un.ids, dict(batch.skipped), un.weak.numpy().tobytes(), un.strong[0].image.numpy().tobytes()

    straight = list(batches(0, 9, 0))
    assert list(batches(0, 9, 2)) == straight
    assert list(batches(4, 5, 1)) == straight[4:]
    assert {sample_id for ids, *_ in straight for sample_id in ids} == set(with_shards(tmp_path, folder).unlabeled) - {
        "broken/x"
    }
    reasons = {reason for _, skipped, *_ in straight for reason in skipped.items()}
    assert [sample_id for sample_id, _ in reasons] == ["broken/x"]
