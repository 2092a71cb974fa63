"""What tests share. Imported as tests.support.<module>."""
