"""Frames and envelopes of the CLI's protocol, fast and bounded. Pure."""
