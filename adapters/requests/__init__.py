"""What clients ask and are answered, whichever way it came."""
