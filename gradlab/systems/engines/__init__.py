"""Steps of other engines as Systems: one file and one extra of `pyproject.toml` for each."""
