"""Every rule that is a function of its arguments: no waiting, no clock, no input or output."""
