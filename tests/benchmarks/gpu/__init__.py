"""What device.py is made of: the project's interfaces, measuring, and its sections."""
