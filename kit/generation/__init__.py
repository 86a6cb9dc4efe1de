"""Prompts → completions, by whichever engine an artefact needs: transformers, vLLM, llama.cpp, or a server.

What a completion is worth is not asked here.
"""
