"""What users declare: documents, indexes, and the catalog of one schema."""
