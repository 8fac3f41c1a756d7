"""Stock that comes or goes without being sold: found, given, damaged, lost."""
