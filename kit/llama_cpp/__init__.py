"""The one pinned llama.cpp: built, converting to GGUF, looking inside a GGUF, answering as a server."""
