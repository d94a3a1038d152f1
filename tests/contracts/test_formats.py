"""What every data format promises, over the FORMATS table, on the small tree that `trees.TREES` has for each."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from trees import TREES

from des4.data import Loader, ViewsConfig
from des4.datasets import FORMATS, FileDataset, pixel_counts, recognise
from des4.types import IGNORE, DataError, ViewSpec

Open = Callable[..., FileDataset]

_opened: list[Path] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str):
        _opened.append(Path(arguments[0]))


sys.addaudithook(_watch)


@contextmanager
def files_opened() -> Iterator[list[Path]]:
    """List the files that are opened in this block."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    TREES[name](tmp_path)
    return tmp_path


@pytest.fixture
def load(name: str, root: Path) -> Open:
    """Open the tree with these settings."""
    cls = FORMATS[name]
    return lambda **settings: cls(cls.Config(**{"root": root, **settings}))  # type: ignore[call-arg, arg-type]


def write_list(path: Path, *ids: str) -> Path:
    path.write_text("".join(f"{sample_id}\n" for sample_id in ids))
    return path


def has_a_file_of_its_own(data: FileDataset, sample_id: str) -> bool:
    """Whether the file that holds a mask holds no other image's."""
    others = {*data.labeled, *data.val} - {sample_id}
    return data.mask(sample_id).path not in {data.mask(other).path for other in others}


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_format_has_a_tree() -> None:
    assert set(TREES) == set(FORMATS)


def test_the_layout_says_which_format_it_is(name: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert recognise(root) == name
    claims = [other for other, cls in FORMATS.items() if cls.recognises(root)]
    assert set(claims) - {"folder"} == {name} - {"folder"}
    assert not FORMATS[name].recognises(tmp_path_factory.mktemp("empty"))
    assert not FORMATS[name].recognises(root / "gone")


def test_every_sample_is_read(load: Open) -> None:
    data = load()
    data.check_labeled()
    assert len(data.labeled) + len(data.val) >= 3
    assert data.val
    assert not set(data.val) & {*data.labeled, *data.unlabeled}
    assert 2 <= len(data.classes) == len(set(data.classes)) == len(set(data.palette))
    assert pixel_counts(data, data.labeled).sum() > 0
    for sample_id in (*data.labeled, *data.val):
        image, label = data.image(sample_id), data.label(sample_id)
        assert image.dtype == label.dtype == torch.uint8
        assert image.shape == (3, *label.shape)
        assert set(label.unique().tolist()) <= {*range(len(data.classes)), IGNORE}


def test_the_mask_of_an_unlabeled_image_is_never_opened(load: Open, root: Path) -> None:
    first = load()
    hidden, *rest = first.labeled
    mask, others = first.mask(hidden).path, {first.mask(sample_id).path for sample_id in (*rest, *first.val)}
    lists = {"unlabeled": write_list(root / "u.txt", hidden), "val": write_list(root / "v.txt", *first.val)}
    with files_opened() as opened:
        data = load(**lists)
        data.check_labeled()
        pixel_counts(data, (*data.labeled, *data.val))
        loader = Loader(
            data,
            ViewsConfig(crop_size=4),
            ViewSpec(strong=1),
            labeled_batch=2,
            unlabeled_batch=1,
            seed=0,
            workers=0,
            fill=(0, 0, 0),
        )
        for step in range(3):
            loader[step]
    assert data.unlabeled == (hidden,)
    assert data.image_file(hidden) in opened
    assert others <= set(opened)
    if has_a_file_of_its_own(first, hidden):
        assert mask not in opened
    with pytest.raises(DataError, match="neither a labeled nor a val image"):
        data.label(hidden)


def test_the_mask_of_an_unlabeled_image_may_be_broken_or_gone(load: Open, root: Path) -> None:
    first = load()
    hidden, *rest = first.labeled
    mask = first.mask(hidden).path
    if not has_a_file_of_its_own(first, hidden):
        return
    lists = {"labeled": write_list(root / "l.txt", *rest), "val": write_list(root / "v.txt", *first.val)}
    mask.write_bytes(b"no mask at all")
    for _ in range(2):
        data = load(**lists)
        data.check_labeled()
        assert hidden in data.unlabeled
        assert data.image(hidden).shape[0] == 3
        mask.unlink(missing_ok=True)


def test_opening_a_tree_opens_no_picture(load: Open) -> None:
    """Seventeen thousand images are found by their names alone."""
    with files_opened() as opened:
        data = load()
    ids = (*data.labeled, *data.unlabeled, *data.val)
    assert not {data.image_file(sample_id) for sample_id in ids} & set(opened)
    assert not [path for path in opened if path.suffix == ".png"]


def test_nothing_is_written_into_the_data(load: Open, root: Path) -> None:
    def state() -> dict[Path, tuple[int, int, bytes]]:
        files = [path for path in root.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes()) for path in files}

    before, folders = state(), {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*")) if path.is_dir()}
    data = load()
    data.check_labeled()
    pixel_counts(data, (*data.labeled, *data.val))
    assert state() == before
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*")) if path.is_dir()} == folders


def test_a_broken_mask_is_named_in_one_line(load: Open, root: Path) -> None:
    data = load()
    sample_id = data.labeled[0]
    path = data.mask(sample_id).path
    named = path if has_a_file_of_its_own(data, sample_id) else root  # one file for all is sought by its content
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(broken)
        with pytest.raises(DataError) as error:
            load().label(sample_id)
        assert str(named) in one_line(error)


def test_a_broken_image_is_named_in_one_line(load: Open) -> None:
    data = load()
    sample_id = data.labeled[0]
    data.image_file(sample_id).write_bytes(b"")
    for read in (data.image, data.label):
        with pytest.raises(DataError) as error:
            read(sample_id)
        assert str(data.image_file(sample_id)) in one_line(error)


def test_a_root_that_is_not_there_or_holds_nothing_is_named(
    load: Open, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for place in (root / "gone", tmp_path_factory.mktemp("empty")):
        with pytest.raises(DataError) as error:
            load(root=place)
        assert str(place) in one_line(error)


def test_listed_images_that_are_not_there_are_named(load: Open, root: Path) -> None:
    path = write_list(root / "l.txt", "nobody/knows")
    for which in ("labeled", "unlabeled", "val"):
        with pytest.raises(DataError) as error:
            load(**{which: path})
        assert "'nobody/knows'" in one_line(error)


def test_a_tree_is_the_same_however_its_root_is_written(
    load: Open, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = load()
    monkeypatch.chdir(root.parent)
    link = tmp_path_factory.mktemp("link") / "data"
    link.symlink_to(root)
    for place in (Path(root.name), Path(root.name, "..", root.name), link):
        other = load(root=place)
        assert (other.labeled, other.unlabeled, other.val) == (data.labeled, data.unlabeled, data.val)
        assert other.classes == data.classes


def test_a_data_set_travels_to_another_process(load: Open) -> None:
    """Loader processes that are spawned get it so."""
    data = load()
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(data)
    other = ForkingPickler.loads(buffer.getvalue())
    for sample_id in data.labeled:
        assert torch.equal(other.label(sample_id), data.label(sample_id))
