"""Claims of the papers in one table, each judged by the criterion of its study."""
