"""How well a model recognises: errors, comparisons, reports, search."""
