"""reactor: a reactive, transactional backend in Python."""
