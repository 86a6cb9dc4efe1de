"""Is what was written the model that was trained? A file an artefact; each refusal names its
number and its tolerance.
"""
