import tyro

from analyses.certificates.engines import certify, table

tyro.extras.subcommand_cli_from_dict({"certify": certify, "table": table})
