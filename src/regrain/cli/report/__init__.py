"""How a report looks: what stands in it, as values, and these as HTML and as Markdown."""
