"""A run folder → one page that needs no network; its own script is for browsing replies."""
