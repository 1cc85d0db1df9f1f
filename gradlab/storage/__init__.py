"""Runs on disk: HDF5 files with a checksum, and the journal of a run that is being written."""
