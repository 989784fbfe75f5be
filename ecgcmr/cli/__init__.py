"""The `ecgcmr` command: verbs over the library; the only room that prints."""
