"""Published lists: which protocols there are, and how a list is known for one of them wherever it lies.

Papers name their lists by a fraction ("1/8"), yet several families of lists share the fractions. They are other draws
from other pools, they give other scores, and one table must not mix them:

- `voc/classic`: drawn from VOC's own 1,464 finely annotated training images (PseudoSeg's draws);
- `voc/blended`: drawn at random from those and SBD's 9,118 coarser masks, 10,582 together (CPS's draws);
- `voc/u2pl`: of the same sizes, filled with the finely annotated images first (U2PL's draws);
- `voc/usrn`: drawn at random from the 10,582 too, but other draws (USRN's), down to 1/64;
- `cityscapes/u2pl`, `cityscapes/cps`, `cityscapes/unimatch`: other draws from the 2,975 training images.

Labeled and unlabeled are together the whole pool, and share no image. The lists themselves are not part of this
package: a list is known by the SHA-256 of its sample names, whether it holds stems, pairs or paths. The hashes were
taken from the repositories that FAMILIES names.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from des4.datasets.lists import content_hash, read_list, sample_name
from des4.types import DataError

MAX_LIST_BYTES = 1 << 24
"""Larger text files are no published list."""


@dataclass(frozen=True)
class Family:
    """Lists that one group drew. pool: training images of the data set. sources: repositories that publish them."""

    title: str
    pool: int
    sources: tuple[str, ...]


FAMILIES = {
    "voc/classic": Family(
        "of VOC's finely annotated images alone",
        10_582,
        ("Haochen-Wang409/U2PL (data/splits/pascal)", "LiheYoung/UniMatch (splits/pascal)"),
    ),
    "voc/u2pl": Family(
        "finely annotated images first",
        10_582,
        ("Haochen-Wang409/U2PL (data/splits/pascal)", "LiheYoung/UniMatch (splits/pascal/u2pl_*, without 5291)"),
    ),
    "voc/blended": Family(
        "fine and coarse masks drawn alike",
        10_582,
        (
            "charlesCXK/TorchSemiSeg (DATA/pascal_voc/subset_train_aug)",
            "LiheYoung/UniMatch (splits/pascal/1_*, without 5291)",
        ),
    ),
    "voc/usrn": Family(
        "fine and coarse masks drawn alike, USRN's draw", 10_582, ("Dayan-Guan/USRN (dataloaders/voc_splits0)",)
    ),
    "cityscapes/u2pl": Family("U2PL's draw", 2975, ("Haochen-Wang409/U2PL (data/splits/cityscapes)",)),
    "cityscapes/cps": Family(
        "CPS's draw",
        2975,
        ("charlesCXK/TorchSemiSeg (DATA/city/config_new/subset_train)", "LiheYoung/UniMatch (splits/cityscapes)"),
    ),
    "cityscapes/unimatch": Family("UniMatch's draw", 2975, ("LiheYoung/UniMatch (splits/cityscapes)",)),
}

VAL_LISTS = {
    "voc": (1449, "cdc1326d12f69ce5153aa5da04a4d8783e146868d42d19f82f44e74b97ac907d"),
    "cityscapes": (500, "73099b252b778d6fa89467ad05a7068b8a6a0f931693f909e1acbf189a36fb52"),
}
"""Data set → images and hash of the val list that published scores are from."""


@dataclass(frozen=True)
class Protocol:
    """A published pair of lists.

    name: data set, family and number of labeled images. fraction: what papers call it.
    fine: how many labeled images have one of VOC's own, finer masks; None off VOC.
    labeled_hash, unlabeled_hash: `list_hash` of the two lists.
    """

    name: str
    fraction: str
    fine: int | None
    labeled_hash: str
    unlabeled_hash: str

    @property
    def family(self) -> str:
        """Data set and family: figures of two families do not compare."""
        return self.name.rpartition("/")[0]

    @property
    def labeled(self) -> int:
        """Number of labeled images."""
        return int(self.name.rpartition("/")[2])

    @property
    def unlabeled(self) -> int:
        """Number of unlabeled images."""
        return FAMILIES[self.family].pool - self.labeled


# fmt: off
_PUBLISHED = (
    Protocol(
        "voc/classic/92", "1/16", 92,
        "325a965b6206ac6e9c4c86961d5f4d9f1aff9c361c42dc79719ca85de7e64cc6",
        "23fd9afa1c61151cd65d394f1f574b0e7ddee098e27e0640a55779a322360e44",
    ),
    Protocol(
        "voc/classic/183", "1/8", 183,
        "3b208061a59a42b4954b136dc46b00f263178ebf25ead1164eb3509ab6657ce1",
        "ae3608acfb519956f21e1ac37c01248801276b6015bed43b0eb02d2445392ff1",
    ),
    Protocol(
        "voc/classic/366", "1/4", 366,
        "ea8aa0b2ceedf56b536241b16b57fadfd9c0c8301bd93f7c9b7ad6df2ffc4c26",
        "b9a203a2f84f7bb362546401ecd17cf728da8c7bc3927b463003f728e433c6f3",
    ),
    Protocol(
        "voc/classic/732", "1/2", 732,
        "81c3256e4a7fc4c31b6b1e9084c44eec318b44c58c622283035d02f6b17c0137",
        "944eea998e978483fe3c1ccd99a2e1f2dbd643c84453980bcc331c44304132bd",
    ),
    Protocol(
        "voc/classic/1464", "1.4k", 1464,
        "aa623bd2c8ce4443a8aaae51c524c0eb165e8e44caf6aa9e3ad33d7b75a3ef20",
        "e74502571e6d172bdfe6cb3257a58fcb046e4464aa4765b54ec170e73a2f4f53",
    ),
    Protocol(
        "voc/u2pl/662", "1/16", 662,
        "0c6466b63b2f52069830afd605968347ec2696b15d25b91329d77d203023c1b1",
        "888a9b418a483ee26972583fb7859e604a1e1abe2a64a555bcfdfacc0094d09e",
    ),
    Protocol(
        "voc/u2pl/1323", "1/8", 1323,
        "2f24ef964761485ffeb474d2e312d92cf4135e0032e54d0574a3a8a72546e444",
        "40cf051699ba5932315edb32e6dcff7351579f9b89220a90b5e6b6eb44ce1618",
    ),
    Protocol(
        "voc/u2pl/2646", "1/4", 1464,
        "3c653f4ff30f3c059b091ea51a8ac90e0481aab837721c404e73cbe0a4a14aa9",
        "77029dd0ab2af4c3188d5e008d1ed6581fddc6cce57d67e41e9f7b18bc550aa6",
    ),
    Protocol(
        "voc/u2pl/5291", "1/2", 1464,
        "8ef07e486384a8252039367570eac09e86e9a1ea1876da9128267030163b8b4d",
        "1c34ca0f709e58ceb60a77cc9ac27fcf66584656b37e03909c4bcf30c29f390a",
    ),
    Protocol(
        "voc/blended/662", "1/16", 93,
        "7dada8ccc5eb6309b4b81e172dfc24f0d83ea72078675083778ca10487182748",
        "49b06340ca1534c3f15001ea9ce6d2815dd2ae1302390cfbdcfc0b004e17d960",
    ),
    Protocol(
        "voc/blended/1323", "1/8", 193,
        "df63f50a798512c3befb5364052733bd8bc169f609e034e9f55b5853798ead10",
        "b93006960bd751713dd8f5c14a148925077ba8deade79fa8591f715d7adb80e2",
    ),
    Protocol(
        "voc/blended/2646", "1/4", 388,
        "62c450787069b36d88ea7bb35895a808885720ae833bae8b9c81775731062ea1",
        "a84acda9b7087bb4595db3d023d9f546347dd7e937f4db5ce6a7146739983cb9",
    ),
    Protocol(
        "voc/blended/5291", "1/2", 742,
        "192132b4f645339dd143850359d4e27bb62ba3ce447553a07de23fbff4f0c8b9",
        "415761b09b2b58696eadbe27d4cf09e42c495d247723d2a3267a7537fa410107",
    ),
    Protocol(
        "voc/usrn/165", "1/64", 18,
        "349d3cbbdf45c9bd3532b8378422751f8bec1b5bca8429a80f819d1827494ada",
        "4adce8c5c41add06ec055d9bf21267cc72ce8142f3c213d9e6d2ae2da221c9e1",
    ),
    Protocol(
        "voc/usrn/331", "1/32", 39,
        "cdf25edf274ca492dd66ad18a1cd2be4731d23936013840fdd22c605398ced4d",
        "302b19b9e0fb13ab0d995b3e53cd7f8c117b18b3931264b601484577d4e47741",
    ),
    Protocol(
        "voc/usrn/662", "1/16", 85,
        "abf8992c3a8126068694938b110d05f8a3892af9d7e23fe343909f3037c7214e",
        "466ea451c2f3fe794769e81a964c93f5135248be87aecc7bd08ae282f2819c67",
    ),
    Protocol(
        "cityscapes/u2pl/186", "1/16", None,
        "c9b2d8a6a7290bcaf224c7cdec576682a677f7248a36dbfde498c55962a363fa",
        "de469ce7c7bf336f60834c6abff736161501ef38a448dab0585271b2a931759d",
    ),
    Protocol(
        "cityscapes/u2pl/372", "1/8", None,
        "af350f9ea948a470ca54a5c0fa8c9829a30ce537825aa9d3de2d450a9bbcc839",
        "d08f2cff541ee593b9f1d84c50364d13f0dbefcbfbf981d6e8bc16b7a375d43a",
    ),
    Protocol(
        "cityscapes/u2pl/744", "1/4", None,
        "d787c1a5a4d0e4b8dbff17803e79a1eb2b7e96516fd89a36a3eb1923a6f8bac9",
        "a844fadb2bda69397fdbdfc6ba66ac5b7f9f1dbe0eb40b8686cac2fc63773a8d",
    ),
    Protocol(
        "cityscapes/u2pl/1488", "1/2", None,
        "245bcea234d21ace2a4f968503cd0662f88b1ace5096d8040e393b8c4c0eb2ca",
        "093af6ed9647b77456e1a2e696430cafed148b245cca786c32890053cf3774d3",
    ),
    Protocol(
        "cityscapes/cps/186", "1/16", None,
        "dc2a06a86232bc32e733a8ae33e60807e9b017bf9dd5ce03b106426f3c96c496",
        "aee794749c4a6455e497b50c2486e2645ef659edd5fe05e33f1c4698b2a3fb62",
    ),
    Protocol(
        "cityscapes/cps/372", "1/8", None,
        "2755fe0b6533339404a82029602157051c7be06d9d775ce445f5e5c43767d3bc",
        "2ea590415ac9da173ea13030567d081d970276890a0b1a163d721f0b6cd5997b",
    ),
    Protocol(
        "cityscapes/cps/744", "1/4", None,
        "605f06bce9cb841e11db460b00e05c6edfdbd3e66a390f3ade7ef00172af4694",
        "9fb53e498cbaec51160a4718921836d8bc744c50c516d163e4a7549f0e2d716d",
    ),
    Protocol(
        "cityscapes/cps/1488", "1/2", None,
        "f071d8e32b163da41105b296af66975544141343a3af44449f74dd30a16facc9",
        "dc475feb9c9230d4e03f78aa61210299f11e02fdc3d079355e30d0144e70d823",
    ),
    Protocol(
        "cityscapes/unimatch/100", "1/30", None,
        "d356a23daa743733be4afc4b4e5ce286ff4ad35b00a442266ea721713c78b219",
        "7e2d801b8bc61d4aeb70f983a2f49b4cfe7d8781d0cdc20fd865172639481568",
    ),
)
# fmt: on

PROTOCOLS = {protocol.name: protocol for protocol in _PUBLISHED}
"""Name → protocol."""


def list_hash(names: Iterable[str]) -> str:
    """Hash a list by its sample names, so that its form and its order do not count. names: ids, stems or paths."""
    return content_hash(map(sample_name, names))


def known_protocol(name: str) -> str:
    """Return the name of a protocol. Raises ValueError, with the nearest one, if there is none of this name."""
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1, cutoff=0.4)
        raise ValueError("must be one of `des4 data protocols`" + (f", perhaps {near[0]}" if near else ""))
    return name


def recognise_lists(labeled: Collection[str], unlabeled: Collection[str] | None = None) -> Protocol | None:
    """Name the protocol of a pair of lists, or of a labeled list alone; None if they are nobody's."""
    candidates = [p for p in _PUBLISHED if p.labeled == len(labeled)]
    if unlabeled is not None:
        candidates = [p for p in candidates if p.unlabeled == len(unlabeled)]
    if not candidates:
        return None  # large data sets are not hashed in vain
    given = list_hash(labeled)
    candidates = [p for p in candidates if p.labeled_hash == given]
    if candidates and unlabeled is not None and candidates[0].unlabeled_hash != list_hash(unlabeled):
        return None
    return candidates[0] if candidates else None


