"""Making what a measurement needs where the user has none: policies, critics."""
