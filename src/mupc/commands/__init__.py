"""The command, `mupc`: one file for each of its commands."""
