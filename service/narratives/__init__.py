"""Stored explanations in words: for the person concerned, for who answers them, for engineers."""

from service.narratives.narrating import AUDIENCES, Audience, Narrative, narrate

__all__ = ["AUDIENCES", "Audience", "Narrative", "narrate"]
