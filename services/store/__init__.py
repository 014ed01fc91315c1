"""Archives the log, projects it into tables, decides commands, answers queries."""
