"""Is what `gradlab plan` recommends right, where it is followed?"""
