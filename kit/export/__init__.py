"""Adapter → merged → GGUF, each checked before it gets its name; Modelfile, model card, Hub."""
