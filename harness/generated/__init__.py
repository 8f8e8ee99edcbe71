"""What comes after a cell: its kept generator, and the data that it writes."""
