"""Which unlabeled images to label next: scores of a trained network, a rule that picks by them, a folder."""

from des4.acquisition.choose import Chosen, Settings, choose_next
from des4.acquisition.rules import RULES, Pick, Rule, Scores, pick

__all__ = ["RULES", "Chosen", "Pick", "Rule", "Scores", "Settings", "choose_next", "pick"]
