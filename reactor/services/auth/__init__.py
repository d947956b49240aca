"""Verifying the tokens of identity providers."""
