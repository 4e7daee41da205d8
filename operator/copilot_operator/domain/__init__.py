"""Decisions: from what was observed to what shall be done and said. No cluster, no socket, no clock, no chance."""
