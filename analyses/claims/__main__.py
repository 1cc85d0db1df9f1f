import tyro

from analyses.claims.table import main

tyro.cli(main)
