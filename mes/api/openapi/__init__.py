"""The API as an OpenAPI document and as a page, made of the views' operation docs."""
