"""One file a family of problems: how they are asked, read, compared and judged."""
