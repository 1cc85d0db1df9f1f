"""The tables of a probe: what is written, and how it is read back."""
