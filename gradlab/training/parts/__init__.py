"""Parts of a row of the table of algorithms: frozen values with one method each."""
