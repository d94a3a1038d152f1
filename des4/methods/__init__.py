"""The methods, by the name a config calls them. A new one is a file, a line here, a page and a test; see the docs."""

from des4.methods.advsemseg import AdvSemSeg
from des4.methods.ael import AEL
from des4.methods.augseg import AugSeg
from des4.methods.base import Method, Setting
from des4.methods.cct import CCT
from des4.methods.cmb import CMB
from des4.methods.corrmatch import CorrMatch
from des4.methods.cps import CPS
from des4.methods.cutmixseg import CutMixSeg
from des4.methods.dars import DARS
from des4.methods.des4 import DeS4
from des4.methods.des4_committee import DeS4Committee
from des4.methods.fixmatch import FixMatch
from des4.methods.gct import GCT
from des4.methods.ingredients.supervision import SupervisionConfig
from des4.methods.mean_teacher import MeanTeacher
from des4.methods.pc2seg import PC2Seg
from des4.methods.prevmatch import PrevMatch
from des4.methods.pseudoseg import PseudoSeg
from des4.methods.rc2l import RC2L
from des4.methods.supervised import Supervised
from des4.methods.u2pl import U2PL
from des4.methods.ucc import UCC
from des4.methods.unimatch import UniMatch
from des4.methods.unimatch_v2 import UniMatchV2
from des4.methods.usrn import USRN
from des4.methods.vat import VAT

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "cutmixseg": CutMixSeg,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "cps": CPS,
    "advsemseg": AdvSemSeg,
    "u2pl": U2PL,
    "augseg": AugSeg,
    "unimatch_v2": UniMatchV2,
    "dars": DARS,
    "cct": CCT,
    "vat": VAT,
    "prevmatch": PrevMatch,
    "gct": GCT,
    "ael": AEL,
    "corrmatch": CorrMatch,
    "usrn": USRN,
    "pseudoseg": PseudoSeg,
    "cmb": CMB,
    "pc2seg": PC2Seg,
    "ucc": UCC,
    "rc2l": RC2L,
    "des4": DeS4,
    "des4_committee": DeS4Committee,
}

__all__ = ["METHODS", "Method", "Setting", "SupervisionConfig"]
