"""The tests: each is named as the promise that it keeps."""
