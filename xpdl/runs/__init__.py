"""What a command leaves behind: options, recipes, a run and its folder."""

from xpdl.runs.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe"]
