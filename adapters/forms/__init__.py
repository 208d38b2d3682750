"""What is sent in each form, as bytes, and some of it read."""
