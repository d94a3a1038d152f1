import pytest
from hypothesis import given
from hypothesis import strategies as st

from des4.data.ids import MergedIds, SortedIds
from des4.datasets.lists import content_hash


class Kept(SortedIds):
    def __init__(self, ids):
        self.ids = sorted(ids)

    def __len__(self):
        return len(self.ids)

    def _at(self, index):
        assert 0 <= index < len(self.ids)
        return self.ids[index]


@given(st.lists(st.text(max_size=3), unique=True, max_size=30), st.data())
def test_merged_ids_are_those_of_both_in_order(ids, data):
    few = [sample_id for sample_id in ids if data.draw(st.booleans())]
    merged = MergedIds(few, Kept(set(ids) - set(few)))
    assert list(merged) == list(merged[:]) == sorted(ids)
    assert len(merged) == len(ids)
    assert merged[1:-1:2] == tuple(sorted(ids)[1:-1:2])
    assert all(sample_id in merged for sample_id in ids)
    assert [merged[-1 - i] for i in range(len(ids))] == sorted(ids, reverse=True)
    assert content_hash(merged) == content_hash(ids)


def test_what_is_not_there_is_told_as_a_list_tells_it():
    ids = Kept(["b", "d"])
    assert [probe in ids for probe in ("a", "b", "c", "d", "e", 3)] == [False, True, False, True, False, False]
    assert (ids.index("d"), ids.count("b")) == (1, 1)
    for beyond in (2, -3):
        with pytest.raises(IndexError):
            ids[beyond]
