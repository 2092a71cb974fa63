"""What FFCV's users' decoders take from here."""