def require_protocol(name: str, labeled: Collection[str], unlabeled: Collection[str], where: Path) -> None:
    """Raise DataError unless the lists are those of the protocol. where: the data or list folder, for the message."""
    wanted = PROTOCOLS[name]
    for kind, given, count, wanted_hash in (
        ("labeled", labeled, wanted.labeled, wanted.labeled_hash),
        ("unlabeled", unlabeled, wanted.unlabeled, wanted.unlabeled_hash),
    ):
        if len(given) != count or list_hash(given) != wanted_hash:
            raise DataError(
                f"{where}: the {len(given)} {kind} images are not the {count} of {name} "
                f"(hash {list_hash(given)[:12]}…, not {wanted_hash[:12]}…); {_remedy(wanted)}"
            )


def find_lists(protocol: Protocol, folder: Path) -> dict[str, Path]:
    """Find a protocol's lists among the .txt files under `folder` by their content: {"labeled": …, "unlabeled": …}.

    Raises DataError if one of them is not there.
    """
    wanted = {"labeled": protocol.labeled_hash, "unlabeled": protocol.unlabeled_hash}
    counts = {"labeled": protocol.labeled, "unlabeled": protocol.unlabeled}
    found: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path, names in read_lists(folder, counts.values()):
        for kind in (kind for kind, count in counts.items() if count == len(names)):
            (found if list_hash(names) == wanted[kind] else others).setdefault(kind, path)
    for kind, count in counts.items():
        if kind not in found:
            other = f" ({others[kind].relative_to(folder)} names other images)" if kind in others else ""
            raise DataError(
                f"{folder}: holds no {kind} list with the {count} images of {protocol.name}{other}; {_remedy(protocol)}"
            )
    return found


