"""Credentials that the operator makes itself: installation tokens of GitHub Apps. Knows no cluster."""
