import itertools
import multiprocessing
import operator
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from des4.data import Loader, ViewsConfig
from des4.data.ids import SortedIds
from des4.data.loader import SUBSTITUTES
from des4.data.order import Order
from des4.datasets import DATASETS, FORMATS, DataConfig, Folder, FolderConfig, Scenes, ScenesConfig, pixel_counts
from des4.engine.parts import split
from des4.ops.noise import sample_key
from des4.types import ConfigError, DataError, ViewSpec

DATA = Scenes(ScenesConfig(labeled=5, unlabeled=7, val=1, size=48))
SPEC = ViewSpec(strong=2, cutmix="unimatch", photometric="unimatch")


def make(data=DATA, spec=SPEC, *, workers=0, seed=3, views=None, batches=(2, 3), mix_group=3, **ranks):
    views = views or ViewsConfig(crop_size=(24, 32))
    return Loader(
        data, views, spec, labeled_batch=batches[0], unlabeled_batch=batches[1], mix_group=mix_group, seed=seed,
        workers=workers, fill=(0.5, 0.4, 0.3), **ranks,
    )  # fmt: skip


def tensors(batch):
    """Every tensor of a batch, in a fixed order."""
    lab, un = batch.labeled, batch.unlabeled
    views = [] if un is None else [t for view in un.strong for t in (view.image, view.mix.partner, view.mix.box)]
    rest = [] if un is None else [un.weak, un.valid, un.keys, *views]
    donors = [] if lab.donor is None else [lab.donor.image, lab.donor.label, lab.donor.keys]
    return [lab.image, lab.label, lab.keys, *lab.recoloured, *donors, *rest]


def same(a, b):
    ids = a.labeled.ids == b.labeled.ids and (a.unlabeled is None or a.unlabeled.ids == b.unlabeled.ids)
    return ids and all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_labeled_images_are_recoloured_only_if_asked_and_alike_each_time():
    plain = make()[1]
    coloured = make(views=ViewsConfig(crop_size=(24, 32), labeled_photometric="unimatch"))
    found = coloured[1]
    assert not torch.equal(found.labeled.image, plain.labeled.image)
    assert torch.equal(found.labeled.label, plain.labeled.label)
    assert torch.equal(found.unlabeled.weak, plain.unlabeled.weak)
    assert found.labeled.image.min() >= 0 and found.labeled.image.max() <= 1
    assert same(found, coloured[1]) and not torch.equal(found.labeled.image, coloured[4].labeled.image)


@pytest.mark.parametrize("preset", ["french", "augseg"])
def test_a_share_of_the_labeled_images_keeps_its_colours(preset):
    def images(probability):
        views = ViewsConfig(crop_size=(24, 32), labeled_photometric=preset, labeled_photometric_probability=probability)
        loader = make(views=views)
        return torch.cat([loader[n].labeled.image for n in range(30)])

    plain = torch.cat([make()[n].labeled.image for n in range(30)])
    changed = [((images(p) - plain).abs() > 1e-3).flatten(1).any(1).float().mean().item() for p in (0.01, 0.5, 1.0)]
    assert changed[0] < 0.1 and 0.25 < changed[1] / changed[2] < 0.75


