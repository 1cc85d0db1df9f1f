"""The papers' figures from anybody's runs, and their tables and figures made again."""
