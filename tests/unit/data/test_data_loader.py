import itertools
from collections import Counter

import pytest
import torch

from des4.data import DATASETS, DataConfig, Loader, Scenes, ScenesConfig, ViewsConfig
from des4.data.loader import _Order
from des4.types import DataError, ViewSpec

DATA = Scenes(ScenesConfig(labeled=5, unlabeled=7, val=1, size=48))
SPEC = ViewSpec(strong=2, cutmix="unimatch", photometric="unimatch")


def make(data=DATA, spec=SPEC, *, workers=0, seed=3, views=None):
    views = views or ViewsConfig(crop_size=(24, 32))
    return Loader(
        data, views, spec, labelled_batch=2, unlabelled_batch=3, seed=seed, workers=workers, fill=(0.5, 0.4, 0.3)
    )


def tensors(batch):
    """Every tensor of a batch, in a fixed order."""
    lab, un = batch.labelled, batch.unlabelled
    rest = [] if un is None else [un.weak, *un.strong, *(t for mix in un.mix for t in (mix.partner, mix.box)), un.valid]
    return [lab.image, lab.label, *rest]


def same(a, b):
    ids = a.labelled.ids == b.labelled.ids and (a.unlabelled is None or a.unlabelled.ids == b.unlabelled.ids)
    return ids and all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_a_batch_has_the_promised_shapes():
    batch = make()[0]
    assert batch.labelled.image.shape == (2, 3, 24, 32)
    assert batch.labelled.label.shape == (2, 24, 32)
    assert batch.unlabelled.weak.shape == (3, 3, 24, 32)
    assert len(batch.unlabelled.strong) == len(batch.unlabelled.mix) == 2
    assert batch.unlabelled.mix[0].box.shape == batch.unlabelled.valid.shape == (3, 24, 32)
    assert (len(batch.labelled.ids), len(batch.unlabelled.ids)) == (2, 3)
    for image in (batch.labelled.image, batch.unlabelled.weak, *batch.unlabelled.strong):
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1
    assert not torch.equal(*batch.unlabelled.strong)


def test_workers_and_resume_change_nothing():
    straight = [make()[step] for step in range(8)]
    with_workers = list(itertools.islice(make(workers=2).batches(), 8))
    resumed = list(itertools.islice(make(workers=2).batches(5), 3))
    for step in range(8):
        assert same(straight[step], with_workers[step]), step
    for step in range(5, 8):
        assert same(straight[step], resumed[step - 5]), step
    assert not same(straight[0], make(seed=4)[0])


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
    ids = [sample_id for step in range(14) for sample_id in loader[step].unlabelled.ids]  # 6 epochs of 7
    epochs = [ids[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == sorted(DATA.unlabelled) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_list_shorter_than_a_batch_goes_round():
    order = _Order(["b", "a"], "key")
    batch = order.batch(1, 7)  # positions 7 to 13
    assert [epoch for epoch, _ in batch] == [3, 4, 4, 5, 5, 6, 6]
    assert Counter(sample_id for _, sample_id in order.batch(0, 8)) == {"a": 4, "b": 4}
    assert batch == _Order(["a", "b"], "key").batch(1, 7)  # the order of the list does not matter


def test_auto_follows_the_method_and_the_config_overrules_it():
    assert (make().cutmix, make().photometric) == ("unimatch", "unimatch")
    plain = make(views=ViewsConfig(crop_size=(24, 32), cutmix="none", photometric="none"))[0].unlabelled
    assert plain.strong[0] is plain.weak
    assert not plain.mix[0].box.any()
    french = make(views=ViewsConfig(crop_size=(24, 32), cutmix="french"))[0].unlabelled
    assert french.mix[0].box.float().mean() == pytest.approx(0.5, abs=0.05)


class Broken(Scenes):
    def image(self, sample_id):
        if sample_id in self.unlabelled:
            raise DataError(f"{sample_id}.jpg: cannot be read")
        return super().image(sample_id)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_the_run_with_its_own_line(workers):
    loader = make(Broken(ScenesConfig(labeled=2, unlabeled=3, size=48)), workers=workers)
    with pytest.raises(DataError, match=r"^train/0000\d\.jpg: cannot be read$"):
        next(loader.batches())


def test_no_strong_view_reads_no_unlabelled_image():
    loader = make(Broken(ScenesConfig(labeled=2, unlabeled=3, size=48)), ViewSpec())
    assert loader[0].unlabelled is None
    make(Scenes(ScenesConfig(labeled=2, unlabeled=0, size=48)), ViewSpec())[0]


def test_missing_samples_are_refused():
    with pytest.raises(DataError, match="no unlabelled images"):
        make(Scenes(ScenesConfig(labeled=2, unlabeled=0)))


def test_the_table_builds_what_a_config_names():
    from pydantic import TypeAdapter

    for name, cls in DATASETS.items():
        config = TypeAdapter(DataConfig).validate_python({"name": name} | ({"root": "x"} if name == "folder" else {}))
        assert type(config) is cls.Config
        assert config.name == name