def test_labeled_images_are_shown_in_further_colours_as_a_method_asks():
    plain, found = (
        make()[1].labeled,
        make(spec=ViewSpec(strong=2, recoloured=("french", "unimatch", "none")))[1].labeled,
    )
    assert torch.equal(found.image, plain.image) and plain.recoloured == ()
    french, unimatch, same_as_image = found.recoloured
    assert torch.equal(same_as_image, found.image)
    assert not torch.equal(french, found.image) and not torch.equal(unimatch, french)
    assert french.shape == found.image.shape


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_labeled_image_comes_with_another_one_as_a_method_asks(ranks):
    spec = ViewSpec(donor_scale=(0.2, 1.0))
    one, plain = make(spec=spec, batches=(4, 2)), make(spec=ViewSpec(), batches=(4, 2))
    shares = [make(spec=spec, batches=(4 // ranks, 2), rank=rank, ranks=ranks) for rank in range(ranks)]
    seen = set()
    for step in range(12):
        lab, parts = one[step].labeled, [share[step * ranks + share.rank].labeled for share in shares]
        assert torch.equal(lab.image, plain[step].labeled.image) and plain[step].labeled.donor is None
        donor = lab.donor
        assert donor.image.shape == lab.image.shape and donor.label.shape == lab.label.shape and donor.donor is None
        assert torch.equal(donor.keys, lab.keys) and set(donor.ids) <= set(DATA.labeled)
        assert torch.equal(torch.cat([part.donor.image for part in parts]), donor.image)
        assert torch.equal(torch.cat([part.donor.label for part in parts]), donor.label)
        seen |= set(zip(lab.ids, donor.ids, strict=True))
        small = [(label != 255).float().mean() for label in donor.label]
    assert len(seen) > 15  # of 25 pairs, in 48 draws
    assert min(small) < 1  # most of them are smaller than a crop
    (part, other) = split(one[0], 2)
    assert torch.equal(torch.cat([part.labeled.donor.image, other.labeled.donor.image]), one[0].labeled.donor.image)


@pytest.mark.parametrize(("factors", "side"), [((1.0, 1.0), 12), ((2.0, 2.0), 24)])
def test_the_scale_of_donors_follows_that_of_the_crops(factors, side):
    views = ViewsConfig(crop_size=(24, 32), scale=(0.25, 0.25))
    donor = make(spec=ViewSpec(donor_scale=factors), views=views)[0].labeled.donor
    assert [int((label != 255).sum()) for label in donor.label] == [side * side] * 2  # of images of 48 × 48


def test_a_donor_has_colours_of_its_own():
    views = ViewsConfig(crop_size=(24, 32), labeled_photometric="pseudoseg")
    cut = make(spec=ViewSpec(donor_scale=(1.0, 1.0)), views=views).cut(0)
    pairs = zip(*cut.labeled.colours, *cut.donors.colours, strict=True)
    assert all(own != donors for own, donors in pairs)


def test_a_batch_has_the_promised_shapes():
    batch = make()[0]
    assert batch.labeled.image.shape == (2, 3, 24, 32)
    assert batch.labeled.label.shape == (2, 24, 32)
    assert batch.unlabeled.weak.shape == (3, 3, 24, 32)
    assert len(batch.unlabeled.strong) == 2
    assert batch.unlabeled.strong[0].mix.box.shape == batch.unlabeled.valid.shape == (3, 24, 32)
    assert (len(batch.labeled.ids), len(batch.unlabeled.ids)) == (2, 3)
    for image in (batch.labeled.image, batch.unlabeled.weak, *(v.image for v in batch.unlabeled.strong)):
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1
    assert not torch.equal(*(view.image for view in batch.unlabeled.strong))


def test_workers_and_resume_change_nothing():
    straight = [make()[step] for step in range(8)]
    with_workers = list(itertools.islice(make(workers=2).batches(), 8))
    resumed = list(itertools.islice(make(workers=2).batches(5), 3))
    for step in range(8):
        assert same(straight[step], with_workers[step]), step
    for step in range(5, 8):
        assert same(straight[step], resumed[step - 5]), step
    assert not same(straight[0], make(seed=4)[0])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_share_a_step_out_between_them(ranks):
    """Ids, crops, colours and mixes of a step are those that one process draws."""
    size = {"batches": (8, 8), "mix_group": 2}
    share = {"batches": (8 // ranks, 8 // ranks), "mix_group": 2, "ranks": ranks}
    streams = [make(**share, rank=rank).batches(2) for rank in range(ranks)]
    for step, shares in enumerate(itertools.islice(zip(*streams, strict=True), 3), 2):
        whole = make(**size)[step]
        assert sum((b.labeled.ids for b in shares), ()) == whole.labeled.ids
        assert sum((b.unlabeled.ids for b in shares), ()) == whole.unlabeled.ids
        parts = {"labeled": ("image", "label", "keys"), "unlabeled": ("weak", "valid", "keys")}
        for name in (f"{part}.{name}" for part, names in parts.items() for name in names):
            find = operator.attrgetter(name)
            assert torch.equal(torch.cat([find(b) for b in shares]), find(whole)), name
        for view in range(2):
            mixed = [b.unlabeled.strong[view].mixed for b in shares]
            expected = whole.unlabeled.strong[view].mixed
            torch.testing.assert_close(torch.cat(mixed), expected, atol=1e-6, rtol=0)  # sums of another order
            assert not torch.equal(expected, whole.unlabeled.strong[view].image)


def test_samples_are_mixed_within_their_group():
    partners = make(batches=(2, 6), mix_group=2)[0].unlabeled.strong[0].mix.partner.tolist()
    assert partners == [1, 0, 3, 2, 5, 4]
    ring = ViewSpec(strong=1, cutmix="french")
    for group, expected in ((3, [1, 2, 0, 4, 5, 3]), (6, [1, 2, 3, 4, 5, 0])):
        (view,) = make(spec=ring, batches=(2, 6), mix_group=group)[0].unlabeled.strong
        assert view.mix.partner.tolist() == expected


def test_each_strong_view_has_boxes_of_its_own():
    one, two = make(spec=ViewSpec(strong=2, cutmix="french"))[0].unlabeled.strong
    assert one.mix.box.flatten(1).any(1).all() and not torch.equal(one.mix.box, two.mix.box)


def test_views_are_made_where_the_batch_is_wanted_without_asking_for_a_value():
    """A meta tensor has no values: what compares, counts or copies them back, and would wait for a GPU, fails here."""
    loader = make(views=ViewsConfig(crop_size=24, scale=(0.3, 2.0)))
    for step, batch in enumerate(itertools.islice(loader.batches(device=torch.device("meta")), 6)):
        assert {t.device.type for t in tensors(batch)} == {"meta"}
        assert [(t.shape, t.dtype) for t in tensors(batch)] == [(t.shape, t.dtype) for t in tensors(loader[step])]


@pytest.mark.filterwarnings("error:This DataLoader")
def test_more_workers_than_cores_are_no_news(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    assert same(next(make(workers=2).batches()), make()[0])


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_makes_the_same_views(workers):
    on_gpu = itertools.islice(make(workers=workers).batches(device=torch.device("cuda")), 8)
    for step, batch in enumerate(on_gpu):
        for here, there in zip(tensors(make()[step]), tensors(batch), strict=True):
            assert there.device.type == "cuda"
            torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)


def test_the_order_of_asking_changes_nothing():
    loader = make()
    later = [loader[step] for step in (40, 2, 17, 2)]
    assert same(later[1], later[3])
    assert same(later[0], make()[40])


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(make().batches())
    next(make(workers=1).batches())
    assert torch.equal(before, torch.get_rng_state())


def test_each_epoch_shows_every_sample_once_in_another_order():
    loader = make()
    ids = [sample_id for step in range(14) for sample_id in loader[step].unlabeled.ids]  # 6 epochs of 7
    epochs = [ids[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == sorted(DATA.unlabeled) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_list_shorter_than_a_batch_goes_round():
    order = Order(["b", "a"], "key")
    batch = order.batch(1, 7)  # positions 7 to 13
    assert [epoch for epoch, _ in batch] == [3, 4, 4, 5, 5, 6, 6]
    assert Counter(sample_id for _, sample_id in order.batch(0, 8)) == {"a": 4, "b": 4}
    assert batch == Order(["a", "b"], "key").batch(1, 7)  # the order of the list does not matter


@given(st.lists(st.text(max_size=3), min_size=1, max_size=40, unique=True), st.integers(1, 9), st.integers(0, 30))
def test_the_order_is_the_shuffled_sorted_list(ids, size, step):
    """A plain reference: whole lists of strings, one an epoch."""
    row = []
    for epoch in range((step + 1) * size // len(ids) + 1):
        shuffled = sorted(ids)
        random.Random(f"7/unlabeled/{epoch}").shuffle(shuffled)
        row += [(epoch, sample_id) for sample_id in shuffled]
    assert Order(ids, "7/unlabeled").batch(step, size) == row[step * size : (step + 1) * size]


def test_a_sorted_sequence_is_asked_for_single_ids_and_never_copied():
    class Names(SortedIds):
        def __len__(self):
            return 1000

        def _at(self, index):
            return f"{index:04}"

    names = Names()
    order = Order(names, "key")
    assert order.ids is names
    assert {i for step in range(10) for _, i in order.batch(step, 100)} == set(names)


def test_auto_follows_the_method_and_the_config_overrules_it():
    assert (make().cutmix, make().photometric) == ("unimatch", "unimatch")
    plain = make(views=ViewsConfig(crop_size=(24, 32), cutmix="none", photometric="none"))[0].unlabeled
    assert plain.strong[0].image is plain.weak
    assert not plain.strong[0].mix.box.any()
    french = make(views=ViewsConfig(crop_size=(24, 32), cutmix="french"))[0].unlabeled
    assert french.strong[0].mix.box.float().mean() == pytest.approx(0.5, abs=0.05)


def test_every_sample_has_a_key_of_its_seed_epoch_and_id():
    loader, seen = make(batches=(2, 6), seed=0), {}
    order = Order(DATA.unlabeled, "0/unlabelled")
    for step in range(4):
        batch = loader[step]
        assert batch.labeled.keys.dtype == batch.unlabeled.keys.dtype == torch.int64
        for (epoch, place), key in zip(order.batch(step, 6), batch.unlabeled.keys.tolist(), strict=True):
            assert key == sample_key(0, epoch, place)
            seen[epoch, place] = key
    assert len(set(seen.values())) == len(seen) > len(DATA.unlabeled)  # another one in the next epoch
    assert not set(make(batches=(2, 6), seed=1)[0].unlabeled.keys.tolist()) & set(seen.values())


class Broken(Scenes):
    """Scenes of which some cannot be read: `broken` holds their ids, `read` what was asked for."""

    def __init__(self, broken, labeled=5, unlabeled=7):
        super().__init__(ScenesConfig(labeled=labeled, unlabeled=unlabeled, val=1, size=48))
        self.broken, self.read = broken, []

    def image(self, sample_id):
        self.read.append(sample_id)
        if sample_id in self.broken:
            raise DataError(f"{sample_id}.jpg: cannot be read")
        return super().image(sample_id)


BROKEN = {DATA.unlabeled[1]: f"{DATA.unlabeled[1]}.jpg: cannot be read",
          DATA.unlabeled[4]: f"{DATA.unlabeled[4]}.jpg: cannot be read"}  # fmt: skip


def test_an_unreadable_unlabeled_image_gives_its_place_to_another():
    whole, loader = make(), make(Broken(BROKEN))
    met = {}
    for step in range(7):  # three epochs
        batch, intact = loader[step], whole[step]
        met |= batch.skipped
        assert set(batch.unlabeled.ids) <= set(DATA.unlabeled) - set(BROKEN)
        assert torch.equal(batch.labeled.image, intact.labeled.image)
        for n, (now, before) in enumerate(zip(batch.unlabeled.ids, intact.unlabeled.ids, strict=True)):
            assert (now == before) == (before not in BROKEN)
            if now == before:
                assert torch.equal(batch.unlabeled.weak[n], intact.unlabeled.weak[n])
                assert torch.equal(batch.unlabeled.strong[1].image[n], intact.unlabeled.strong[1].image[n])
    assert met == BROKEN
    assert whole[0].skipped == {}


def test_substitutes_do_not_depend_on_workers_or_on_where_a_run_began():
    straight = [make(Broken(BROKEN))[step] for step in range(8)]
    with_workers = itertools.islice(make(Broken(BROKEN), workers=2).batches(), 8)
    resumed = itertools.islice(make(Broken(BROKEN), workers=1).batches(3), 5)
    for step, batch in enumerate(with_workers):
        assert same(straight[step], batch)
        assert straight[step].skipped == batch.skipped
    for step, batch in enumerate(resumed, 3):
        assert same(straight[step], batch)
        assert straight[step].skipped == batch.skipped
    assert len({tuple(batch.unlabeled.ids) for batch in straight}) == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_with_nothing_to_read_stops_with_one_line(workers):
    data = Broken(DATA.unlabeled)
    loader = make(data, workers=workers)
    with pytest.raises(DataError, match=r"^12 images in a row cannot be used.*The last: train/0000\d\.jpg: cannot be"):
        next(loader.batches())
    if not workers:
        assert len([i for i in data.read if i in DATA.unlabeled]) == SUBSTITUTES + 1


@pytest.mark.parametrize("ranks", [1, 2])
def test_unlabeled_images_are_read_from_the_step_that_needs_them(ranks):
    """What is read from there on is what would be without."""
    data, whole = Broken(()), make(ranks=ranks, rank=ranks - 1)
    late = make(data, ranks=ranks, rank=ranks - 1, unlabeled_from=2)
    stream = late.batches()
    first = [next(stream) for _ in range(2)]
    assert [batch.unlabeled for batch in first] == [None, None]
    assert not {*data.read} & {*DATA.unlabeled}
    expected = list(itertools.islice(whole.batches(), 4))
    for batch, other in zip(first, expected, strict=False):
        assert same(batch, replace(other, unlabeled=None))
    assert all(same(next(stream), other) for other in expected[2:])


def test_workers_end_with_an_error_that_is_kept():
    """They ignore the signal by which the end of the process would stop them, and it would wait for them."""
    with pytest.raises(DataError) as kept:
        next(make(Broken(DATA.unlabeled), workers=1).batches())
    assert kept.tb is not None and not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_labeled_image_stops_the_run_with_its_own_line(workers):
    loader = make(Broken(DATA.labeled[:2]), workers=workers)
    with pytest.raises(DataError, match=r"^train/0000[01]\.jpg: cannot be read$"):
        list(itertools.islice(loader.batches(), 3))


def test_it_is_skipped_on_request():
    data = Broken(DATA.labeled[:2])
    data.skip_broken = True
    loader = Loader(
        data, ViewsConfig(crop_size=24), ViewSpec(), labeled_batch=5, unlabeled_batch=1, seed=0,
        workers=0, fill=(0, 0, 0),
    )  # fmt: skip
    batch = loader[0]
    assert set(batch.skipped) == set(DATA.labeled[:2])
    assert set(batch.labeled.ids) <= set(DATA.labeled[2:])
    assert batch.labeled.image.shape == (5, 3, 24, 24)


def test_a_broken_labeled_file_stops_the_checks_or_is_left_to_training(tmp_path):
    for side in ("images", "masks"):
        (tmp_path / side).mkdir()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for n in range(5):
        Image.fromarray(np.full((9, 9, 3), n, np.uint8)).save(tmp_path / "images" / f"{n}.png")
        Image.fromarray(np.full((9, 9), n % 2, np.uint8)).save(tmp_path / "masks" / f"{n}.png")
    (tmp_path / "val.txt").write_text("4\n")
    (tmp_path / "masks" / "1.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "masks" / "3.png")
    with pytest.raises(DataError, match=r"masks/1\.png: cannot be read"):
        Folder(FolderConfig(root=tmp_path)).check_labeled()
    data = Folder(FolderConfig(root=tmp_path, skip_broken=True))
    data.check_labeled()
    assert pixel_counts(data, data.labeled).tolist() == [2 * 81, 0]
    loader = Loader(
        data, ViewsConfig(crop_size=9), ViewSpec(), labeled_batch=4, unlabeled_batch=1, seed=0,
        workers=0, fill=(0, 0, 0),
    )  # fmt: skip
    assert {sample_id: reason.partition(":")[0] for sample_id, reason in loader[0].skipped.items()} == {
        name: str(tmp_path / "masks" / f"{name}.png") for name in ("1", "3")
    }
    (tmp_path / "masks" / "4.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"masks/4\.png"):  # a score on fewer images would be another score
        data.check_labeled()


def test_image_and_mask_of_different_sizes_are_refused():
    class Askew(Scenes):
        def label(self, sample_id):
            return super().label(sample_id)[:-3]

    with pytest.raises(
        DataError, match=r"^train/0000\d: mask and image have different sizes \(48×45 and 48×48 pixels\)"
    ):
        make(Askew(ScenesConfig(labeled=2, unlabeled=3, size=48)))[0]


def test_no_strong_view_reads_no_unlabeled_image():
    loader = make(Broken(DATA.unlabeled), ViewSpec())
    assert loader[0].unlabeled is None
    make(Scenes(ScenesConfig(labeled=2, unlabeled=0, size=48)), ViewSpec())[0]


def test_missing_samples_are_refused():
    with pytest.raises(DataError, match="no unlabeled images"):
        make(Scenes(ScenesConfig(labeled=2, unlabeled=0)))


def test_the_table_builds_what_a_config_names():
    from pydantic import TypeAdapter

    for name, cls in DATASETS.items():
        config = TypeAdapter(DataConfig).validate_python({"name": name} | ({"root": "x"} if name in FORMATS else {}))
        assert type(config) is cls.Config
        assert config.name == name


def test_an_oracle_gives_the_masks_of_the_same_crops():
    plain, told = make()[1].unlabeled, make(oracle=True)[1].unlabeled
    assert plain.truth is None
    assert torch.equal(plain.weak, told.weak) and plain.ids == told.ids
    assert torch.equal(plain.valid, told.valid)  # the scenes have no ignored pixel
    assert told.truth.dtype == torch.int64 and told.truth.shape == told.valid.shape
    assert (told.truth[~told.valid] == 0).all() and told.truth.max() < len(DATA.classes)
    whole = ViewsConfig(crop_size=48, scale=(1.0, 1.0), flip=0.0)
    told = make(oracle=True, views=whole)[0].unlabeled
    assert torch.equal(told.truth, torch.stack([DATA.label(i).long() for i in told.ids]))


def test_pixels_that_an_oracle_does_not_know_are_no_valid_ones():
    class Ignoring(Scenes):
        def label(self, sample_id):
            label = super().label(sample_id)
            label[:10] = 255
            return label

    data = Ignoring(ScenesConfig(labeled=5, unlabeled=7, val=1, size=48))
    told = make(data, oracle=True, views=ViewsConfig(crop_size=48, scale=(1.0, 1.0), flip=0.0))[0].unlabeled
    assert not told.valid[:, :10].any() and told.valid[:, 10:].all()
    assert (told.truth[:, :10] == 0).all()


def test_the_operations_of_augseg_want_colours():
    with pytest.raises(ConfigError, match="augseg changes the colours"):
        make(spec=ViewSpec(strong=1, photometric="augseg"), colour=False)
