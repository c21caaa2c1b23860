"""Task files and the rewards that they define. Needs no torch: stdlib, pydantic, jsonschema-rs, rapidfuzz, PyYAML."""
