"""What load runs and benchmarks share when they report: JSON files, tables, the machine, documents.

A result is one JSON file with a schema number. Text, HTML pages and the tables in the documentation
are made from it and nothing else. It knows neither scenarios nor variants: it gets rows and fields.
"""
