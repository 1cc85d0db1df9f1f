"""Sentences about runs, read without torch: one module or package per kind of run."""
