"""The runs that look for what breaks: ``python -m torture --help``. No part of the library."""
