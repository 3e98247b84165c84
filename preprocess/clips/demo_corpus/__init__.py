"""A small synthesised corpus in the layout of MagnaTagATune.

Every clip is rendered from its own recipe, so that each tag is true by construction and the
ordinary pipeline for the real data set can be run, and checked, without any download.
"""

from .corpus import render, write_demo_corpus
from .recipes import TAGS, ClipPlan, Source, plan

__all__ = ["TAGS", "ClipPlan", "Source", "plan", "render", "write_demo_corpus"]
