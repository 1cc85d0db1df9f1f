"""What runs contain, read without torch: one module or package per kind of run."""
