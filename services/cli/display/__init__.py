"""What people see: lines, tables and pages at 80 columns; nothing here reads a log."""
