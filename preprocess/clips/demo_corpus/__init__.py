"""A small synthesised corpus in the layout of MagnaTagATune.

Each clip is rendered from its own plan, so that each tag is true by construction and the whole
pipeline can be tried, and checked, without any download.
"""

from .corpus import TAGS, ClipPlan, plan, render, write_demo_corpus
from .instruments import SAMPLE_RATE

__all__ = ["SAMPLE_RATE", "TAGS", "ClipPlan", "plan", "render", "write_demo_corpus"]
