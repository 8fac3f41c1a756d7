"""The Online Retail file, read by path and sent as commands, one for each invoice."""
