"""Campaigns: methods × lists × seeds as one command, and what each method is worth against a reference.

docs/campaigns.md shows a campaign file. One folder a run: out/METHOD/LIST/seed-0. Read top down: `config` is the file,
`planning` makes runs of it, `running` trains those that `finished` does not find done, and `finished` reports on them;
`learning_curve` writes a campaign of its own.

A run is done, goes on where it was stopped, or is trained from its beginning; so the command may be given again at any
time. Paths are relative to the working directory, as everywhere.
"""

from des4.campaign.config import CampaignConfig, read_campaign
from des4.campaign.finished import report
from des4.campaign.learning_curve import curve
from des4.campaign.planning import Planned, plan
from des4.campaign.running import run_campaign

__all__ = ["CampaignConfig", "Planned", "curve", "plan", "read_campaign", "report", "run_campaign"]