def find_all_lists(folder: Path) -> dict[str, dict[str, Path]]:
    """Find every protocol's lists under `folder`: name → {"labeled": …, "unlabeled": …}, as far as they are there.

    Raises DataError if there is no such folder.
    """
    kinds = {p.labeled_hash: (p.name, "labeled") for p in _PUBLISHED}
    kinds |= {p.unlabeled_hash: (p.name, "unlabeled") for p in _PUBLISHED}
    sizes = {size for p in _PUBLISHED for size in (p.labeled, p.unlabeled)}
    found: dict[str, dict[str, Path]] = {}
    for path, names in read_lists(folder, sizes):
        if match := kinds.get(list_hash(names)):
            found.setdefault(match[0], {}).setdefault(match[1], path)
    return found


def read_lists(folder: Path, sizes: Collection[int]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the lists of these sizes under `folder`, by path, with the names they hold; other files are passed by.

    Raises DataError if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of lists; give the one that holds labeled.txt files")
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix == ".txt" and _count_lines(path) in sizes:
                with suppress(DataError):  # a text file that is no list is nobody's mistake here
                    yield path, tuple(name for name, _ in read_list(path))


def _count_lines(path: Path) -> int | None:
    """Count the lines that are not blank; None for what can be no list."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_LIST_BYTES:
            return None
        return sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    except OSError:
        return None


def describe_lists(
    labeled: Collection[str], unlabeled: Collection[str], val: Collection[str], fine: Collection[str] | None = None
) -> Iterator[str]:
    """Say in sentences which protocol the lists are, and how many labeled images are finely annotated.

    fine: ids of the finely annotated images, if the data set tells them apart.
    """
    protocol = recognise_lists(labeled, unlabeled)
    near = protocol or recognise_lists(labeled)
    if protocol:
        yield f"lists: {protocol.name}, {protocol.fraction} ({FAMILIES[protocol.family].title})"
    elif near:
        yield (
            f"lists: the labeled images are those of {near.name}, the {len(unlabeled)} unlabeled ones are not its "
            f"{near.unlabeled}, so the scores compare with no published ones"
        )
    num_fine = len(set(labeled) & set(fine)) if fine is not None else near.fine if near else None
    if num_fine is not None:
        yield f"labeled: {num_fine} of {len(labeled)} images are finely annotated (they are in VOC's own train list)"
    if near:
        dataset = near.name.partition("/")[0]
        count, wanted_hash = VAL_LISTS[dataset]
        if len(val) != count or list_hash(val) != wanted_hash:
            yield f"val: not the {count} images that published scores on {dataset} are from"


def _remedy(protocol: Protocol) -> str:
    return f"its lists are published in {' and '.join(FAMILIES[protocol.family].sources)}"
