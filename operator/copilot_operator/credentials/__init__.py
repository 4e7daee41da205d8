"""Credentials that the operator makes or renews: tokens of GitHub Apps. Knows no cluster."""
