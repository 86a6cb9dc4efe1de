"""Completions → one honest score: transcripts, verdicts, intervals, paired comparisons, tables."""
