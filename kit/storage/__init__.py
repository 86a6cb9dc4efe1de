"""What lies on the disk and on the Hub: the run folder, model folders, files that are whole or not there.

Comes in: a path or a Hub id. Goes out: where things lie and whether they can be read. No weights are loaded.
"""
