"""A file of one's own, to begin with: written by `gradlab init`, looked over by `gradlab check`."""
