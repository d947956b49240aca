"""What many apps need beside their own functions. Each module says which of its documents go into ``schema.py``."""
