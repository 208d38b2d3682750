"""What is sent in each form, as bytes, and one of them read."""
