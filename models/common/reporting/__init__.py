"""What reports show: plots, tables, pictures and sounds as self-contained HTML. Nothing here trains or decides."""
