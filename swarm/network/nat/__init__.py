"""Computers behind routers: whether they can be dialled, and a way in if not."""
