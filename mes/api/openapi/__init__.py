"""OpenAPI: the interface as a document and as a page, made of what the views promise."""
