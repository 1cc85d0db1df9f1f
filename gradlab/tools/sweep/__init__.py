"""Many runs of one command: a table of them, executed by workers, kept in one folder."""
