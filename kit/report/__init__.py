"""A run folder → one page that needs neither network nor script."""
