"""Connections and threads, shared by the SQL log and the SQL view store of one database."""
