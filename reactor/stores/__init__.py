"""Stores: what fulfils ``reactor.engine.store``."""
