"""Transactions and reactivity. Knows no wire, no framework, no user function and no SQL."""
