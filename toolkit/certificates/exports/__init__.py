"""Certificates in other formats: a module for each, which registers itself in `toolkit.certificates.proof_formats`."""
