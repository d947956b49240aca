"""Users' functions: declaring, finding and running them."""
