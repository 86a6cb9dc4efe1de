"""Prompts → completions, by whichever engine an artefact needs: transformers, vLLM or llama.cpp.

What a completion is worth is not asked here.
"""
