"""What a row of the table of algorithms is made of: frozen values with one method each."""
